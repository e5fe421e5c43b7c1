"""The compiled load tool as a process: build it, hand it connected sockets and keys, ask for its counters.

Not here: ICE and DTLS (`bench.peer`); packets (`engine/bench`, whose `main.rs` says what the lines mean).
"""

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cast import Media
from sfu.description import MediaKind

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD_S: Final = 600.0
ANSWER_S: Final = 20.0  # the machine may be busy with what is measured
END_S: Final = 5.0
TRANSPORT_CC_ID: Final = 2  # of the header extension, where clients choose it


@dataclass(frozen=True, slots=True)
class Keyed:
    """A peer after ICE and DTLS, ready to be handed over."""

    descriptor: int
    profile: int
    material: bytes
    pwd: str
    is_client: bool = True  # in DTLS

    def words(self, number: int) -> str:
        return (
            f"{number} {self.descriptor} {self.profile} {self.material.hex()} {self.pwd} "
            f"{int(self.is_client)}"
        )


@dataclass(frozen=True, slots=True)
class Sending:
    """One RTP stream for the load tool to send. `rtx_ssrc` 0: it repeats nothing."""

    peer: int
    track: int
    layer: int
    media: Media
    ssrc: int
    rtx_ssrc: int
    payload_type: int
    rtx_payload_type: int
    mid: str

    @classmethod
    def new(cls, peer: int, track: int, layer: int, mid: str, media: Media) -> "Sending":
        is_video = media.kind is MediaKind.VIDEO
        return cls(
            peer=peer,
            track=track,
            layer=layer,
            media=media,
            ssrc=1 + secrets.randbelow(2**31 - 1),
            rtx_ssrc=1 + secrets.randbelow(2**31 - 1) if is_video else 0,
            payload_type=97 if is_video else 111,
            rtx_payload_type=98 if is_video else 0,
            mid=mid,
        )

    @property
    def ssrcs(self) -> tuple[int, ...]:
        return (self.ssrc, self.rtx_ssrc) if self.rtx_ssrc else (self.ssrc,)

    def words(self) -> str:
        layer = self.media.layers[self.layer]
        kind = "v" if self.media.kind is MediaKind.VIDEO else "a"
        return (
            f"{self.peer} {self.track} {self.layer} {kind} {self.ssrc} {self.rtx_ssrc} "
            f"{self.payload_type} {self.rtx_payload_type} {self.mid} {layer.rid or '-'} "
            f"{layer.packets_per_s} {layer.frame_packets} {layer.at_once} {layer.packet_bytes}"
        )


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

    @property
    def pid(self) -> int:
        return self._process.pid

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

    def add(self, number: int, peer: Keyed) -> None:
        """From now on it answers, reports and counts."""
        self._say(f"peer {peer.words(number)}")

    def send(self, stream: Sending) -> None:
        self._say(f"stream {stream.words()}")

    def pace(self, packets_per_s: int, *, track: int = 0, window: int = 0) -> None:
        """Another rate for one track; 0 = silence. With a window, never further ahead of the slowest receiver."""
        self._say(f"pace {track} {packets_per_s} {window}")

    def weather(self, loss: float, round_trip_ms: float) -> None:
        """What the clients' network does, in both directions."""
        self._say(f"weather {round(loss * 10_000)} {round(round_trip_ms * 1_000)}")

    def manner(
        self,
        *,
        sample: int = 64,
        feedback: bool = False,
        stamps: bool = False,
        transport_cc: int = TRANSPORT_CC_ID,
        whole: bool = False,
    ) -> None:
        """Decrypt every nth packet; send NACK and transport-wide feedback; let the kernel stamp arrivals;
        read messages of several datagrams as they were sent (UDP_GRO)."""
        self._say(f"manner {sample} {int(feedback)} {int(stamps)} {transport_cc} {int(whole)}")

    async def first_packet(self, number: int, timeout_s: float) -> int:
        """When this receiver decrypted its first packet, ns of the monotonic clock."""
        async with asyncio.timeout(timeout_s):
            return await self._first(number)

    async def report(self) -> dict[str, int]:
        """Counters since the start; samples since the last report."""
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
