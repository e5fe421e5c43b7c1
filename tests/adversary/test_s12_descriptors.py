"""S12: lies in payload descriptors and structures: never a panic, never a wrong layer, and the next true packet is
forwarded as ever. The parsers themselves are fuzzed (engine/fuzz).
"""

import random
import struct
from dataclasses import dataclass, field

import pytest

from sfu import _engine
from tests.adversary.media import Peer, Rig, rig, rtp

LAYERS = (0x0A0A0A0A, 0x0A0A0A0B)  # SSRCs of A's, lowest first
TO_B_SSRC, TO_C_SSRC = 0x0B0B0B0B, 0x0C0C0C0C
MARKS = (b"LOWER", b"UPPER")  # at the end of the payload, where nothing is rewritten
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


@dataclass(slots=True)
class Scene:
    """A publishes two simulcast layers of a codec; B is to get the lower, C the upper one."""

    a: Peer
    b: Peer
    c: Peer
    heard: dict[int, list[bytes]] = field(default_factory=dict)  # by subscriber

    def drain(self, wait_s: float = 0.001) -> None:
        for peer in (self.b, self.c):
            while packet := peer.receive_rtp(wait_s):
                self.heard.setdefault(peer.transport, []).append(packet)


def two_layers(one: Rig, name: str) -> Scene:
    engine = one.engine
    scene = Scene(*(Peer(one).connect() for _ in range(3)))
    engine.set_ingress_limit(scene.a.transport, bits_per_s=1 << 30, packets_per_s=1 << 20)
    codec = _engine.Codec(payload_type=96, name=name, clock_rate=90_000, nack=True, pli=True)
    stream = _engine.ReceiveStream(
        mid="0",
        video=True,
        codecs=[codec],
        extensions=_engine.Extensions(dependency_descriptor=DEPENDENCY),
        ssrcs=[(ssrc, 0) for ssrc in LAYERS],
    )
    publication = engine.publish(scene.a.transport, group=1, stream=stream)
    for layer, (peer, ssrc) in enumerate(((scene.b, TO_B_SSRC), (scene.c, TO_C_SSRC))):
        subscription = engine.subscribe(
            peer.transport,
            mid="0",
            video=True,
            codecs=[codec],
            extensions=_engine.Extensions(dependency_descriptor=DEPENDENCY + 1),
            ssrc=ssrc,
            cname="parley",
        )
        engine.set_layer(subscription, max_layer=layer, paused=False)
        engine.set_source(subscription, publication)
    scene.a.settle()
    return scene


def lie(source: random.Random, name: str, layer: int, sequence: int) -> bytes:
    """A packet of this layer with nonsense where its payload descriptor and its dependency descriptor should be."""
    bent = source.choice(DESCRIPTORS[name])
    payload = bent[: source.randrange(len(bent) + 1)] + source.randbytes(source.randrange(30))
    if source.random() < 0.7:  # the rest ends within its descriptor
        payload += bytes(40) + MARKS[layer]
    timestamp = source.choice([0, 0xFFFFFFFF, sequence, source.getrandbits(32)])
    packet = rtp(LAYERS[layer], sequence, payload, payload_type=96, timestamp=timestamp)
    if source.random() < 0.5:
        structure = source.choice(STRUCTURES)[: source.randrange(201)]
        packet = bytes([packet[0] | 0x10]) + packet[1:12] + block(structure) + payload
    return packet


def true_key_frames(scene: Scene, name: str, sequence: int) -> None:
    for layer, mark in enumerate(MARKS):
        payload = KEY_FRAMES[name] + bytes(40) + mark
        scene.a.send_rtp(rtp(LAYERS[layer], sequence, payload, payload_type=96, marker=True))


@pytest.mark.parametrize("name", KEY_FRAMES)
def test_lies_in_descriptors_hurt_nobody(shards: int, name: str) -> None:
    source = random.Random(name)
    with rig(shards=shards) as one:
        scene = two_layers(one, name)
        true_key_frames(scene, name, 1)
        scene.drain(0.2)
        assert scene.heard[scene.b.transport][-1].endswith(MARKS[0])
        assert scene.heard[scene.c.transport][-1].endswith(MARKS[1])
        scene.heard.clear()
        for sequence in range(2, 302):
            for layer in range(len(LAYERS)):
                scene.a.send_rtp(lie(source, name, layer, sequence))
            if sequence % 25 == 0:
                scene.a.settle()
                scene.drain()
        scene.drain(0.1)
        true_key_frames(scene, name, 302)
        scene.drain(0.2)
        for mark, other, peer, ssrc in (
            (*MARKS, scene.b, TO_B_SSRC),
            (*MARKS[::-1], scene.c, TO_C_SSRC),
        ):
            heard = scene.heard[peer.transport]
            assert heard[-1].endswith(bytes(40) + mark), "a true key frame after all the lies"
            assert {packet[8:12] for packet in heard} == {ssrc.to_bytes(4, "big")}
            assert not [packet for packet in heard if packet.endswith(other)], "of another layer"
            assert len(heard) > 100, "lies pass to who decodes them"
        assert not one.find("expired", scene.a.transport)
