"""A newcomer that begins at a key frame from the cache decodes every picture, bit for bit as the publisher sent it.

Real VP8 (libvpx) over the real engine. Not here: when it begins there (unit tests of the engine).
"""

import struct
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av
import pytest
from aiortc.codecs.vpx import Vp8Encoder, VpxPayloadDescriptor
from av.video.codeccontext import VideoCodecContext

from sfu import _engine
from tests.adversary.media import Peer, Rig, is_rtp, nack, rig, rtp

PUBLISHER_SSRC: Final = 1_000
NEWCOMER_SSRC: Final = 2_000
REPEATS_SSRC: Final = 2_001
FRAMES: Final = 60
KEY_FRAME_AT: Final = 25
JOINS_AT: Final = 35  # a third of a second later: too soon for another key frame


@pytest.fixture(params=[1, 4], ids=["one shard", "four shards"])
def under_test(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(shards=request.param) as running:
        yield running


def codec() -> _engine.Codec:
    return _engine.Codec(
        payload_type=96,
        name="VP8",
        clock_rate=90_000,
        channels=1,
        rtx_payload_type=97,
        nack=True,
        pli=True,
    )


def subscribe(peer: Peer, publication: int, ssrc: int) -> None:
    subscription = peer.rig.engine.subscribe(
        peer.transport,
        mid="0",
        video=True,
        codecs=[codec()],
        extensions=_engine.Extensions(),
        ssrc=ssrc,
        rtx_ssrc=ssrc + 1,
        cname="parley",
    )
    peer.rig.engine.set_source(subscription, publication)


def picture(number: int) -> av.VideoFrame:
    """Something that moves, so that a wrong reference shows."""
    frame = av.VideoFrame(320, 240, "yuv420p")
    for place, plane in enumerate(frame.planes):
        plane.update(
            bytes((at * 7 + number * 5 * (place + 1)) & 0xFF for at in range(240))
            * (plane.buffer_size // 240)
        )
    frame.pts, frame.time_base = number * 3_000, Fraction(1, 90_000)
    return frame


def packets_of(encoder: Vp8Encoder, number: int, sequence: int) -> list[bytes]:
    payloads, timestamp = encoder.encode(picture(number), number in (0, KEY_FRAME_AT))
    return [
        rtp(
            PUBLISHER_SSRC,
            sequence + at,
            payload,
            payload_type=96,
            timestamp=timestamp,
            marker=at == len(payloads) - 1,
        )
        for at, payload in enumerate(payloads)
    ]


def decoded(packets: list[bytes]) -> list[bytes]:
    """The pictures of RTP packets that are in order; any error of the decoder is one of the test."""
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, VideoCodecContext)
    pictures: list[bytes] = []
    frame = b""
    for packet in packets:
        descriptor, rest = VpxPayloadDescriptor.parse(packet[12:])
        assert bool(descriptor.partition_start) == (not frame)
        frame += rest
        if packet[1] & 0x80:
            for shown in decoder.decode(av.Packet(frame)):
                assert not shown.is_corrupt
                pictures.append(b"".join(bytes(plane) for plane in shown.planes))
            frame = b""
    return pictures


def sequence_of(packet: bytes) -> int:
    (number,) = struct.unpack_from("!H", packet, 2)
    return int(number)


def read(peer: Peer, into: list[bytes]) -> None:
    """Whatever waits in the socket."""
    while datagram := _nothing_or(peer):
        if is_rtp(datagram):
            into.append(bytes(peer._receiver.unprotect(datagram)))


def _nothing_or(peer: Peer) -> bytes:
    try:
        peer.wire.socket.setblocking(False)
        return peer.wire.socket.recv(2_048)
    except BlockingIOError:
        return b""
    finally:
        peer.wire.socket.setblocking(True)


def test_a_newcomer_decodes_what_the_publisher_sent(under_test: Rig) -> None:
    engine = under_test.engine
    publisher, watcher, newcomer = (Peer(under_test).connect() for _ in range(3))
    stream = _engine.ReceiveStream(
        mid="0",
        video=True,
        codecs=[codec()],
        extensions=_engine.Extensions(),
        ssrcs=[(PUBLISHER_SSRC, 0)],
    )
    publication = engine.publish(publisher.transport, group=1, stream=stream)
    subscribe(watcher, publication, 500)
    encoder = Vp8Encoder()
    sent: list[list[bytes]] = []
    watched: list[bytes] = []
    received: list[bytes] = []
    sequence = 65_400  # wraps on the way
    start_s = time.monotonic()
    for number in range(FRAMES):
        frame = packets_of(encoder, number, sequence)
        sequence += len(frame)
        sent.append(frame)
        for packet in frame:
            publisher.send_rtp(packet)
        if number == JOINS_AT:
            subscribe(newcomer, publication, NEWCOMER_SSRC)
        time.sleep(max(0.0, start_s + (number + 1) / 30 - time.monotonic()))
        read(watcher, watched)
        read(newcomer, received)
    time.sleep(0.3)
    read(newcomer, received)
    # Some of what came quickly is asked for again: the repeat is the same under the RTX numbers.
    asked = received[3:9]
    newcomer.send_rtcp(nack(1, NEWCOMER_SSRC, *map(sequence_of, asked)))
    repeats: list[bytes] = []
    time.sleep(0.3)
    read(newcomer, repeats)
    assert [repeat[14:] for repeat in repeats] == [packet[12:] for packet in asked]
    assert [repeat[12:14] for repeat in repeats] == [packet[2:4] for packet in asked]
    assert {repeat[8:12] for repeat in repeats} == {REPEATS_SSRC.to_bytes(4, "big")}

    numbers = [sequence_of(packet) for packet in received]
    assert numbers == [(numbers[0] + at) & 0xFFFF for at in range(len(numbers))]
    assert len(received) == sum(map(len, sent[KEY_FRAME_AT:]))
    truth = decoded([packet for frame in sent[KEY_FRAME_AT:] for packet in frame])
    assert decoded(received) == truth
    assert len(truth) == FRAMES - KEY_FRAME_AT
