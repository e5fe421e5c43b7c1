"""A hundred switches of size and frame rate, seen by a real decoder (MP11, MP14).

Three sizes are encoded by libvpx and libx264, sent as simulcast through the built module, and what one subscriber
gets is decoded. Decoders do not notice a missing reference, so each picture is compared with what was drawn.
Not here: SVC (test_svc).
"""

import random
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy
import pytest
from aiortc.codecs.h264 import H264Encoder, h264_depayload
from aiortc.codecs.vpx import VpxPayloadDescriptor

from sfu import _engine
from tests.adversary.media import Peer, Rig, rig, rtp

SIZES = ((64, 48), (128, 96), (256, 192))
LOOP = 16  # pictures from one key frame to the next
PATTERN = (0, 2, 1, 2)  # temporal ids
SWITCHES = 100
PICTURES = 6  # between two switches
INTERVAL_S = 0.012
PACKET_BYTES = 400
MOST_DIFFERENCE = (
    14  # of 255, mean over the picture; another picture of the loop differs by 30 and more
)


@pytest.fixture
def under_test() -> Iterator[Rig]:
    with rig() as one:
        yield one


def drawn(index: int, width: int, height: int) -> numpy.ndarray:
    """Broad bars that move a long way from picture to picture."""
    across = numpy.arange(width)[None, :] * 2 * numpy.pi / width
    down = numpy.arange(height)[:, None] * 2 * numpy.pi / height
    phase = index * 2 * numpy.pi * 5 / LOOP
    return (128 + 60 * numpy.sin(across + phase) + 50 * numpy.cos(down - 2 * phase)).astype(
        numpy.uint8
    )


def encoded(codec: str, size: tuple[int, int], options: dict[str, str]) -> list[bytes]:
    """One loop of pictures, the first a key frame."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.framerate = 30
    context.time_base = 1 / context.framerate
    context.bit_rate = size[0] * size[1] * 40
    context.gop_size = LOOP
    context.options = options
    frames: list[bytes] = []
    for index in range(LOOP):
        grey = drawn(index, *size)
        picture = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
        picture.pts = index
        frames.extend(bytes(packet) for packet in context.encode(picture))
    frames.extend(bytes(packet) for packet in context.encode(None))
    assert len(frames) == LOOP
    return frames


@dataclass(slots=True)
class Layer:
    ssrc: int
    frames: list[bytes]
    sequence: int
    timestamp: int
    picture: int
    tl0: int

    def vp8(self, index: int) -> Iterator[bytes]:
        at = index % LOOP
        temporal = PATTERN[at % len(PATTERN)]
        # Behind a key frame the first of each layer can only refer to T0.
        is_sync = at in (1, 2)
        self.picture = (self.picture + 1) & 0x7FFF
        self.tl0 = (self.tl0 + (temporal == 0)) & 0xFF
        frame = self.frames[at]
        for place in range(0, len(frame), PACKET_BYTES):
            head = struct.pack(
                "!BBHBB",
                0x90 if place == 0 else 0x80,
                0xE0,
                0x8000 | self.picture,
                self.tl0,
                temporal << 6 | is_sync << 5,
            )
            yield head + frame[place : place + PACKET_BYTES]

    def h264(self, index: int) -> Iterator[bytes]:
        frame = self.frames[index % LOOP]
        yield from H264Encoder._packetize(H264Encoder._split_bitstream(frame))

    def send(self, peer: Peer, payloads: list[bytes]) -> None:
        for payload in payloads:
            packet = rtp(
                self.ssrc,
                self.sequence,
                payload,
                payload_type=96,
                timestamp=self.timestamp,
                marker=payload is payloads[-1],
            )
            peer.send_rtp(packet)
            self.sequence += 1
        self.timestamp += 3_000


def codec(name: str, payload_type: int) -> _engine.Codec:
    return _engine.Codec(
        payload_type=payload_type, name=name, clock_rate=90_000, nack=True, pli=True
    )


def received(peer: Peer) -> list[bytes]:
    packets: list[bytes] = []
    while packet := peer.receive_rtp(0.001):
        packets.append(packet)
    return packets


def through(under_test: Rig, name: str, layers: list[Layer]) -> list[bytes]:
    """Everything one subscriber gets while it changes its mind a hundred times."""
    ann, bob = Peer(under_test).connect(), Peer(under_test).connect()
    engine = under_test.engine
    stream = _engine.ReceiveStream(
        mid="0",
        video=True,
        codecs=[codec(name, 96)],
        extensions=_engine.Extensions(),
        ssrcs=[(layer.ssrc, 0) for layer in layers],
    )
    publication = engine.publish(ann.transport, group=1, stream=stream)
    subscription = engine.subscribe(
        bob.transport,
        mid="0",
        video=True,
        codecs=[codec(name, 100)],
        extensions=_engine.Extensions(),
        ssrc=77,
        cname="parley",
    )
    engine.set_source(subscription, publication)
    ann.settle()
    source = random.Random(7)
    got: list[bytes] = []
    for switch in range(SWITCHES):
        engine.set_layer(subscription, max_layer=source.randrange(3), paused=False)
        engine.set_frame_rate(subscription, max_fps=source.choice((0, 15, 35)))
        for index in range(switch * PICTURES, (switch + 1) * PICTURES):
            for layer in layers:
                layer.send(ann, list(getattr(layer, name.lower())(index)))
            got.extend(received(bob))
            time.sleep(INTERVAL_S)
    time.sleep(0.1)
    return got + received(bob)


def fields(packet: bytes) -> tuple[bool, int, int]:
    """(marker, sequence, timestamp)"""
    _, second, sequence, timestamp = struct.unpack_from("!BBHI", packet)
    return bool(second & 0x80), sequence, timestamp


def pictures(packets: list[bytes]) -> list[list[bytes]]:
    """Gapless and in order, or this fails; payloads by picture."""
    found: list[list[bytes]] = [[]]
    before = fields(packets[0])
    for packet in packets:
        now = fields(packet)
        if found[-1] or len(found) > 1:
            assert now[1] == (before[1] + 1) & 0xFFFF, "a hole in the numbers"
            assert 0 <= (now[2] - before[2]) & 0xFFFFFFFF < 1 << 31, "time runs backwards"
        assert found[-1] == [] or now[2] == before[2], "a picture without its end"
        found[-1].append(packet[12:])
        if now[0]:
            found.append([])
        before = now
    return [picture for picture in found if picture]


def assert_seen(name: str, frames: list[bytes]) -> None:
    """No decoder error, and every picture is one that was drawn, whole."""
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    shown = []
    for frame in frames:
        shown.extend(decoder.decode(av.Packet(frame)))
    shown.extend(decoder.decode(None))
    assert len(shown) == len(frames)
    sizes = set()
    for picture in shown:
        size = (picture.width, picture.height)
        sizes.add(size)
        grey = picture.to_ndarray(format="gray").astype(int)
        differences = [numpy.abs(grey - drawn(index, *size)).mean() for index in range(LOOP)]
        assert min(differences) < MOST_DIFFERENCE, f"nobody drew this: {min(differences):.1f}"
    assert sizes == set(SIZES), "every size was seen"


def simulcast(encoder: str, options: dict[str, str]) -> list[Layer]:
    return [
        Layer(1_000 + at, encoded(encoder, size, options), 65_000 + 100 * at, 7 * at, 900 * at, at)
        for at, size in enumerate(SIZES)
    ]


def test_vp8_with_temporal_layers(under_test: Rig) -> None:
    options = {
        "deadline": "realtime",
        "lag-in-frames": "0",
        "error-resilient": "1",  # or probabilities of frames that were left out would be missing
        "ts-parameters": "ts_number_layers=3:ts_target_bitrate=40,60,100:ts_rate_decimator=4,2,1:"
        "ts_periodicity=4:ts_layer_id=0,2,1,2:ts_layering_mode=3",
    }
    packets = through(under_test, "VP8", simulcast("libvpx", options))
    frames, rates, before = [], set(), None
    for picture in pictures(packets):
        described = [VpxPayloadDescriptor.parse(payload) for payload in picture]
        first = described[0][0]
        assert {d.picture_id for d, _ in described} == {first.picture_id}
        if before is not None:
            assert first.picture_id == (before.picture_id + 1) & 0x7FFF
            assert first.tl0picidx == (before.tl0picidx + (first.tid[0] == 0)) & 0xFF
        before = first
        rates.add(first.tid[0])
        frames.append(b"".join(data for _, data in described))
    assert rates == {0, 1, 2}
    assert len(frames) < SWITCHES * PICTURES * 0.95, "some were left out"
    assert_seen("vp8", frames)


def test_h264(under_test: Rig) -> None:
    options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
    packets = through(under_test, "H264", simulcast("libx264", options))
    frames = [b"".join(h264_depayload(part) for part in picture) for picture in pictures(packets)]
    assert len(frames) > SWITCHES * PICTURES * 0.8
    assert_seen("h264", frames)
