"""Parley itself as a process of its own, as an operator runs it: configuration file, `parley run`, signals.

Not here: what is connected to it (tests.peers.synapse, tests.peers.prosody), what is asserted.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from tests.peers.synapse import free_port

ROOT = Path(__file__).resolve().parents[2]
READY_S = 20.0
DRAIN_S = 15.0


@dataclass(slots=True)
class Parley:
    """`async with Parley(folder, sections) as server:` starts it; `kill` and `start` again for fault tests.

    `sections` is merged over a working loopback configuration. Ports are chosen once and kept.
    """

    folder: Path
    sections: Mapping[str, Any] = field(default_factory=dict)
    public_port: int = field(default_factory=free_port)
    internal_port: int = field(default_factory=free_port)
    ops_port: int = field(default_factory=free_port)
    api_key: str = "parley-key"
    api_secret: str = field(default_factory=lambda: secrets.token_hex(32))
    invite_secret: str = field(default_factory=lambda: secrets.token_hex(32))
    log_level: str = "info"
    media_port: int = 0
    _process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.public_port}"

    @property
    def ws_url(self) -> str:
        return f"ws://localhost:{self.public_port}"

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.internal_port}"

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def log_path(self) -> Path:
        return self.folder / "parley.log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("parley does not run")
        return self._process.pid

    @property
    def worker_pid(self) -> int | None:
        """From the lock file that the worker holds."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "state" / "sfu.lock").read_text().split()[0])
        return None

    def configuration(self) -> dict[str, Any]:
        base: dict[str, Any] = {
            "state_dir": str(self.folder / "state"),
            "database": {"url": f"sqlite:///{self.folder}/parley.db"},
            "http": {
                "public": {"host": "127.0.0.1", "port": self.public_port},
                "internal": {"host": "127.0.0.1", "port": self.internal_port},
                "ops": {"host": "127.0.0.1", "port": self.ops_port},
                "public_url": self.url,
            },
            "media": {"listen": ["127.0.0.1"], "port": self.media_port},
            "livekit": {"keys": [{"key": self.api_key, "secret": self.api_secret}]},
            "web": {"invite_secret": self.invite_secret},
            "log": {"level": self.log_level},
        }
        return base | dict(self.sections)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> float:
        """Start and wait until it is healthy; returns how long that took (s)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(yaml.safe_dump(self.configuration()))
        if not (self.folder / "state").exists():
            await self.verb("migrate")
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bridge",
                "run",
                "-c",
                str(self.config_path),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        async with aiohttp.ClientSession() as http:
            while time.monotonic() - began < READY_S:
                if self._process.returncode is not None:
                    raise RuntimeError(f"parley ended at start:\n{self.last_words()}")
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(
                        f"http://127.0.0.1:{self.ops_port}/healthz",
                        timeout=aiohttp.ClientTimeout(total=1),
                    ) as answer:
                        if answer.status < 500:
                            return time.monotonic() - began
                await asyncio.sleep(0.05)
        await self.stop()
        raise RuntimeError(f"parley was not healthy after {READY_S:.0f} s:\n{self.last_words()}")

    async def kill(self) -> None:
        """SIGKILL to the control plane only; the worker must not notice."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM: parley drains and stops the worker it spawned; by force when that takes too long."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), DRAIN_S)
            except TimeoutError:
                await self.kill()
        worker = self.worker_pid
        if worker is not None and _is_our_worker(worker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    async def verb(self, *words: str) -> str:
        """`parley <verb> -c <configuration> ...`, as an operator types it; what it printed.

        Raises RuntimeError with its error sentence.
        """
        verb, *arguments = words
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", verb, "-c", str(self.config_path), *arguments),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await asyncio.wait_for(process.communicate(), 30)
        if process.returncode:
            raise RuntimeError(f"parley {verb}: {errors.decode(errors='replace')}")
        return out.decode()

    async def invite(self, slug: str) -> str:
        """A guest link."""
        return (await self.verb("invite", slug)).split()[-1]

    def last_words(self, lines: int = 40) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return ""


def _is_our_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"sfu" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
