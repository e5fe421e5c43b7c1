"""A participant as the others see it, encoded once for all of them.

A conference of 200 tells each change 200 times; encoding costs more than sending. Protocol Buffers encoding: an
embedded message is tag, length and bytes, and elements of a repeated field may be appended to their message.
Pure. Not here: what the info says (`wire`), who is told (`rooms`), merging what waits (`signalling`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message
from livekit.protocol import models, rtc


@dataclass(frozen=True, slots=True)
class News:
    """`data` is an encoded `ParticipantInfo`."""

    sid: str
    data: bytes
    is_gone: bool = False


def news_of(info: models.ParticipantInfo) -> News:
    is_gone = info.state == models.ParticipantInfo.DISCONNECTED
    return News(info.sid, info.SerializeToString(), is_gone)


@dataclass(frozen=True, slots=True)
class Merged:
    """A kind of `SignalResponse` that is one repeated field: many small ones can be one."""

    message: bytes  # tags
    element: bytes

    def response(self, elements: Iterable[bytes]) -> bytes:
        return _field(self.message, b"".join(_field(self.element, one) for one in elements))


def join_response(join: rtc.JoinResponse, others: Iterable[News]) -> bytes:
    """A `SignalResponse` with this answer, and these in its `other_participants`."""
    rest = b"".join(_field(_OTHER_PARTICIPANTS, one.data) for one in others)
    return _field(_JOIN, join.SerializeToString() + rest)


def _tag(kind: type[Message], name: str) -> bytes:
    embedded = 2  # wire type: a length follows
    return _varint(kind.DESCRIPTOR.fields_by_name[name].number << 3 | embedded)


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


PARTICIPANTS: Final = Merged(
    _tag(rtc.SignalResponse, "update"), _tag(rtc.ParticipantUpdate, "participants")
)
QUALITIES: Final = Merged(
    _tag(rtc.SignalResponse, "connection_quality"), _tag(rtc.ConnectionQualityUpdate, "updates")
)
_JOIN: Final = _tag(rtc.SignalResponse, "join")
_OTHER_PARTICIPANTS: Final = _tag(rtc.JoinResponse, "other_participants")
