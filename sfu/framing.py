"""Frames on a byte stream: 4-byte big-endian length, then MessagePack (see `sfu.protocol`).

Not here: the messages themselves (`sfu.protocol`), who sends which (`sfu.client`, `sfu.owner`).
"""

import asyncio
import struct
from typing import Final, Generic, TypeVar

import msgspec

from sfu import protocol
from sfu.description import Malformed

_LENGTH: Final = struct.Struct(">I")
_ENCODER: Final = msgspec.msgpack.Encoder()

_T = TypeVar("_T")


def encode(frame: protocol.ClientFrame | protocol.ServerFrame) -> bytes:
    """The whole frame with its length. Raises `Malformed` when it is larger than a frame may be."""
    body = _ENCODER.encode(frame)
    if len(body) > protocol.MAX_FRAME_BYTES:
        raise Malformed(f"frame of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


class _Reader(Generic[_T]):
    """Reads frames of one direction."""

    def __init__(self, kind: type[_T]) -> None:
        self._decoder: msgspec.msgpack.Decoder[_T] = msgspec.msgpack.Decoder(kind)

    def decode(self, body: bytes) -> _T:
        """One message without its length. Raises `Malformed`."""
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as why:
            raise Malformed("undecodable frame") from why

    async def read(self, stream: asyncio.StreamReader) -> _T | None:
        """The next frame, or None at a clean end. Raises `Malformed`; waits as long as the peer is silent."""
        try:
            head = await stream.readexactly(_LENGTH.size)
            (size,) = _LENGTH.unpack(head)
            if size > protocol.MAX_FRAME_BYTES:
                raise Malformed(f"frame of {size} bytes")
            body = await stream.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return self.decode(body)


class ClientFrames(_Reader[protocol.ClientFrame]):
    """What a worker reads."""

    def __init__(self) -> None:
        super().__init__(protocol.ClientFrame)  # type: ignore[arg-type]  # a union is a type to msgspec


class ServerFrames(_Reader[protocol.ServerFrame]):
    """What a client reads."""

    def __init__(self) -> None:
        super().__init__(protocol.ServerFrame)  # type: ignore[arg-type]  # a union is a type to msgspec
