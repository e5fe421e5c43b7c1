"""Protobuf from strangers: caps before parsing (S23).

A signalling message has at most 64 KiB, one that carries SDP or a sync state 256 KiB. Before the parser
sees anything, a walk over the wire format (protobuf encoding, wire types 0, 1, 2, 5) along our own
descriptors bounds the number of fields and the depth, so that 2 MiB of empty submessages cost nothing.
Anything over 32 KiB is walked and parsed off the loop's thread.
Not here: what the messages mean (`wire`), the socket (`signalling`).
"""

import asyncio
import zlib
from typing import Final, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from livekit.protocol.rtc import SignalRequest

from bridge.conference.errors import Malformed

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_SDP_BYTES: Final = 256 * 1024
OFF_LOOP_BYTES: Final = 32 * 1024
MAX_FIELDS: Final = 4096  # a sync state of 256 tracks with layers has about 3,000
MAX_DEPTH: Final = 8  # the deepest request we know nests 5 messages
_LARGE_FIELDS: Final = frozenset({1, 2, 12})  # offer, answer, sync_state

M = TypeVar("M", bound=Message)


async def read_request(data: bytes) -> SignalRequest:
    """One signalling message. Raises `Malformed`."""
    if not data:
        raise Malformed("empty message")
    number = _varint(data, 0)[0] >> 3
    limit = MAX_SDP_BYTES if number in _LARGE_FIELDS else MAX_MESSAGE_BYTES
    return await read_message(SignalRequest, data, limit)


async def read_message(kind: type[M], data: bytes, limit: int) -> M:
    """A message of this kind, at most `limit` bytes."""
    if len(data) > limit:
        raise Malformed("message too long")
    if len(data) > OFF_LOOP_BYTES:
        return await asyncio.to_thread(parse_bounded, kind, data)
    return parse_bounded(kind, data)


def parse_bounded(kind: type[M], data: bytes) -> M:
    """Walk, then parse. The caller has checked the size."""
    message = kind()
    _walk(data, 0, len(data), cast(Descriptor, kind.DESCRIPTOR), 1, MAX_FIELDS)
    try:
        message.ParseFromString(data)
    except DecodeError as why:
        raise Malformed("not the protobuf it should be") from why
    return message


def inflate(data: bytes, limit: int) -> bytes:
    """A gzip stream, by its decompressed size. Raises `Malformed` before more than `limit` bytes exist."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    return _inflate(stream, data, limit)


def inflate_raw(data: bytes, limit: int) -> bytes:
    """The same for a raw deflate stream (data streams' DEFLATE_RAW)."""
    return _inflate(zlib.decompressobj(wbits=-zlib.MAX_WBITS), data, limit)


def _inflate(stream: "zlib._Decompress", data: bytes, limit: int) -> bytes:
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as why:
        raise Malformed("compressed data is damaged") from why
    if len(plain) > limit or stream.unconsumed_tail or not stream.eof:
        raise Malformed("decompressed data too long or cut")
    return plain


def _walk(data: bytes, at: int, end: int, kind: Descriptor, depth: int, budget: int) -> int:
    """Count fields along known message types; returns the budget left."""
    if depth > MAX_DEPTH:
        raise Malformed("message nested too deeply")
    fields = kind.fields_by_number
    while at < end:
        budget -= 1
        if budget < 0:
            raise Malformed("message with too many fields")
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type == 1:
            at += 8
        elif wire_type == 5:
            at += 4
        elif wire_type == 2:
            size, at = _varint(data, at)
            field = fields.get(tag >> 3)
            if at + size > end:
                raise Malformed("message is cut")
            if field is not None and field.message_type is not None:
                budget = _walk(data, at, at + size, field.message_type, depth + 1, budget)
            at += size
        else:
            raise Malformed("unknown wire type")
    if at != end:
        raise Malformed("message is cut")
    return budget


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Malformed("bad varint")
