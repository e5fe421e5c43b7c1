"""A peer in a process of its own that speaks JSON lines: start, ask, kill.

Not here: the peers themselves (`tests.peers.native`, `tests.peers.jingle`).
"""

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
MAX_LINE_BYTES = 1 << 20


@dataclass(slots=True)
class PeerProcess:
    """`async with PeerProcess("tests.peers.native", [...]) as peer:`; ready when it printed its first line."""

    module: str
    arguments: list[str]
    log: Path
    ready_s: float = 30.0
    space: str = ""  # network namespace it runs in; the caller's own if empty
    ready: dict[str, Any] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()

    async def start(self) -> None:
        with self.log.open("ab") as log:
            inside = ("ip", "netns", "exec", self.space) if self.space else ()
            self._process = await asyncio.create_subprocess_exec(
                *inside,
                sys.executable,
                "-m",
                self.module,
                *self.arguments,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=MAX_LINE_BYTES,
            )
        try:
            self.ready = await asyncio.wait_for(self._line(), self.ready_s)
        except (TimeoutError, RuntimeError) as why:
            await self.kill()
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{self.module} did not get ready: {why!r}\n{tail}") from why

    async def _line(self) -> dict[str, Any]:
        """The next line that is a JSON object (libraries print too)."""
        process = self._process
        if process is None or process.stdout is None:
            raise RuntimeError("the peer does not run")
        while True:
            line = await process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.module} ended")
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    return value

    async def ask(self, do: str, *, timeout_s: float = 15.0, **details: Any) -> Any:
        """One command and its answer. Raises RuntimeError with the peer's own error."""
        process = self._process
        if process is None or process.stdin is None:
            raise RuntimeError("the peer does not run")
        async with self._lock:
            process.stdin.write(json.dumps({"do": do, **details}).encode() + b"\n")
            await process.stdin.drain()
            answer = await asyncio.wait_for(self._line(), timeout_s)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer.get("ok")

    async def leave(self) -> None:
        """As a person would; by force after 8 s."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            if process.stdin is not None:
                process.stdin.write(b'{"do": "leave"}\n')
                await process.stdin.drain()
            await asyncio.wait_for(process.wait(), 8)
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL: no goodbye on any wire."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
