"""S12: lies in payload descriptors and structures: never a panic, never a wrong layer, and the next true packet is
forwarded as ever. The parsers themselves are fuzzed (engine/fuzz).
"""

import random
import struct

import pytest

from sfu import _engine
from tests.adversary.media import Peer, rig, rtp

A_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0B0B0B0B
DEPENDENCY = 10
KEY_FRAMES = {
    "VP8": bytes.fromhex("900080011002009d012a4001f000"),
    "VP9": bytes.fromhex("88800100"),
    "H264": bytes.fromhex("6588804000"),
    "H265": bytes.fromhex("26018000"),
    "AV1": bytes.fromhex("180a0a0b00000004"),
}
DESCRIPTORS = {  # what a liar bends: longest forms, largest numbers
    "VP8": [bytes.fromhex("fff0ffffffff"), bytes.fromhex("9080"), bytes.fromhex("90f0ff")],
    "VP9": [bytes.fromhex("ffffffffffffff"), b"\x1a\xff" + b"\xff" * 60, bytes.fromhex("0afff8")],
    "H264": [bytes.fromhex("78ffff67"), bytes.fromhex("7c"), bytes.fromhex("780000") * 20],
    "H265": [bytes.fromhex("6001ffff"), bytes.fromhex("6201"), bytes.fromhex("60010000") * 20],
    "AV1": [bytes.fromhex("38ffffffffff7f"), b"\x18" + b"\x80" * 60, bytes.fromhex("f8")],
}
STRUCTURES = [
    b"\xc0\x00\x01\x80" + b"\xff" * 60,  # a template structure of nothing but ones
    b"\xc0\x00\x02\xf8" + bytes(60),
    b"\x80\x00\x03\x80\x02\x14\xea\xa8\x60\x41\x4d\x14\x10\x20\x84\x27\x01\x7f",
    b"\x00\x00",
    b"\xff" * 3,
    b"\xff" * 200,
]


def block(element: bytes) -> bytes:
    body = bytes([DEPENDENCY, len(element)]) + element
    body += bytes(-len(body) % 4)
    return struct.pack("!HH", 0x1000, len(body) // 4) + body


@pytest.mark.parametrize("name", KEY_FRAMES)
def test_lies_in_descriptors_hurt_nobody(shards: int, name: str) -> None:
    source = random.Random(name)
    with rig(shards=shards) as one:
        engine = one.engine
        a, b = Peer(one).connect(), Peer(one).connect()
        engine.set_ingress_limit(a.transport, bits_per_s=1 << 30, packets_per_s=1 << 20)
        codec = _engine.Codec(payload_type=96, name=name, clock_rate=90_000, nack=True, pli=True)
        stream = _engine.ReceiveStream(
            mid="0",
            video=True,
            codecs=[codec],
            extensions=_engine.Extensions(dependency_descriptor=DEPENDENCY),
            ssrcs=[(A_SSRC, 0)],
        )
        publication = engine.publish(a.transport, group=1, stream=stream)
        subscription = engine.subscribe(
            b.transport,
            mid="0",
            video=True,
            codecs=[codec],
            extensions=_engine.Extensions(dependency_descriptor=DEPENDENCY + 1),
            ssrc=TO_B_SSRC,
            cname="parley",
        )
        engine.set_source(subscription, publication)
        a.settle()
        true = KEY_FRAMES[name] + bytes(40)
        sequence = 1
        a.send_rtp(rtp(A_SSRC, sequence, true, payload_type=96))
        assert b.receive_rtp()[12:], "a key frame starts the stream"
        for round_ in range(300):
            sequence += 1
            lie = source.choice(DESCRIPTORS[name])
            payload = lie[: source.randrange(len(lie) + 1)] + source.randbytes(source.randrange(30))
            timestamp = source.choice([0, 0xFFFFFFFF, sequence, source.getrandbits(32)])
            packet = rtp(A_SSRC, sequence, payload, payload_type=96, timestamp=timestamp)
            if round_ % 2:
                structure = source.choice(STRUCTURES)[: source.randrange(201)]
                packet = bytes([packet[0] | 0x10]) + packet[1:12] + block(structure) + payload
            a.send_rtp(packet)
            if round_ % 50 == 49:
                a.settle()
        while b.receive_rtp(0.1):
            pass
        sequence += 1
        a.send_rtp(rtp(A_SSRC, sequence, true, payload_type=96, marker=True))
        heard = b.receive_rtp()
        assert heard[-40:] == bytes(40), "a true key frame after all the lies"
        assert heard[8:12] == TO_B_SSRC.to_bytes(4, "big")
        assert one.counters("drops")["panics"] == 0
        assert not one.find("expired", a.transport)
