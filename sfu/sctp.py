"""What an SCTP packet asks for, read before any SCTP stack works on it (S13).

RFC 9260 sections 3.2 to 3.3.4. The chunks are walked once; nothing is kept. Whoever runs the association
decides by this what the packet may cost.
Not here: the association (`sfu.datachannel`), checksums and tags (aiortc).
"""

from dataclasses import dataclass
from typing import Final

from sfu.description import Malformed

_HEADER_BYTES: Final = 12
_CHUNK_HEADER_BYTES: Final = 4
_DATA_HEADER_BYTES: Final = 16
_SACK_HEADER_BYTES: Final = 16
_DATA: Final = 0
_SACK: Final = 3
# A tiny chunk costs as much work as a large one, so it is charged as if it were this long.
LEAST_CHARGE_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Look:
    """What is in one packet."""

    charge_bytes: int = 0  # of its DATA chunks, each at least `LEAST_CHARGE_BYTES`
    first_tsn: int | None = None  # of its first DATA chunk
    acknowledged: int = 0  # chunks that the gap blocks of its SACKs name

    @property
    def has_data(self) -> bool:
        return self.first_tsn is not None


def look(packet: bytes) -> Look:
    """Walk the chunks. Raises `Malformed` where a length cannot be."""
    charge_bytes = acknowledged = 0
    first_tsn: int | None = None
    at = _HEADER_BYTES
    if len(packet) < at + _CHUNK_HEADER_BYTES:
        raise Malformed("SCTP packet without a chunk")
    while at + _CHUNK_HEADER_BYTES <= len(packet):
        length = int.from_bytes(packet[at + 2 : at + 4], "big")
        chunk = packet[at : at + length]
        if length < _CHUNK_HEADER_BYTES or len(chunk) < length:
            raise Malformed(f"SCTP chunk of {length} bytes")
        if chunk[0] == _DATA:
            if length <= _DATA_HEADER_BYTES:
                raise Malformed("DATA chunk without data")  # RFC 9260 section 3.3.1
            charge_bytes += max(length, LEAST_CHARGE_BYTES)
            if first_tsn is None:
                first_tsn = int.from_bytes(chunk[4:8], "big")
        elif chunk[0] == _SACK:
            acknowledged += _gaps(chunk)
        at += (length + 3) & ~3
    return Look(charge_bytes, first_tsn, acknowledged)


def _gaps(chunk: bytes) -> int:
    if len(chunk) < _SACK_HEADER_BYTES:
        raise Malformed("SACK without its header")
    blocks = int.from_bytes(chunk[12:14], "big")
    duplicates = int.from_bytes(chunk[14:16], "big")
    if _SACK_HEADER_BYTES + 4 * (blocks + duplicates) > len(chunk):
        raise Malformed("SACK shorter than its lists")
    named = 0
    for at in range(_SACK_HEADER_BYTES, _SACK_HEADER_BYTES + 4 * blocks, 4):
        start = int.from_bytes(chunk[at : at + 2], "big")
        end = int.from_bytes(chunk[at + 2 : at + 4], "big")
        named += max(0, end - start + 1)
    return named
