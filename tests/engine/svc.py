"""Recorded SVC streams (`tests/data/rtp`): read, sent again and again as one endless stream, and decoded.

RTP (RFC 3550, RFC 8285), VP9 (RFC 9628 section 4), AV1 (RTP payload format v1.0.0 section 4).
Not here: how they were recorded (tests/peers/rtpdump.py), what is asserted.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av

RECORDED = Path(__file__).resolve().parents[1] / "data" / "rtp"
PAUSE = 7_500  # of the clock, between two rounds: one picture
_TEMPORAL_DELIMITER = b"\x12\x00"


@dataclass(frozen=True, slots=True)
class Packet:
    marker: bool
    sequence: int
    timestamp: int
    extensions: dict[int, bytes]
    payload: bytes


def parse(packet: bytes) -> Packet:
    first, second, sequence, timestamp = struct.unpack_from("!BBHI", packet)
    at, extensions = 12 + 4 * (first & 15), {}
    if first & 0x10:
        profile, words = struct.unpack_from("!HH", packet, at)
        end, at = at + 4 + 4 * words, at + 4
        while at < end:
            if profile == 0xBEDE:
                number, size, head = packet[at] >> 4, (packet[at] & 15) + 1, 1
            else:
                number, size, head = packet[at], packet[at + 1] if at + 1 < end else 0, 2
            if number == 0:
                at += 1
                continue
            extensions[number] = packet[at + head : at + head + size]
            at += head + size
        at = end
    end = len(packet) - (packet[-1] if first & 0x20 else 0)
    return Packet(bool(second & 0x80), sequence, timestamp, extensions, packet[at:end])


@dataclass(slots=True)
class Recording:
    """`packets` begin with a key picture."""

    codec: str
    payload_type: int
    dependency_descriptor: int
    packets: list[bytes]

    def endless(self) -> Iterator[list[bytes]]:
        """Picture by picture, over and over; numbers and clock go on where the last round ended."""
        numbers = {self._frame(packet) for packet in self.packets}
        frames, pictures = max(numbers) - min(numbers) + 1, len(self.pictures())
        times = [parse(packet).timestamp for packet in self.packets]
        span = (times[-1] - times[0] & 0xFFFFFFFF) + PAUSE
        sequence = 65_000
        for turn in range(1_000_000):
            for picture in self.pictures():
                moved: list[bytes] = []
                for packet in picture:
                    again = bytearray(packet)
                    timestamp = struct.unpack_from("!I", packet, 4)[0] + turn * span
                    struct.pack_into("!HI", again, 2, sequence & 0xFFFF, timestamp & 0xFFFFFFFF)
                    self._count_on(again, packet, turn * frames, turn * pictures)
                    sequence += 1
                    moved.append(bytes(again))
                yield moved

    def pictures(self) -> list[list[bytes]]:
        """By timestamp, not by the marker: Chromium's VP9 has none where the top layer was left out."""
        found: dict[bytes, list[bytes]] = {}
        for packet in self.packets:
            found.setdefault(packet[4:8], []).append(packet)
        return list(found.values())

    def _frame(self, packet: bytes) -> int:
        return int.from_bytes(self._descriptor(packet)[1:3])

    def _descriptor(self, packet: bytes) -> bytes:
        return parse(packet).extensions[self.dependency_descriptor]

    def _count_on(self, again: bytearray, packet: bytes, frames: int, pictures: int) -> None:
        at = packet.index(self._descriptor(packet)) + 1
        struct.pack_into("!H", again, at, self._frame(packet) + frames & 0xFFFF)
        if self.codec == "VP9":
            at = len(packet) - len(parse(packet).payload) + 1  # fifteen bits, always
            picture = struct.unpack_from("!H", packet, at)[0]
            struct.pack_into("!H", again, at, 0x8000 | picture + pictures & 0x7FFF)


def recording(name: str) -> Recording:
    data = (RECORDED / f"chromium-{name}.rtp").read_bytes()
    head, _, rest = data.partition(b"\n")
    about, packets, at = json.loads(head), [], 0
    while at < len(rest):
        size = struct.unpack_from("!H", rest, at)[0]
        packets.append(rest[at + 2 : at + 2 + size])
        at += 2 + size
    return Recording(
        about["codec"], about["payload_type"], about["dependency_descriptor"], packets
    )


# --- from payloads to frames


@dataclass(slots=True)
class Frame:
    """One spatial layer of a picture."""

    spatial: int
    temporal: int
    data: bytes


def frames(codec: str, payloads: Iterable[bytes]) -> list[Frame]:
    """Those of one picture, in order, as a decoder takes them."""
    return list((_vp9 if codec == "VP9" else _av1)(payloads))


def _vp9(payloads: Iterable[bytes]) -> Iterator[Frame]:
    frame = None
    for payload in payloads:
        flags = payload[0]
        assert flags & 0xA0 == 0xA0, "a picture id and layer indices, as Chromium writes them"
        at = 3 if payload[1] & 0x80 else 2
        layer = payload[at]
        at += 1
        if not flags & 0x10:
            at += 1
        elif flags & 0x40:
            while payload[at] & 1:
                at += 1
            at += 1
        if flags & 2:
            at += _structure(payload, at)
        if flags & 8:
            frame = Frame(layer >> 1 & 7, layer >> 5, b"")
        assert frame is not None, "a frame without its beginning"
        frame.data += payload[at:]
        if flags & 4:
            yield frame
            frame = None
    assert frame is None, "a frame without its end"


def _structure(payload: bytes, at: int) -> int:
    """Bytes of the scalability structure."""
    head, size = payload[at], 1
    if head & 0x10:
        size += 4 * (1 + (head >> 5))
    if head & 8:
        pictures = payload[at + size]
        size += 1
        for _ in range(pictures):
            size += 1 + (payload[at + size] >> 2 & 3)
    return size


def _av1(payloads: Iterable[bytes]) -> Iterator[Frame]:
    """By the extension header of its OBUs; a sequence header goes with the frame behind it."""
    ahead = b""
    found: dict[int, Frame] = {}
    for obu in _obus(payloads):
        head = bytes([obu[0] | 2])  # with its size
        skip = 1
        kind = obu[0] >> 3 & 15
        layer = None
        if obu[0] & 4:
            head, skip, layer = head + obu[1:2], 2, obu[1]
        sized = head + _leb128(len(obu) - skip) + obu[skip:]
        if layer is None or kind == 1:
            ahead += sized
            continue
        frame = found.setdefault(layer >> 3 & 3, Frame(layer >> 3 & 3, layer >> 5, b""))
        frame.data += ahead + sized
        ahead = b""
    yield from found.values()


def _obus(payloads: Iterable[bytes]) -> Iterator[bytes]:
    cut = b""
    for payload in payloads:
        head, at, element = payload[0], 1, 0
        count = head >> 4 & 3
        assert bool(head & 0x80) == bool(cut), "a fragment without its beginning"
        while at < len(payload):
            element += 1
            size = len(payload) - at
            if element != count:
                size, at = _read_leb128(payload, at)
            obu, at = cut + payload[at : at + size], at + size
            cut = b""
            if at == len(payload) and head & 0x40:
                cut = obu
            else:
                yield obu
    assert not cut, "a fragment without its end"


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _leb128(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


# --- decoding


@dataclass(frozen=True, slots=True)
class Shown:
    width: int
    height: int
    pixels: bytes  # a hash


class Decoder:
    """libvpx or dav1d, which browsers use too. Raises av.FFmpegError for what does not decode."""

    def __init__(self, codec: str) -> None:
        self._is_av1 = codec == "AV1"
        context = av.CodecContext.create("libdav1d" if self._is_av1 else "libvpx-vp9", "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count = 1
        if self._is_av1:
            context.options = {"alllayers": "1", "max_frame_delay": "1"}
        self._context = context

    def decode(self, picture: list[Frame]) -> list[Shown]:
        """What each frame of it shows."""
        shown: list[Shown] = []
        for index, frame in enumerate(picture):
            data = frame.data
            if self._is_av1 and index == 0:
                data = _TEMPORAL_DELIMITER + data
            shown += [_shown(one) for one in self._context.decode(av.Packet(data))]
        return shown


def _shown(frame: av.VideoFrame) -> Shown:
    pixels = hashlib.sha256(frame.to_ndarray(format="yuv420p").tobytes()).digest()
    return Shown(frame.width, frame.height, pixels)
