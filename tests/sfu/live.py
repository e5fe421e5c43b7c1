"""A worker process of our own, its owner, and aiortc peers that talk to it as any client would."""

# Waiting for what another process does is polling.
# ruff: noqa: ASYNC110

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from sfu import client as sfu_client
from sfu import protocol, sdp
from sfu.client import Client, Happening, WorkerOptions
from sfu.description import (
    Codec,
    Description,
    DescriptionType,
    Feedback,
    Fingerprint,
    Profile,
)

_FEEDBACK = (Feedback("nack"), Feedback("nack", "pli"), Feedback("goog-remb"))

# What aiortc speaks: Opus, VP8 with rtx.
PROFILE = Profile(
    name="live",
    audio=(Codec(96, "opus", 48_000, 2),),
    video=(
        Codec(97, "VP8", 90_000, 1, (), _FEEDBACK),
        Codec(98, "rtx", 90_000, 1, (("apt", "97"),)),
    ),
    extensions=(
        "urn:ietf:params:rtp-hdrext:sdes:mid",
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    ),
    ice_lite=True,
)


class Owner:
    """The control plane of a test: one client and what it heard."""

    def __init__(self, options: WorkerOptions, epoch: int) -> None:
        self.client = Client(options.socket, owner="test", epoch=epoch)
        self.seen: list[Happening] = []

    async def ask(self, command: protocol.Command) -> protocol.Reply:
        return await self.client.request(command)

    async def see(self, wanted: Callable[[Happening], bool], timeout_s: float = 10.0) -> Happening:
        async with asyncio.timeout(timeout_s):
            while True:
                found = next((h for h in self.seen if wanted(h)), None)
                if found is not None:
                    return found
                await asyncio.sleep(0.01)

    async def collect(self) -> None:
        async for happening in self.client.events():
            self.seen.append(happening)

    async def statistics(self) -> protocol.Statistics:
        reply = await self.ask(protocol.ReadStatistics())
        assert isinstance(reply, protocol.Statistics)
        return reply


@asynccontextmanager
async def owner(options: WorkerOptions, epoch: int = 1) -> AsyncIterator[Owner]:
    """An owner of the worker that runs; leaving it leaves the worker alone."""
    one = Owner(options, epoch)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(one.client.run())
        tasks.create_task(one.collect())
        try:
            await one.client.connected(10)
            yield one
        finally:
            one.client.close()


def worker_options(directory: Path, shards: int = 1) -> WorkerOptions:
    return WorkerOptions(
        socket=directory / "sfu.sock",
        lock=directory / "sfu.lock",
        log=directory / "sfu.log",
        shards=shards,
        orphan_s=60,
        log_level="debug",
    )


@asynccontextmanager
async def worker(directory: Path, shards: int = 1) -> AsyncIterator[WorkerOptions]:
    """`python -m sfu` on a free port of the loopback."""
    options = worker_options(directory, shards)
    process = await sfu_client.spawn(options)
    assert process is not None
    try:
        yield options
    finally:
        process.terminate()
        process.wait(10)
    assert process.returncode == 0, options.log.read_text()
    log = options.log.read_text()
    assert "Traceback" not in log, log
    assert "panicked" not in log, log  # of the data plane, which goes on (S15)


class Ears:
    """Counts what arrives on a remote track."""

    def __init__(self) -> None:
        self.frames = 0
        self.last_at = 0.0
        self.largest_gap_s = 0.0

    async def listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                await track.recv()
                now = time.monotonic()
                if self.frames:
                    self.largest_gap_s = max(self.largest_gap_s, now - self.last_at)
                self.frames, self.last_at = self.frames + 1, now
        except MediaStreamError:
            return

    async def hear(self, frames: int, timeout_s: float = 15.0) -> None:
        wanted = self.frames + frames
        async with asyncio.timeout(timeout_s):
            while self.frames < wanted:
                await asyncio.sleep(0.02)


class Peer:
    """An aiortc client of one session; it offers, or answers our offers."""

    def __init__(self, owner: Owner, session: str, profile: Profile = PROFILE) -> None:
        self.owner, self.session, self.profile = owner, session, profile
        self.pc = RTCPeerConnection()
        self.ears: dict[str, Ears] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._version = 0
        self.pc.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        ears = self.ears[track.kind] = Ears()
        self._tasks.append(asyncio.create_task(ears.listen(track)))

    async def open(self) -> None:
        await self.owner.ask(protocol.Open(self.session, "room", self.profile))

    async def offer(
        self, change: Callable[[Description], Description] = lambda d: d
    ) -> Description:
        """Offer to the worker and take its answer, as a browser does."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        text = self.pc.localDescription.sdp
        offered = change(sdp.parse(text, DescriptionType.OFFER))
        reply = await self.owner.ask(protocol.Offer(self.session, offered))
        assert isinstance(reply, protocol.Described)
        await self.pc.setRemoteDescription(
            RTCSessionDescription(self._print(reply.description), "answer")
        )
        return reply.description

    async def accept(self) -> Description:
        """Take the worker's offer and answer it."""
        reply = await self.owner.ask(protocol.MakeOffer(self.session))
        assert isinstance(reply, protocol.Described)
        await self.pc.setRemoteDescription(
            RTCSessionDescription(self._print(reply.description), "offer")
        )
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        answered = sdp.parse(self.pc.localDescription.sdp, DescriptionType.ANSWER)
        await self.owner.ask(protocol.Answer(self.session, answered))
        return answered

    def _print(self, description: Description) -> str:
        self._version += 1
        return sdp.print_description(description, session_version=self._version)

    async def is_connected(self) -> None:
        await self.owner.see(lambda e: e == protocol.Connected(self.session))

    async def close(self) -> None:
        await self.pc.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def peer(owner: Owner, session: str, profile: Profile = PROFILE) -> AsyncIterator[Peer]:
    one = Peer(owner, session, profile)
    await one.open()
    try:
        yield one
    finally:
        await one.close()


def with_wrong_fingerprint(description: Description) -> Description:
    wrong = (Fingerprint("sha-256", ":".join(["00"] * 32)),)
    return replace(
        description,
        sections=tuple(
            replace(s, transport=replace(s.transport, fingerprints=wrong))
            for s in description.sections
        ),
    )
