"""The compiled load tool as a process: build it, hand it connected sockets and keys, ask for its counters.

Not here: ICE and DTLS (`bench.peer`); packets (`engine/bench`, whose `main.rs` says what the lines mean).
"""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD_S: Final = 600.0
ANSWER_S: Final = 20.0  # the machine may be busy with what is measured
END_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Keyed:
    """A peer after ICE and DTLS, ready to be handed over."""

    descriptor: int
    profile: int
    material: bytes
    pwd: str

    def words(self, number: int) -> str:
        return f"{number} {self.descriptor} {self.profile} {self.material.hex()} {self.pwd}"


def build() -> Path:
    """The release binary, up to date."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "engine" / "target"))
    command = ["cargo", "build", "--release", "--quiet", "--locked", "--package", "parley-bench"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    subprocess.run(command, cwd=ROOT / "engine", env=environment, check=True, timeout=BUILD_S)
    return target / "release" / "parley-load"


class Load:
    """A running load tool."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process: Final = process
        self._reports: asyncio.Queue[dict[str, int]] = asyncio.Queue(maxsize=16)
        self._firsts: dict[int, asyncio.Future[int]] = {}

    async def read(self) -> None:
        """Take what it says until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            word, _, rest = line.decode().strip().partition(" ")
            if word == "report":
                await self._reports.put(json.loads(rest))
            elif word == "first":
                number, at_ns = (int(part) for part in rest.split())
                self._first(number).set_result(at_ns)

    def _first(self, number: int) -> asyncio.Future[int]:
        return self._firsts.setdefault(number, asyncio.get_running_loop().create_future())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def publish(
        self, number: int, peer: Keyed, *, ssrc: int, payload_type: int, packet_bytes: int
    ) -> None:
        self._say(f"publish {peer.words(number)} {ssrc} {payload_type} {packet_bytes}")

    def receive(self, number: int, peer: Keyed) -> None:
        self._say(f"receive {peer.words(number)}")

    async def first_packet(self, number: int, timeout_s: float) -> int:
        """When this receiver decrypted its first packet, ns of the monotonic clock."""
        async with asyncio.timeout(timeout_s):
            return await self._first(number)

    def pace(self, packets_per_s: int, *, window: int = 0) -> None:
        self._say(f"pace {packets_per_s} {window}")

    async def report(self) -> dict[str, int]:
        self._say("report")
        async with asyncio.timeout(ANSWER_S):
            return await self._reports.get()


@asynccontextmanager
async def load(binary: Path, descriptors: Sequence[int]) -> AsyncIterator[Load]:
    """Start it with these sockets inherited under their own numbers."""
    process = await asyncio.create_subprocess_exec(
        binary,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=descriptors,
    )
    tool = Load(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tool.read())
        try:
            yield tool
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
