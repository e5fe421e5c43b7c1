"""S9: a receiver that asks for key frames and repeats without end gets no more than its share, and the publisher
hardly notices.
"""

import struct
import time

from sfu import _engine
from tests.adversary.media import Peer, is_rtp, nack, pli, receiver_report, rig, rtp

A_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0B0B0B0B
KEY_FRAME = bytes.fromhex("900080011002009d012a4001f000")
DELTA = bytes.fromhex("9000800101020000")
STORM_S = 2.0
PLI_PER_S = 1_000
NACKS_EACH = 10  # packets that each NACK names: 10,000 a second in all


def vp8(rtx: int | None) -> _engine.Codec:
    return _engine.Codec(
        payload_type=96, name="VP8", clock_rate=90_000, rtx_payload_type=rtx, nack=True, pli=True
    )


def storm(shards: int, rtx: int | None) -> None:
    with rig(shards=shards) as one:
        engine = one.engine
        a, b = Peer(one).connect(), Peer(one).connect()
        nothing = _engine.Extensions()
        stream = _engine.ReceiveStream(
            mid="0", video=True, codecs=[vp8(None)], extensions=nothing, ssrcs=[(A_SSRC, 0)]
        )
        publication = engine.publish(a.transport, group=1, stream=stream)
        subscription = engine.subscribe(
            b.transport,
            mid="0",
            video=True,
            codecs=[vp8(rtx)],
            extensions=nothing,
            ssrc=TO_B_SSRC,
            rtx_ssrc=TO_B_SSRC + 1 if rtx else 0,
            cname="parley",
        )
        engine.set_source(subscription, publication)
        a.settle()
        sequence = asked = last = 0
        media_bytes = plis = total = 0
        began = time.monotonic()
        while (passed := time.monotonic() - began) < STORM_S:
            sequence += 1
            body = (KEY_FRAME if sequence == 1 else DELTA) + bytes(900)
            a.send_rtp(rtp(A_SSRC, sequence, body, payload_type=96, timestamp=3_000 * sequence))
            media_bytes += len(body) + 28
            while asked < PLI_PER_S * passed:
                asked += 1
                b.send_rtcp(receiver_report(1) + pli(1, TO_B_SSRC))
                wanted = [(last - n) & 0xFFFF for n in range(NACKS_EACH)]
                b.send_rtcp(receiver_report(1) + nack(1, TO_B_SSRC, *wanted))
            while datagram := a.wire.receive(0):
                plis += _plis(a, datagram)
            while datagram := b.wire.receive(0.001):
                total += len(datagram)
                if is_rtp(datagram) and datagram[8:12] == TO_B_SSRC.to_bytes(4, "big"):
                    last = max(last, struct.unpack("!H", datagram[2:4])[0])
        assert asked >= 0.9 * PLI_PER_S * STORM_S, "hardly a storm"
        assert plis <= 2 * STORM_S + 1, "a key frame request every 500 ms at most"
        counters = one.counters("subscriptions", subscription)
        heard = min(counters["plis"], counters["asked_again"] / NACKS_EACH)
        assert heard >= 0.9 * asked - 0.25 * PLI_PER_S, "so old may counters be"
        assert total <= 1.2 * media_bytes + 20_000, f"{total} for {media_bytes}"


def _plis(a: Peer, datagram: bytes) -> int:
    """Key frame requests in what the publisher got."""
    if not (192 <= datagram[1] <= 223 and datagram[0] >> 6 == 2):
        return 0
    compound = bytes(a._receiver.unprotect_rtcp(datagram))
    found = at = 0
    while at + 4 <= len(compound):
        found += compound[at + 1] == 206 and compound[at] & 31 in (1, 4)
        at += 4 + 4 * struct.unpack("!H", compound[at + 2 : at + 4])[0]
    return found


def test_a_storm_of_a_peer_with_rtx(shards: int) -> None:
    storm(shards, 97)


def test_a_storm_of_a_peer_without_rtx(shards: int) -> None:
    storm(shards, None)
