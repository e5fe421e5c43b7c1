"""`python -m sfu` with the real engine, and aiortc as the peer: media, data, certificates, re-adoption."""

# Waiting for what another process does is polling.
# ruff: noqa: ASYNC110

import asyncio
from pathlib import Path

import pytest
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from sfu import protocol
from sfu.description import MediaKind
from tests.sfu.live import Peer, owner, peer, with_wrong_fingerprint, worker

AUDIO, VIDEO = MediaKind.AUDIO, MediaKind.VIDEO

pytestmark = pytest.mark.timeout(90)


async def publish(ann: Peer, *kinds: MediaKind) -> None:
    """Announce and offer one track of each kind."""
    for kind in kinds:
        track = AudioStreamTrack() if kind is AUDIO else VideoStreamTrack()
        ann.pc.addTrack(track)
        await ann.owner.ask(
            protocol.Expect(
                ann.session, f"{ann.session}-{kind.value}", kind, "source", match=(track.id,)
            )
        )
    await ann.offer()
    await ann.is_connected()


async def subscribe(bob: Peer, *tracks: str) -> None:
    for track in tracks:
        bob.pc.addTransceiver(track.split("-")[1], direction="recvonly")
        await bob.owner.ask(protocol.Subscribe(bob.session, track))
    await bob.offer()
    await bob.is_connected()


async def test_dtls_comes_up_with_an_offering_peer(tmp_path: Path) -> None:
    async with worker(tmp_path) as options, owner(options) as one, peer(one, "ann") as ann:
        ann.pc.addTrack(AudioStreamTrack())
        await ann.offer()
        await ann.is_connected()
        async with asyncio.timeout(10):
            while ann.pc.connectionState != "connected":
                await asyncio.sleep(0.01)


async def test_a_data_channel_echoes(tmp_path: Path) -> None:
    async with worker(tmp_path) as options, owner(options) as one, peer(one, "ann") as ann:
        channel = ann.pc.createDataChannel("chat")
        heard: asyncio.Queue[str | bytes] = asyncio.Queue()
        channel.on("message", heard.put_nowait)
        await ann.offer()
        await one.see(lambda e: e == protocol.ChannelOpened("ann", "chat"))
        channel.send("text")
        channel.send(b"\x00bytes")
        for data, binary in ((b"text", False), (b"\x00bytes", True)):
            wanted = protocol.Message("ann", "chat", data, binary)
            await one.see(lambda e, wanted=wanted: e == wanted)  # type: ignore[misc]
            await one.ask(protocol.Send("ann", "chat", data, binary))
        async with asyncio.timeout(5):
            assert await heard.get() == "text"
            assert await heard.get() == b"\x00bytes"
        channel.close()
        await one.see(lambda e: e == protocol.ChannelClosed("ann", "chat"))


async def test_a_wrong_fingerprint_closes(tmp_path: Path) -> None:
    async with worker(tmp_path) as options, owner(options) as one, peer(one, "ann") as ann:
        ann.pc.addTrack(AudioStreamTrack())
        await ann.offer(with_wrong_fingerprint)
        await one.see(lambda e: e == protocol.Closed("ann", "fingerprint"))
        assert protocol.Connected("ann") not in one.seen


async def test_a_peers_goodbye_closes(tmp_path: Path) -> None:
    async with worker(tmp_path) as options, owner(options) as one, peer(one, "ann") as ann:
        ann.pc.addTrack(AudioStreamTrack())
        await ann.offer()
        await ann.is_connected()
        await ann.pc.close()
        await one.see(lambda e: e == protocol.Closed("ann", "close"))


async def test_audio_and_video_reach_a_subscriber(tmp_path: Path) -> None:
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "bob") as bob,
    ):
        await publish(ann, AUDIO, VIDEO)
        await subscribe(bob, "ann-audio", "ann-video")
        await one.see(lambda e: e == protocol.TrackLive("ann", "ann-audio", "opus", (0,)))
        await one.see(lambda e: e == protocol.TrackLive("ann", "ann-video", "VP8", (0,)))
        await bob.ears["audio"].hear(50)
        await bob.ears["video"].hear(15)


async def test_two_peers_hear_each_other(tmp_path: Path) -> None:
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "bob") as bob,
    ):
        await publish(ann, AUDIO)
        await publish(bob, AUDIO)
        for me, other in ((ann, "bob-audio"), (bob, "ann-audio")):
            await subscribe(me, other)
        await ann.ears["audio"].hear(50)
        await bob.ears["audio"].hear(50)
