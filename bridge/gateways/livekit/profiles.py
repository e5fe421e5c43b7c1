"""LiveKit clients as rows: what their sessions can do (`sfu.description.Profile`).

client-sdk-js 2.22 and rust-sdks (libwebrtc) of 2026; header extensions and feedback as livekit's server
negotiates them. Which video codecs there are is the operator's choice: every XMPP client decodes VP8, not every one
the others.
Not here: who offers when (`single`, `dual`).
"""

from collections.abc import Iterable
from typing import Final

from sfu.description import ChannelSpec, Codec, Downstream, Feedback, Profile

RELIABLE: Final = "_reliable"
LOSSY: Final = "_lossy"

_OPUS: Final = Codec(
    111,
    "opus",
    48_000,
    2,
    (("minptime", "10"), ("useinbandfec", "1")),
    (Feedback("nack"), Feedback("transport-cc")),
)
_RED: Final = Codec(63, "red", 48_000, 2, (("111/111", ""),), (Feedback("transport-cc"),))
_FEEDBACK: Final = (
    Feedback("goog-remb"),
    Feedback("transport-cc"),
    Feedback("ccm", "fir"),
    Feedback("nack"),
    Feedback("nack", "pli"),
)
# Numbers as libwebrtc likes them; they only matter where we offer.
_VIDEO: Final = {
    "VP8": Codec(96, "VP8", 90_000, feedback=_FEEDBACK),
    "VP9": Codec(98, "VP9", 90_000, 1, (("profile-id", "0"),), _FEEDBACK),
    "AV1": Codec(45, "AV1", 90_000, feedback=_FEEDBACK),
    "H264": Codec(
        102,
        "H264",
        90_000,
        1,
        (
            ("level-asymmetry-allowed", "1"),
            ("packetization-mode", "1"),
            ("profile-level-id", "42e01f"),
        ),
        _FEEDBACK,
    ),
}

_EXTENSIONS: Final = (
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    "urn:3gpp:video-orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
)
# They must be in the first offer of a dual connection (fact sheet section 2.4).
_CHANNELS: Final = (ChannelSpec(RELIABLE), ChannelSpec(LOSSY, ordered=False, max_retransmits=0))


def _profile(
    name: str,
    video: Iterable[str],
    *,
    downstream: Downstream = Downstream.EACH,
    channels: tuple[ChannelSpec, ...] = (),
) -> Profile:
    codecs = tuple(_VIDEO[codec] for codec in video)
    return Profile(
        name=name,
        audio=(_OPUS, _RED),
        video=(*codecs, *map(_repeating, codecs)),
        extensions=_EXTENSIONS,
        ice_lite=True,
        downstream=downstream,
        channels=channels,
    )


def _repeating(codec: Codec) -> Codec:
    apt = codec.payload_type
    return Codec(apt + 1, "rtx", 90_000, parameters=(("apt", str(apt)),))


def single(video: Iterable[str]) -> Profile:
    """The client offers, and makes the channels."""
    return _profile("livekit-single", video)


def publisher(video: Iterable[str]) -> Profile:
    """The client offers what it sends."""
    return _profile("livekit-publisher", video, downstream=Downstream.NONE)


def subscriber(video: Iterable[str]) -> Profile:
    """We offer what the client receives."""
    return _profile("livekit-subscriber", video, channels=_CHANNELS)
