"""LiveKit clients as rows: what their sessions can do (`sfu.description.Profile`).

client-sdk-js 2.22 and rust-sdks (libwebrtc) of 2026; header extensions and feedback as livekit's server
negotiates them. VP8 and Opus only: every XMPP client decodes these.
Not here: who offers when (`single`, `dual`).
"""

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
_VP8: Final = Codec(
    96,
    "VP8",
    90_000,
    feedback=(
        Feedback("goog-remb"),
        Feedback("transport-cc"),
        Feedback("ccm", "fir"),
        Feedback("nack"),
        Feedback("nack", "pli"),
    ),
)
_RTX: Final = Codec(97, "rtx", 90_000, parameters=(("apt", "96"),))

_EXTENSIONS: Final = (
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    "urn:3gpp:video-orientation",
)
# They must be in the first offer of a dual connection (fact sheet section 2.4).
_CHANNELS: Final = (ChannelSpec(RELIABLE), ChannelSpec(LOSSY, ordered=False, max_retransmits=0))


def _profile(
    name: str,
    *,
    downstream: Downstream = Downstream.EACH,
    channels: tuple[ChannelSpec, ...] = (),
) -> Profile:
    return Profile(
        name=name,
        audio=(_OPUS,),
        video=(_VP8, _RTX),
        extensions=_EXTENSIONS,
        ice_lite=True,
        downstream=downstream,
        channels=channels,
    )


LIVEKIT_SINGLE: Final = _profile("livekit-single")  # the client offers, and makes the channels
LIVEKIT_PUBLISHER: Final = _profile("livekit-publisher", downstream=Downstream.NONE)
LIVEKIT_SUBSCRIBER: Final = _profile("livekit-subscriber", channels=_CHANNELS)  # we offer
