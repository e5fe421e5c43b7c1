"""What Dino 0.4.2 needs to log in to a server of ours: folders, an account, a name and a certificate to trust.

COMPAT: Dino 0.4.2 has no field for host or port and no switch for a certificate (later versions may; re-check
2027-06). So the account goes into its database, and its process sees a hosts file and CA bundle of its own in
a private mount namespace: nothing of the machine is changed. A port other than 5222 is forwarded.
Not here: display, sound and driving it (`tests.peers.dino`).
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = shutil.which("dino-im")
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
XMPP_PORT = 5222  # without SRV records Dino takes the domain's address and this port
SCHEMA_S = 30.0
STOP_S = 8.0

_MOUNT = (
    f'mount --bind "$1" {SYSTEM_BUNDLE} && mount --bind "$2" /etc/hosts'
    ' && mount --bind "$3" /etc/resolv.conf && shift 3 && exec "$@"'
)


def why_not() -> str:
    """Empty when Dino can be started here, otherwise the reason."""
    if PROGRAM is None:
        return "no Dino: apt install dino-im"
    if shutil.which("unshare") is None:
        return "no unshare: apt install util-linux"
    for plugin, package in (("rtpmanager", "good"), ("opus", "base")):
        # Debian's dino-im does not depend on them; without them it logs in and has no handset.
        if not any(Path("/usr/lib").glob(f"*/gstreamer-1.0/libgst{plugin}.so")):
            return f"Dino has no codecs: apt install gstreamer1.0-plugins-{package}"
    if not SYSTEM_BUNDLE.exists():
        return "no CA bundle: apt install ca-certificates"
    return ""


@dataclass(frozen=True, slots=True)
class Login:
    """An account that exists on a server of ours."""

    jid: str
    password: str
    port: int
    ca: Path

    @property
    def domain(self) -> str:
        return self.jid.partition("@")[2]


@dataclass(slots=True)
class DinoHome:
    """A folder with everything of one Dino."""

    folder: Path
    login: Login
    chats: Sequence[str] = ()
    """Bare JIDs with an open conversation, as after somebody clicked on the contact."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.folder / "home/.local/share/dino/dino.db"

    def variables(self) -> dict[str, str]:
        home = self.folder / "home"
        return {
            **os.environ,
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local/share"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "GTK_A11Y": "none",
            "NO_AT_BRIDGE": "1",
            **self.environment,
        }

    def command(self, *arguments: str, address: str = "127.0.0.1") -> list[str]:
        """Dino in a mount namespace in which our domain has `address` and our authority is trusted.

        The parts of the command replace one another, so the process that is started is Dino.
        """
        bundle, hosts, resolver = (self.folder / n for n in ("bundle.crt", "hosts", "resolv.conf"))
        bundle.write_bytes(SYSTEM_BUNDLE.read_bytes() + b"\n" + self.login.ca.read_bytes())
        hosts.write_text(
            f"127.0.0.1 localhost\n::1 localhost\n{address} {self.login.domain}"
            f" muc.{self.login.domain} conf.{self.login.domain}\n"
        )
        resolver.write_text("nameserver 127.0.0.1\n")  # refuses at once: no question leaves
        own = [] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"]
        return [
            *("unshare", "--mount", *own, "--", "sh", "-c", _MOUNT, "sh"),
            *(str(bundle), str(hosts), str(resolver)),
            *(PROGRAM or "dino-im", *arguments),
        ]

    async def create(self) -> None:
        """Let Dino make its database in a first start without account, then put the account in."""
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        if not self.database.exists():
            await self._first_start()
        with contextlib.closing(sqlite3.connect(self.database)) as base, base:
            _insert_account(base, self.login, self.chats)

    async def _first_start(self) -> None:
        with (self.folder / "first-start.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command(), env=self.variables(), stdout=log, stderr=log
            )
            try:
                async with asyncio.timeout(SCHEMA_S):
                    while not self._has_schema():
                        if process.returncode is not None:
                            raise RuntimeError(f"dino ended at its first start, see {log.name}")
                        await asyncio.sleep(0.2)
            finally:
                await end(process)

    def _has_schema(self) -> bool:
        if not self.database.exists():
            return False
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self.read()) as base:
            names = base.execute("select count(*) from sqlite_master where type = 'table'")
            version = base.execute("select int_val from _meta where name = 'version'").fetchone()
            return bool(version) and names.fetchone()[0] > 20
        return False

    def read(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)


def _insert_account(base: sqlite3.Connection, login: Login, chats: Sequence[str]) -> None:
    if base.execute("select 1 from account where bare_jid = ?", (login.jid,)).fetchone():
        return
    account = base.execute(
        "insert into account (bare_jid, resourcepart, password, alias, enabled, roster_version,"
        " mam_earliest_synced) values (?, ?, ?, '', 1, '', 0)",
        (login.jid, f"dino.{secrets.token_hex(4)}", login.password),
    ).lastrowid
    now_s = int(time.time())
    for chat in chats:
        base.execute("insert or ignore into jid (bare_jid) values (?)", (chat,))
        base.execute(
            "insert into conversation (account_id, jid_id, active, active_last_changed, last_active,"
            " type, encryption, notification, send_typing, send_marker)"
            " select ?, id, 1, ?, ?, 0, 0, 0, 0, 0 from jid where bare_jid = ?",
            (account, now_s, now_s, chat),
        )


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL; only this process."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def reachable(port: int) -> AsyncIterator[str]:
    """A loopback address whose port 5222 leads to `port` of 127.0.0.1."""
    if port == XMPP_PORT:
        yield "127.0.0.1"
        return
    writers: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()  # the server restarts: Dino tries again
            return
        pair = {writer, server_writer}
        writers.update(pair)
        try:
            await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))
        finally:
            writers.difference_update(pair)

    for _ in range(20):
        a, b, c = (random.randint(1, 250) for _ in range(3))
        address = f"127.{a}.{b}.{c}"
        with contextlib.suppress(OSError):
            server = await asyncio.start_server(connected, address, XMPP_PORT)
            break
    else:
        raise RuntimeError(f"no loopback address with port {XMPP_PORT} free")
    try:
        yield address
    finally:
        server.close()
        for writer in tuple(writers):
            writer.close()
        await server.wait_closed()
        await asyncio.sleep(0)
