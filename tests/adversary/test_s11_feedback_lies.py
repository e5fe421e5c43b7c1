"""S11: a receiver that lies about its link is neither flooded at our cost nor able to starve anybody but itself.

The clamps of the estimate are properties in engine/core/src/media/estimate/tests.rs; the same lies in virtual time are in
engine/core/src/media/tests/network/liars.rs.
"""

import struct
import time
from collections import defaultdict
from collections.abc import Callable

import pytest

from sfu import _engine
from tests.adversary.media import Peer, Rig, is_rtp, receiver_report, rig, rtcp, rtp

VIDEO_SSRC, AUDIO_SSRC = 0x0A0A0A0A, 0x0A0A0A0B
KEY_FRAME = bytes.fromhex("900080011002009d012a4001f000")
DELTA = bytes.fromhex("9000800101020000")
LASTS_S = 7.0  # misery is believed after five
LINK_BPS = 500_000
LINK_QUEUE_S = 0.3
TRANSPORT_CC = 5  # extension id

Lie = Callable[[Peer, list[int], int], None]


def codec(name: str) -> _engine.Codec:
    if name == "opus":
        return _engine.Codec(
            payload_type=111, name="opus", clock_rate=48_000, channels=2, transport_cc=True
        )
    return _engine.Codec(
        payload_type=96,
        name="VP8",
        clock_rate=90_000,
        rtx_payload_type=97,
        nack=True,
        pli=True,
        remb=True,
        transport_cc=True,
    )


def feedback(base: int, count: int, number: int, *, is_lost: bool = False) -> bytes:
    """Every one of these numbers arrived, a quarter of a millisecond apart; or none."""
    reference = (int(time.monotonic() * 1000) // 64) & 0xFFFFFF
    body = struct.pack("!IIHH", 1, VIDEO_SSRC, base & 0xFFFF, count)
    body += reference.to_bytes(3, "big") + bytes([number & 0xFF])
    body += struct.pack("!H", (0 if is_lost else 1 << 13) | count)
    body += b"" if is_lost else b"\x01" * count
    body += bytes(-len(body) % 4)
    return rtcp(205, 15, body)


def remb(bps: int) -> bytes:
    exponent = max(0, bps.bit_length() - 18)
    value = bytes([1, exponent << 2 | bps >> exponent >> 16]) + struct.pack(
        "!H", bps >> exponent & 0xFFFF
    )
    return rtcp(206, 15, struct.pack("!II", 1, 0) + b"REMB" + value + struct.pack("!I", VIDEO_SSRC))


def paradise(peer: Peer, seen: list[int], number: int) -> None:
    """All arrived at once, and more will fit than any link carries."""
    if seen:
        peer.send_rtcp(receiver_report(1) + feedback(seen[0], len(seen), number))
    peer.send_rtcp(receiver_report(1) + remb(1 << 60))


def prophecy(peer: Peer, seen: list[int], number: int) -> None:
    """What was never sent arrived, again and again."""
    latest = seen[-1] if seen else 0
    peer.send_rtcp(receiver_report(1) + feedback(latest + 1_000, 200, number))
    for _ in range(5):
        if seen:
            peer.send_rtcp(receiver_report(1) + feedback(seen[0], len(seen), number))


def misery(peer: Peer, seen: list[int], number: int) -> None:
    """Nothing arrives, and hardly a bit fits."""
    if seen:
        peer.send_rtcp(receiver_report(1) + feedback(seen[0], len(seen), number, is_lost=True))
    peer.send_rtcp(receiver_report(1) + remb(1))


class AllArrived:
    """All arrived, also what the link did not let pass."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, peer: Peer, seen: list[int], number: int) -> None:
        if seen:
            first = self._next or seen[0]
            self._next = seen[-1] + 1
            peer.send_rtcp(receiver_report(1) + feedback(first, self._next - first, number))


def nothing_lost(peer: Peer, seen: list[int], number: int) -> None:
    """What arrived is told of, and nothing else is mentioned."""
    runs: list[list[int]] = []
    for one in seen:
        if runs and runs[-1][-1] + 1 == one:
            runs[-1].append(one)
        else:
            runs.append([one])
    for run in runs:
        peer.send_rtcp(receiver_report(1) + feedback(run[0], len(run), number))


def subscribe(one: Rig, peer: Peer, publications: tuple[int, int]) -> None:
    for index, (name, source) in enumerate(zip(("opus", "vp8"), publications, strict=True)):
        ssrc = 0x0B000000 + 16 * index
        subscription = one.engine.subscribe(
            peer.transport,
            mid=str(index),
            video=name == "vp8",
            codecs=[codec(name)],
            extensions=_engine.Extensions(transport_cc=TRANSPORT_CC),
            ssrc=ssrc,
            rtx_ssrc=ssrc + 1 if name == "vp8" else 0,
            cname="parley",
        )
        one.engine.set_source(subscription, source)


def numbers(datagram: bytes) -> int | None:
    """The transport-wide number (header extensions are not encrypted); the one-byte form."""
    if not datagram[0] & 0x10:
        return None
    size = 4 * struct.unpack("!H", datagram[14:16])[0]
    at, end = 16, 16 + size
    while at < end:
        if datagram[at] == 0:
            at += 1
            continue
        own, length = datagram[at] >> 4, (datagram[at] & 15) + 1
        if own == TRANSPORT_CC:
            return int(struct.unpack("!H", datagram[at + 1 : at + 3])[0])
        at += 1 + length
    return None


class Told:
    """What was sent to a receiver, by kind and by second; `seen`: what its link of `link_bps` let pass (0 = all)."""

    def __init__(self, peer: Peer, link_bps: int = 0) -> None:
        self.peer = peer
        self.packets = {"audio": 0, "video": 0}
        self.bytes = {"audio": 0, "video": 0}
        self.seconds: dict[int, int] = defaultdict(int)
        self.seen: list[int] = []
        self.began = time.monotonic()
        self._link_bps = link_bps
        self._free_at = 0.0

    def listen(self, within_s: float) -> None:
        while datagram := self.peer.receive(within_s):
            if not is_rtp(datagram):
                continue
            kind = "audio" if datagram[1] & 0x7F == 111 else "video"
            self.packets[kind] += 1
            self.bytes[kind] += len(datagram)
            self.seconds[int(time.monotonic() - self.began)] += 8 * len(datagram)
            number = numbers(datagram)
            if number is not None and self._passes(len(datagram)):
                self.seen.append(number)

    def _passes(self, size: int) -> bool:
        """As tbf would have it: a rate and a queue."""
        if not self._link_bps:
            return True
        now = time.monotonic()
        self._free_at = max(self._free_at, now)
        if self._free_at - now > LINK_QUEUE_S:
            return False
        self._free_at += 8 * size / self._link_bps
        return True


def call(
    one: Rig, liar: Peer, honest: Peer, lie: Lie, *, pictures: int = 1, link_bps: int = 0
) -> tuple[int, dict[str, int], Told, Told]:
    """Steps of a packet of sound and some of pictures, bytes sent of each kind, and what arrived."""
    speaker = Peer(one).connect()
    publications = [
        one.engine.publish(
            speaker.transport,
            group=1,
            stream=_engine.ReceiveStream(
                mid=mid,
                video=name == "vp8",
                codecs=[codec(name)],
                extensions=_engine.Extensions(),
                ssrcs=[(ssrc, 0)],
            ),
        )
        for mid, name, ssrc in (("0", "opus", AUDIO_SSRC), ("1", "vp8", VIDEO_SSRC))
    ]
    for peer in (liar, honest):
        subscribe(one, peer, (publications[0], publications[1]))
    speaker.settle()
    sequence = told = 0
    sent = {"audio": 0, "video": 0}
    to_liar, to_honest = Told(liar, link_bps), Told(honest)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < LASTS_S:
        if sequence < passed * 100:
            sequence += 1
            sound = rtp(AUDIO_SSRC, sequence, bytes(80), timestamp=480 * sequence)
            packets = [("audio", sound)]
            for part in range(pictures):
                number = pictures * (sequence - 1) + part + 1
                body = (KEY_FRAME if number == 1 else DELTA) + bytes(1_000)
                packet = rtp(
                    VIDEO_SSRC,
                    number,
                    body,
                    payload_type=96,
                    timestamp=900 * sequence,
                    marker=part == pictures - 1,
                )
                packets.append(("video", packet))
            for kind, packet in packets:
                speaker.send_rtp(packet)
                sent[kind] += len(packet)
        to_liar.listen(0.001)
        to_honest.listen(0)
        if passed > told * 0.05:
            told += 1
            lie(liar, to_liar.seen, told)
            to_liar.seen = []
    to_honest.listen(0.2)
    return sequence, sent, to_liar, to_honest


@pytest.mark.parametrize("shards", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lie", [paradise, prophecy, misery])
def test_lies_about_a_link_cost_the_liar_alone(shards: int, lie: Lie) -> None:
    with rig(shards=shards) as one:
        liar, honest = (Peer(one).connect() for _ in range(2))
        count, sent, to_liar, to_honest = call(one, liar, honest, lie)
        # Nobody else noticed: not a packet less, sound and picture.
        assert to_honest.packets == {"audio": count, "video": count}
        # Sound is never held back, whatever a link is said to be.
        assert to_liar.bytes["audio"] >= sent["audio"] * 0.97
        # More than the stream it asked for are probes alone, a fifth.
        assert to_liar.bytes["video"] <= 1.3 * sent["video"] + 60 * count
        if lie is misery:
            assert to_liar.bytes["video"] < 0.9 * sent["video"], "believed, to its own cost"
        assert one.counters("transports", liar.transport)["estimate_bps"] <= 100_000_000
        if lie is prophecy:
            assert one.counters("drops")["foreign_ssrc"] > 0, "of the future nothing is believed"
        assert one.counters("drops")["panics"] == 0


@pytest.mark.parametrize("lie", [AllArrived(), nothing_lost], ids=["all-arrived", "nothing-lost"])
def test_who_reports_no_loss_on_a_narrow_link_gets_twice_the_link_for_three_seconds_at_most(
    lie: Lie,
) -> None:
    """The link lets 500 kbit/s pass, the picture alone has five times that."""
    with rig() as one:
        liar, honest = (Peer(one).connect() for _ in range(2))
        count, sent, to_liar, to_honest = call(
            one, liar, honest, lie, pictures=3, link_bps=LINK_BPS
        )
        assert sent["video"] * 8 / LASTS_S > 4 * LINK_BPS, "there was something to hold back"
        over = [second for second, bits in to_liar.seconds.items() if bits > 2 * LINK_BPS]
        assert len(over) <= 3, dict(to_liar.seconds)
        assert to_liar.bytes["audio"] >= sent["audio"] * 0.97
        assert to_honest.packets == {"audio": count, "video": 3 * count}
        assert one.counters("drops")["panics"] == 0
