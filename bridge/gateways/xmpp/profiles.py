"""Client families as rows: what the worker offers and accepts (`sfu.description.Profile`).

A family is recognised by one fact: whether it groups its contents (XEP-0338).
COMPAT: DINO is Dino 0.4.2 and its kin (2026-06, re-check 2027-06): no bundle, one transport per content,
payload types compared across sessions, REMB and no transport-cc, no rtx.
Not here: Jingle itself.
"""

from typing import Final

from bridge.gateways.xmpp.jingle import values as v
from sfu.description import Codec, Downstream, Feedback, Profile

_OPUS: Final = Codec(111, "opus", 48_000, 2, (("useinbandfec", "1"),))
_VIDEO_FEEDBACK: Final = (
    Feedback("goog-remb"),
    Feedback("ccm", "fir"),
    Feedback("nack"),
    Feedback("nack", "pli"),
)

DINO: Final = Profile(
    name="jingle-plain",
    audio=(_OPUS,),
    video=(Codec(98, "VP8", 90_000, feedback=_VIDEO_FEEDBACK),),
    fixed_payload_types=True,
    bundle=False,
    downstream=Downstream.COMPACT,
)

XMPP_BUNDLE: Final = Profile(
    name="jingle-bundle",
    audio=(
        Codec(
            111,
            "opus",
            48_000,
            2,
            (("minptime", "10"), ("useinbandfec", "1")),
            (Feedback("transport-cc"),),
        ),
    ),
    video=(
        Codec(96, "VP8", 90_000, feedback=(Feedback("transport-cc"), *_VIDEO_FEEDBACK)),
        Codec(97, "rtx", 90_000, parameters=(("apt", "96"),)),
    ),
    extensions=(
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "urn:ietf:params:rtp-hdrext:sdes:mid",
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    ),
    downstream=Downstream.COMPACT,
)

BY_NAME: Final = {profile.name: profile for profile in (DINO, XMPP_BUNDLE)}


def for_offer(bundle: tuple[str, ...]) -> Profile:
    """For a peer that calls us: it groups, or it does not."""
    return XMPP_BUNDLE if bundle else DINO


def for_features(features: frozenset[str]) -> Profile:
    """For a peer that we call: what its disco#info says."""
    return XMPP_BUNDLE if v.GROUPING in features else DINO
