"""`python -m sfu` with the real engine, and aiortc as the peer: media, data, certificates, re-adoption."""

# Waiting for what another process does is polling.
# ruff: noqa: ASYNC110

import asyncio
import datetime
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from aiortc import RTCBundlePolicy, RTCCertificate, RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from sfu import client as sfu_client
from sfu import protocol
from sfu.client import Adopted
from sfu.description import ChannelSpec, Downstream, MediaKind
from sfu.lock import holder, is_free
from tests.sfu.live import (
    PROFILE,
    Peer,
    owner,
    peer,
    with_wrong_fingerprint,
    worker,
    worker_options,
)

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


@pytest.mark.parametrize("shards", [1, 4])
async def test_a_data_channel_echoes(tmp_path: Path, shards: int) -> None:
    async with worker(tmp_path, shards) as options, owner(options) as one, peer(one, "ann") as ann:
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


@pytest.mark.parametrize("shards", [1, 4])
async def test_audio_and_video_reach_a_subscriber(tmp_path: Path, shards: int) -> None:
    async with (
        worker(tmp_path, shards) as options,
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


@pytest.mark.parametrize("shards", [1, 4])
async def test_two_peers_hear_each_other(tmp_path: Path, shards: int) -> None:
    async with (
        worker(tmp_path, shards) as options,
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


async def test_we_offer_and_the_peer_answers(tmp_path: Path) -> None:
    profile = replace(PROFILE, channels=(ChannelSpec("_reliable"), ChannelSpec("_lossy", False, 0)))
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "bob", profile) as bob,
    ):
        await bob.accept()
        await bob.is_connected()
        for channel in ("_reliable", "_lossy"):
            wanted = protocol.ChannelOpened("bob", channel)
            await one.see(lambda e, wanted=wanted: e == wanted)  # type: ignore[misc]
        await publish(ann, AUDIO, VIDEO)
        for kind in (AUDIO, VIDEO):
            await one.ask(protocol.Subscribe("bob", f"ann-{kind.value}"))
            await one.see(
                lambda e: isinstance(e, protocol.NegotiationNeeded) and e.session == "bob"
            )
            one.seen.clear()
            await bob.accept()
            await bob.ears[kind.value].hear(20)


async def test_the_same_offer_again_keeps_the_media(tmp_path: Path) -> None:
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "bob") as bob,
    ):
        await publish(ann, AUDIO)
        await subscribe(bob, "ann-audio")
        await bob.ears["audio"].hear(20)
        before = await one.ask(protocol.TakeSnapshot())
        await ann.offer()
        await bob.ears["audio"].hear(50)
        assert await one.ask(protocol.TakeSnapshot()) == replaced_seq(
            before, await one.ask(protocol.TakeSnapshot())
        )


async def test_a_peer_with_an_rsa_certificate(tmp_path: Path) -> None:
    async with worker(tmp_path) as options, owner(options) as one, peer(one, "ann") as ann:
        ann.pc = RTCPeerConnection()
        ann.pc._RTCPeerConnection__certificates = [rsa_certificate()]  # type: ignore[attr-defined]
        ann.pc.addTrack(AudioStreamTrack())
        await ann.offer()
        await ann.is_connected()


async def test_an_unbundled_compact_peer_follows(tmp_path: Path) -> None:
    """As Dino: two transports, two DTLS associations, one stream per kind."""
    profile = replace(PROFILE, bundle=False, downstream=Downstream.COMPACT, ice_lite=False)
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "dino", profile) as dino,
        peer(one, "bob") as bob,
    ):
        await publish(ann, AUDIO, VIDEO)
        dino.pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_COMPAT))
        dino.pc.on("track", dino._on_track)
        await publish(dino, AUDIO, VIDEO)
        await dino.ears["audio"].hear(20)
        await dino.ears["video"].hear(5)
        await subscribe(bob, "dino-audio", "dino-video")
        await bob.ears["audio"].hear(20)
        await bob.ears["video"].hear(5)


async def test_statistics_tell_of_session_track_layer_and_stream(tmp_path: Path) -> None:
    """Named as in W3C webrtc-stats; the sums of both ends fit together."""
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "bob") as bob,
    ):
        await publish(ann, VIDEO)
        await subscribe(bob, "ann-video")
        await bob.ears["video"].hear(30)
        await asyncio.sleep(0.6)  # counters are published every 250 ms
        told = await one.statistics()
        (track,) = told.tracks
        (layer,) = track.layers
        assert (track.session, layer.layer, layer.is_live) == ("ann", 0, True)
        assert (layer.packets_received, layer.bytes_received) == (
            track.packets_received,
            track.bytes_received,
        )
        assert layer.frames_received >= 15
        assert 1 <= layer.key_frames_received <= layer.frames_received
        assert layer.bitrate_bps > 0
        (sent,) = told.subscriptions
        assert (sent.layer, sent.quality_limitation_reason) == (0, "none")
        assert sent.target_bitrate_bps == layer.bitrate_bps
        sessions = {row.session: row for row in told.sessions}
        assert {row.group for row in told.sessions} == {"room"}
        assert sessions["bob"].bytes_sent >= sent.bytes_sent
        assert sessions["ann"].packets_received >= track.packets_received
        assert (told.part, told.parts) == (0, 1)


async def test_a_closed_gate_is_silence(tmp_path: Path) -> None:
    async with (
        worker(tmp_path) as options,
        owner(options) as one,
        peer(one, "ann") as ann,
        peer(one, "bob") as bob,
    ):
        await publish(ann, AUDIO)
        await subscribe(bob, "ann-audio")
        await bob.ears["audio"].hear(20)
        await one.ask(protocol.Gate("ann-audio", open=False))
        await asyncio.sleep(0.6)  # counters are published every 250 ms
        sent = (await one.statistics()).subscriptions[0].packets_sent
        received = (await one.statistics()).tracks[0].packets_received
        await asyncio.sleep(0.6)
        later = await one.statistics()
        assert later.subscriptions[0].packets_sent == sent
        assert later.tracks[0].packets_received > received
        await one.ask(protocol.Gate("ann-audio", open=True))
        await bob.ears["audio"].hear(20)


async def test_media_does_not_notice_that_the_owner_died(tmp_path: Path) -> None:
    """R5, R16 in small: the owner's connection is gone, a new one adopts, no packet is missing."""
    async with worker(tmp_path) as options:
        async with owner(options) as first:
            ann, bob = Peer(first, "ann"), Peer(first, "bob")
            await ann.open()
            await bob.open()
            await publish(ann, AUDIO)
            await subscribe(bob, "ann-audio")
            await bob.ears["audio"].hear(20)
            writer = first.client._writer
            assert writer is not None
            before = await first.statistics()
            first.client._is_closed = True  # as dead as a process: no goodbye, no reconnect
            writer.transport.abort()
        await bob.ears["audio"].hear(50)
        async with owner(options, epoch=2) as second:
            adopted = second.seen[0]
            assert isinstance(adopted, Adopted)
            assert {(s.session, s.state) for s in adopted.snapshot.sessions} == {
                ("ann", "connected"),
                ("bob", "connected"),
            }
            assert [(t.track, t.live) for t in adopted.snapshot.tracks] == [("ann-audio", True)]
            assert adopted.snapshot.subscriptions[0].track == "ann-audio"
            await bob.ears["audio"].hear(20)
            after = await second.statistics()
            sent = after.subscriptions[0]
            assert sent.packets_sent > before.subscriptions[0].packets_sent + 50
            assert sent.last_sequence - sent.first_sequence + 1 == (
                sent.packets_sent - sent.retransmitted_packets_sent
            )
            assert bob.ears["audio"].largest_gap_s < 0.5
            await second.ask(protocol.Close("ann"))
            await second.ask(protocol.Close("bob"))
        await ann.close()
        await bob.close()


async def test_a_killed_owner_process_leaves_the_worker(tmp_path: Path) -> None:
    """SIGKILL to the process that spawned the worker; another one finds it, with the session it opened."""
    options = worker_options(tmp_path)
    script = f"""
import asyncio, dataclasses, pathlib
from sfu import client, protocol
from tests.sfu import live
async def main():
    options = live.worker_options(pathlib.Path({str(tmp_path)!r}))
    await client.spawn(options)
    async with live.owner(options) as one:
        await one.ask(protocol.Open("s", "g", live.PROFILE))
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(20):
        assert await child.stdout.readline() == b"ready\n"
    child.kill()
    await child.wait()
    pid = holder(options.lock)
    assert pid is not None
    assert await sfu_client.spawn(options) is None, "the one that runs is used"
    async with owner(options, epoch=2) as one:
        adopted = one.seen[0]
        assert isinstance(adopted, Adopted)
        assert [s.session for s in adopted.snapshot.sessions] == ["s"]
        await sfu_client.stop(one.client)
    async with asyncio.timeout(10):
        while not is_free(options.lock):
            await asyncio.sleep(0.02)


def replaced_seq(one: protocol.Reply, other: protocol.Reply) -> protocol.Reply:
    assert isinstance(one, protocol.Snapshot)
    assert isinstance(other, protocol.Snapshot)
    return msgspec.structs.replace(one, seq=other.seq)


def rsa_certificate() -> RTCCertificate:
    """aiortc makes only ECDSA ones; some peers still come with RSA."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    now = datetime.datetime.now(tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return RTCCertificate(key=key, cert=certificate)  # type: ignore[arg-type]
