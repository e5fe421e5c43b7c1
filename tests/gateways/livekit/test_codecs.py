"""Which codec a publisher is brought to send: what it announced, if the operator allows it.

livekit's clients offer all they know in one order and send what their server's answer names first.
Not here: that the worker answers in the offer's order (tests/sfu), real clients (tests/scenarios/test_codecs.py).
"""

from pathlib import Path

import pytest
from livekit.protocol import models, rtc

from sfu.description import Codec, Direction, MediaKind, Section
from tests.gateways.livekit.rig import Client, Rig, offer_text, transport

AUDIO = (Codec(111, "opus", 48_000, 2), Codec(63, "red", 48_000, 2, (("111/111", ""),)))
VIDEO = tuple(
    Codec(number, name, 90_000) for number, name in ((96, "VP8"), (98, "VP9"), (45, "AV1"))
)


async def _offered(rig: Rig, client: Client, *sections: Section) -> list[list[str]]:
    """Encoding names by section, as the worker is asked to answer them."""
    await client.send(offer=rtc.SessionDescription(type="offer", sdp=offer_text(*sections), id=2))
    await client.until("answer")
    described = rig.media.of("offer")[-1][1]
    return [[codec.name for codec in section.codecs] for section in described.sections]


def _section(mid: str, kind: MediaKind, track: str) -> Section:
    codecs = AUDIO if kind is MediaKind.AUDIO else VIDEO
    where = transport()
    return Section(
        mid, kind, Direction.SENDONLY, where, codecs=codecs, stream="stream", track=track
    )


def _wanting(codec: str) -> list[rtc.SimulcastCodec]:
    return [rtc.SimulcastCodec(codec=codec, cid="cam")]


@pytest.mark.parametrize(
    ("wanted", "mime", "order"),
    [
        ("av1", "video/AV1", ["AV1", "VP8", "VP9"]),
        ("vp8", "video/VP8", ["VP8", "VP9", "AV1"]),
        ("h264", "video/VP8", ["VP8", "VP9", "AV1"]),
        ("", "video/VP8", ["VP8", "VP9", "AV1"]),
    ],
)
async def test_a_video_is_sent_in_the_codec_announced_if_that_is_allowed(
    tmp_path: Path, wanted: str, mime: str, order: list[str]
) -> None:
    async with Rig(tmp_path, video_codecs=("VP8", "VP9", "AV1")).serving() as rig:
        client = await rig.single("alice")
        sid = (await client.until("join")).participant.sid
        info = await client.add_track(
            "cam",
            type=models.TrackType.VIDEO,
            source=models.TrackSource.CAMERA,
            simulcast_codecs=_wanting(wanted),
        )
        assert info.mime_type == mime
        assert await _offered(rig, client, _section("0", MediaKind.VIDEO, "cam")) == [order]
        assert rig.legs.saved[sid]["codecs"] == {info.sid: order[0]}  # also after a restart
        (profile,) = rig.media.profiles.values()
        names = [codec.name for codec in profile.video if codec.name != "rtx"]
        assert names == ["VP8", "VP9", "AV1"]


@pytest.mark.parametrize(
    ("announced", "order"),
    [
        ({}, ["red", "opus"]),
        ({"disable_red": True}, ["opus", "red"]),
        ({"encryption": models.Encryption.GCM}, ["opus", "red"]),
    ],
    ids=["as it is", "switched off", "encrypted"],
)
async def test_a_voice_is_sent_twice_unless_its_speaker_does_not_want_that(
    rig: Rig, announced: dict[str, object], order: list[str]
) -> None:
    client = await rig.single("alice")
    await client.add_track("mic", **announced)
    assert await _offered(rig, client, _section("0", MediaKind.AUDIO, "mic")) == [order]
