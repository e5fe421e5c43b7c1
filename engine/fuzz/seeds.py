"""Writes the seed corpora of the fuzz targets (`engine/fuzz/corpus`), one honest example of each shape.

Run from the root of the tree: `.venv/bin/python engine/fuzz/seeds.py`. The files are committed; this says what they are.
Not here: findings (`engine/fuzz/regressions`), what targets do (`src/targets.rs`, which names ids and SSRCs).
"""

import struct
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
VIDEO, VIDEO_RTX, AUDIO, TO_BOB = 0x0A0A0A01, 0x0A0A0A02, 0x0A0A0A03, 0x0B0B0B01


def rtp(
    payload_type: int, sequence: int, ssrc: int, rest: bytes, *, extended: bool = False
) -> bytes:
    first = 0x90 if extended else 0x80
    return struct.pack("!BBHII", first, payload_type, sequence, 3000 * sequence, ssrc) + rest


def block(*elements: tuple[int, bytes], two_byte: bool = False) -> bytes:
    """An extension block (RFC 8285)."""
    body = b""
    for number, value in elements:
        head = bytes([number, len(value)]) if two_byte else bytes([number << 4 | (len(value) - 1)])
        body += head + value
    body += bytes(-len(body) % 4)
    return struct.pack("!HH", 0x1000 if two_byte else 0xBEDE, len(body) // 4) + body


def rtcp(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def stun(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(
        struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4)
        for name, value in attributes
    )
    return struct.pack("!HHI", kind, len(body), 0x2112A442) + b"transaction!" + body


def record(kind: int, wait_ms: int, packet: bytes) -> bytes:
    """One record of `call` and `plane`."""
    packet += bytes(-len(packet) % 4)
    return bytes([kind, len(packet) // 4, wait_ms]) + packet


def framed(*packets: bytes) -> bytes:
    """What a connection brings (RFC 4571)."""
    return b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)


EXTENSIONS: Final = (
    (1, b"0"),
    (4, b"\x85"),
    (5, b"\x00\x07"),
    (6, b"\x01\x02\x03"),
    (7, b"\x01"),
    (8, bytes(8)),
    (9, bytes(3)),
)
# start of frame, template structure: two spatial, one temporal layer
DEPENDENCY: Final = bytes.fromhex("80000180 0214eaa860414d141020842701 7f".replace(" ", ""))
VP8: Final = bytes.fromhex("90e081230402") + b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00"
VP9: Final = bytes.fromhex("bcc1230001") + bytes.fromhex("18028001680200012c00018401") + b"frame"
H264: Final = bytes.fromhex("78 0008 6742e01f00000000 0004 68ce3c80 0003 658880".replace(" ", ""))
H265: Final = bytes.fromhex("6001 0004 40010c01 0004 42010101 0004 26010000".replace(" ", ""))
AV1: Final = bytes.fromhex("180a0a0b00000004") + b"obu"
SR: Final = rtcp(
    200,
    1,
    struct.pack("!IQIII", VIDEO, 0xE0000000 << 32, 3000, 9, 900)
    + struct.pack("!IIIIII", TO_BOB, 0x10000005, 77, 5, 0, 0),
)
SDES: Final = rtcp(202, 1, struct.pack("!I", VIDEO) + b"\x01\x05alice\0" + bytes(0) + b"\0\0\0\0")
PLI: Final = rtcp(206, 1, struct.pack("!II", 1, TO_BOB))
FIR: Final = rtcp(206, 4, struct.pack("!IIIBxxx", 1, 0, TO_BOB, 3))
NACK: Final = rtcp(205, 1, struct.pack("!IIHHHH", 1, TO_BOB, 1, 0xFFFF, 65535, 3))
REMB_BODY: Final = struct.pack("!BBH", 2, 0x24, 0x3D09) + struct.pack("!II", VIDEO, TO_BOB)
REMB: Final = rtcp(206, 15, struct.pack("!II", 1, 0) + b"REMB" + REMB_BODY)
TWCC_BODY: Final = (
    struct.pack("!HH", 7, 9)
    + b"\x00\x10\x00\x02"
    + struct.pack("!HH", 0x2003, 0xD9A4)
    + bytes.fromhex("0408fffe000404040404")
    + bytes(2)
)
TWCC: Final = rtcp(205, 15, struct.pack("!II", 1, VIDEO) + TWCC_BODY)
BYE: Final = rtcp(203, 2, struct.pack("!II", VIDEO, AUDIO))


def seeds() -> dict[str, list[bytes]]:
    rich = rtp(96, 5, VIDEO, block(*EXTENSIONS) + VP8, extended=True)
    wide = rtp(
        104,
        6,
        VIDEO,
        block(*EXTENSIONS, (10, DEPENDENCY), (200, b""), two_byte=True) + AV1,
        extended=True,
    )
    padded = bytearray(rtp(96, 7, VIDEO, VP8 + b"\0\0\0\4"))
    padded[0] |= 0x20
    sources = bytearray(rtp(111, 8, AUDIO, bytes(8) + b"opus"))
    sources[0] |= 2
    headers = [rtp(111, 1, AUDIO, b"opus"), rich, wide, bytes(padded), bytes(sources)]
    compounds = [SR + SDES, SR + SDES + PLI, FIR, NACK, REMB, TWCC, SR + BYE]
    user = (6, b"ufrag:peer")
    checks = [
        stun(
            1,
            user,
            (0x24, b"\x6e\x7f\xff\xff"),
            (0x802A, bytes(8)),
            (0x25, b""),
            (8, bytes(20)),
            (0x8028, bytes(4)),
        ),
        stun(0x11),
        stun(0x101, (0x20, b"\0\1" + bytes(6)), (8, bytes(20))),
        stun(0x101, (0x20, b"\0\2" + bytes(18))),
        stun(0x111, (9, b"\0\0\4\x57Role Conflict"), (8, bytes(20))),
    ]
    attributes = (
        struct.pack("!HHI", 0x24, 4, 9)
        + struct.pack("!HHQ", 0x802A, 8, 9)
        + struct.pack("!HH", 0x25, 0)
    )
    hello = b"\x16\xfe\xfd" + bytes(8) + b"\x00\x0c\x01" + bytes(11)
    call = b"".join(
        (
            record(0x00, 1, rich),
            record(0x00, 1, rtp(96, 6, VIDEO, VP8)),
            record(0x20, 20, rtp(111, 1, AUDIO, b"opus")),
            record(0x10, 5, rtp(97, 1, VIDEO_RTX, b"\x00\x05" + VP8)),
            record(0x02, 200, SR + SDES),
            record(0x03, 0, NACK),
            record(0x03, 250, PLI + TWCC),
            record(0x83, 0, REMB),
            record(0x48, 0, rtp(96, 8, VIDEO, VP8)),
            record(0x02, 0, BYE),
        )
    )
    return {
        # in reads of 1, 497, 4,081 and 81 bytes; an empty frame, the longest one, one too long, one cut off
        "frames": [
            b"\x00" + framed(checks[0], b"", rich),
            b"\x1f" + framed(checks[0], bytes(1_500), bytes(1_499), padded),
            b"\xff" + framed(*headers, *compounds, bytes(1_500)),
            b"\x05" + framed(checks[0], bytes(1_501)),
            b"\x05" + framed(checks[0], rich)[:-5],
        ],
        "stun": checks,
        "plane": [
            record(0, 0, checks[0]) + record(1, 0, attributes) + record(0, 0, hello),
            record(0, 0, rich)
            + record(0, 0, SR)
            + record(1, 0, attributes)
            + record(1, 9, attributes),
        ],
        "call": [
            call,
            record(0x00, 0, wide),
            record(0, 0, rtp(98, 1, VIDEO, VP9)) + record(0xC0, 9, rtp(100, 2, VIDEO, H264)),
        ],
        "rtp": headers,
        "rtcp": compounds,
        "twcc": [TWCC_BODY, struct.pack("!HHI", 65530, 20, 5) + b"\x00\x14" + bytes(2)],
        "remb": [REMB_BODY],
        "nack": [struct.pack("!HHHH", 1, 0xFFFF, 65535, 3)],
        "rtx": [b"\x00\x02" + VP8, b"\x00\x01", b""],
        "vp8": [b"\0" + VP8, VP8, b"\0\x10\x00", b"\0\x80\x40\x07\x10"],
        "vp9": [b"\0" + VP9, b"\0\x88\x01\x00"],
        "h264": [b"\0" + H264, b"\0\x7c\x85idr", b"\0\x67\x42"],
        "h265": [b"\0" + H265, b"\0\x62\x01\x93idr"],
        "av1": [
            bytes([len(DEPENDENCY)]) + DEPENDENCY + AV1,
            b"\0" + AV1,
            b"\x03\xc0\x00\x07" + AV1,
        ],
        # a key frame with its structure, a frame by template, one with everything of its own
        "dependency": [
            bytes([len(DEPENDENCY)]) + DEPENDENCY + b"\x03\xc1\x00\x02",
            bytes([len(DEPENDENCY)]) + DEPENDENCY + b"\x06\xc1\x00\x03\x58\x3f\xff",
        ],
        "red": [b"\xef\x00\x00\x04\xef\x00\x00\x04\x6fone.two.three", b"\x6fopus"],
        "srtp": [h + bytes(16) for h in headers]
        + [c + bytes(16) + b"\x80\0\0\1" for c in compounds[:2]],
    }


def main() -> None:
    for target, examples in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, example in enumerate(examples):
            (folder / f"seed-{number:02}").write_bytes(example)


if __name__ == "__main__":
    main()
