"""A real PostgreSQL in a temporary directory, on a free loopback port, from Debian's package.

Not here: what is stored in it (tests.store).
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_START_S: Final = 30


def find() -> Path | None:
    """The newest installed server's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return found[-1].parent if found else None


def _version(path: Path) -> int:
    return int(path.parts[-3]) if path.parts[-3].isdigit() else 0


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Runs a server; gives the URL of its database. `folder` must be reachable by the account postgres."""
    programs = find()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed")
    # The server refuses to run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if prefix:
        shutil.chown(folder, "postgres")

    def call(program: str, *words: str) -> None:
        subprocess.run(
            [*prefix, str(programs / program), *words],
            check=True,
            timeout=_START_S,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # not a pipe: the server would hold it open
            stderr=subprocess.DEVNULL,
        )

    data = folder / "data"
    call("initdb", "-D", str(data), "-U", "parley", "-A", "trust", "-E", "UTF8", "--no-sync")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    call("pg_ctl", "start", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options)
    try:
        yield f"postgresql+asyncpg://parley@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "stop", "-m", "immediate", "-D", str(data))
