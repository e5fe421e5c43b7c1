"""S15: a panic costs the transport that caused it, and nobody else a packet.

The engine is asked to panic in the name of one transport (`Engine.fail_deliberately`). In every other test the
counter `drops.panics` stays 0: `rig` and `worker` see to it.
"""

import asyncio
import time
from pathlib import Path

from aiortc.mediastreams import AudioStreamTrack

from sfu import protocol
from sfu.description import MediaKind
from sfu.native import NativePlane
from sfu.process import serve
from tests.adversary.media import QUIET_S, SILENCE, Peer, publish_audio, rig, rtp, subscribe_audio
from tests.sfu.live import Peer as LivePeer
from tests.sfu.live import owner, peer, worker_options

A_SSRC, V_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0E0E0E0E, 0x0B0B0B0B


def test_the_others_lose_no_packet(shards: int) -> None:
    with rig(shards=shards) as one:
        a, b, victim = (Peer(one).connect() for _ in range(3))
        subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        subscribe_audio(victim, publish_audio(victim, V_SSRC), TO_B_SSRC)
        a.settle()
        gaps_s = []
        for sequence in range(1, 51):
            if sequence == 25:
                one.panics = 1
                one.engine.fail_deliberately(victim.transport)
            sent_at = time.monotonic()
            a.send_rtp(rtp(A_SSRC, sequence, b"%d" % sequence))
            assert b.receive_rtp()[12:] == b"%d" % sequence
            gaps_s.append(time.monotonic() - sent_at)
        at_panic_s = max(gaps_s[24:27])
        usual_s = max(gaps_s[:24] + gaps_s[27:])  # what the machine's load makes of it
        assert at_panic_s <= 0.1 + usual_s
        one.wait_for("expired", victim.transport)
        assert one.wait_for_counter("drops", 0, "panics", 1) == 1
        assert not one.find("expired", a.transport)
        assert not one.find("expired", b.transport)
        victim.send_rtp(rtp(V_SSRC, 1))
        assert victim.receive(QUIET_S) == SILENCE
        one.engine.close_transport(victim.transport)
        a.settle()


def test_a_panic_for_nobody_changes_nothing(shards: int) -> None:
    with rig(shards=shards) as one:
        a = Peer(one).connect()
        one.engine.fail_deliberately(999_999)
        a.settle()
        assert one.counters("drops").get("panics", 0) == 0


async def test_a_session_ends_and_its_room_goes_on(tmp_path: Path, shards: int) -> None:
    """The worker's own parts around a real engine, in this process, so that the engine is within reach."""
    plane = NativePlane(("127.0.0.1",), 0, shards=shards)
    options = worker_options(tmp_path, shards)
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(
            serve(plane, options.socket, ("127.0.0.1",), orphan_s=60, handle_signals=False)
        )
        while not options.socket.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with (
            owner(options) as one,
            peer(one, "ann") as ann,
            peer(one, "bob") as bob,
            peer(one, "eve") as eve,
        ):
            handles = set(_transports(plane))
            eve.pc.createDataChannel("x")
            await eve.offer()
            await eve.is_connected()
            await asyncio.sleep(0.3)  # the counters are at most 0.25 s old
            (of_eve,) = set(_transports(plane)) - handles
            await _call(ann, bob)
            ears = bob.ears["audio"]
            await ears.hear(10)
            plane._engine.fail_deliberately(of_eve)
            await one.see(lambda e: e == protocol.Closed("eve", "lost"))
            await ears.hear(25)
            closed = {e.session for e in one.seen if isinstance(e, protocol.Closed)}
            assert closed == {"eve"}
            assert plane.statistics()["drops"][0][1]["panics"] == 1
            await one.ask(protocol.Drain())
        await life


def _transports(plane: NativePlane) -> list[int]:
    return [handle for handle, _ in plane.statistics()["transports"]]


async def _call(ann: LivePeer, bob: LivePeer) -> None:
    track = AudioStreamTrack()
    ann.pc.addTrack(track)
    announced = protocol.Expect(
        "ann", "ann-audio", MediaKind.AUDIO, "microphone", match=(track.id,)
    )
    await ann.owner.ask(announced)
    await ann.offer()
    await ann.is_connected()
    bob.pc.addTransceiver("audio", direction="recvonly")
    await bob.owner.ask(protocol.Subscribe("bob", "ann-audio"))
    await bob.offer()
    await bob.is_connected()
