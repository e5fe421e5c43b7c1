"""SDP attributes: one function per `a=` line, each writing into the draft of its level.

RFC 8839 (ICE), RFC 8842 and RFC 8122 (DTLS), RFC 8866 (rtpmap, fmtp), RFC 4585 (rtcp-fb), RFC 8285 (extmap),
RFC 5576 (ssrc), RFC 8851 and RFC 8853 (rid, simulcast), RFC 8830 (msid), RFC 8841 (sctp-port), RFC 9143 (group).
Pure; `Malformed` for what a peer must not send (S27). Attributes that are not in the table are read over.
Not here: lines and levels (`sfu.sdp`), printing (`sfu.sdp_print`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sfu.description import (
    MAX_CANDIDATES,
    MAX_CODECS,
    MAX_EXTENSIONS,
    MAX_RIDS,
    MAX_SECTIONS,
    MAX_SOURCES,
    Candidate,
    Direction,
    Feedback,
    Fingerprint,
    Malformed,
    MediaKind,
    Setup,
    SourceGroup,
)

MAX_LINE_CHARACTERS: Final = 8 * 1024  # a group line of 256 long mids fits
MAX_PARAMETERS: Final = 64  # fmtp pairs of one payload type
MAX_FEEDBACK: Final = 32  # rtcp-fb lines of one payload type
MAX_SOURCE_ATTRIBUTES: Final = 16
MAX_FINGERPRINTS: Final = 8
MAX_MID: Final = 32  # characters
MAX_RID: Final = 16  # characters; what a one-byte header extension holds

CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tab and line feed
_TOKEN: Final = re.compile(r"[!#$%&'*+\-./0-9A-Z^_`a-z{|}~:@]+")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_ICE: Final = re.compile(r"[A-Za-z0-9+/=_-]+")  # "=", "_" and "-": seen from non-browser agents
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.:%_-]+")
_RID: Final = re.compile(r"[A-Za-z0-9_-]+")
_HASH: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){15,63}")


@dataclass(slots=True)
class Draft:
    """What was read so far of one level: the session (kind None) or one media section."""

    kind: MediaKind | None = None
    port: int = 9
    formats: tuple[str, ...] = ()
    protocol: str = ""
    mid: str | None = None
    ufrag: str | None = None
    pwd: str | None = None
    ice_lite: bool = False
    fingerprints: list[Fingerprint] = field(default_factory=list)
    setup: Setup | None = None
    direction: Direction | None = None
    candidates: list[Candidate] = field(default_factory=list)
    maps: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    parameters: dict[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    feedback: list[tuple[int | None, Feedback]] = field(default_factory=list)
    extensions: dict[int, str] = field(default_factory=dict)
    sources: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    groups: list[SourceGroup] = field(default_factory=list)
    rids: dict[str, bool] = field(default_factory=dict)
    simulcast: list[str] = field(default_factory=list)
    msid: tuple[str, str | None] | None = None
    rtcp_mux: bool = False
    mixed_extensions: bool = False
    bundle_only: bool = False
    sctp_port: int | None = None
    max_message_size: int | None = None
    bundle: tuple[str, ...] | None = None

    @property
    def is_rejected(self) -> bool:
        return self.kind is not None and self.port == 0 and not self.bundle_only


def number(text: str, low: int, high: int, what: str) -> int:
    if not (0 < len(text) <= 20 and text.isascii() and text.isdigit()):
        raise Malformed(f"{what} is not a number")
    value = int(text)
    if not low <= value <= high:
        raise Malformed(f"{what} out of range")
    return value


def payload_type_of(text: str) -> int:
    return number(text, 0, 127, "payload type")


def _word(pattern: re.Pattern[str], text: str, low: int, high: int, what: str) -> str:
    if not low <= len(text) <= high or not pattern.fullmatch(text):
        raise Malformed(f"bad {what}")
    return text


def _a_mid(draft: Draft, value: str) -> None:
    if draft.mid is not None:
        raise Malformed("mid twice")
    draft.mid = _word(_TOKEN, value.strip(), 1, MAX_MID, "mid")


def _a_ufrag(draft: Draft, value: str) -> None:
    draft.ufrag = _word(_ICE, value, 4, 256, "ice-ufrag")


def _a_pwd(draft: Draft, value: str) -> None:
    draft.pwd = _word(_ICE, value, 22, 256, "ice-pwd")


def _a_ice_lite(draft: Draft, _: str) -> None:
    draft.ice_lite = True


def _a_fingerprint(draft: Draft, value: str) -> None:
    algorithm, _, digest = value.strip().partition(" ")
    _word(_TOKEN, algorithm, 1, 16, "fingerprint algorithm")
    digest = digest.strip()
    if not _HASH.fullmatch(digest):
        raise Malformed("bad fingerprint")
    if algorithm.lower() == "sha-256" and len(digest) != 95:
        raise Malformed("fingerprint of the wrong length")
    if len(draft.fingerprints) >= MAX_FINGERPRINTS:
        raise Malformed("too many fingerprints")
    draft.fingerprints.append(Fingerprint(algorithm.lower(), digest.upper()))


def _a_setup(draft: Draft, value: str) -> None:
    try:
        draft.setup = Setup(value.strip())
    except ValueError:
        raise Malformed("unknown setup") from None


def _direction(direction: Direction) -> Callable[[Draft, str], None]:
    def apply(draft: Draft, _: str) -> None:
        draft.direction = direction

    return apply


def _a_candidate(draft: Draft, value: str) -> None:
    if len(draft.candidates) >= MAX_CANDIDATES:
        raise Malformed("too many candidates")
    draft.candidates.append(parse_candidate(value))


def _a_rtpmap(draft: Draft, value: str) -> None:
    words = value.split()
    if len(words) != 2:
        raise Malformed("bad rtpmap")
    payload_type = payload_type_of(words[0])
    if payload_type in draft.maps:
        raise Malformed("payload type mapped twice")
    parts = words[1].split("/")
    if not 2 <= len(parts) <= 3:
        raise Malformed("bad rtpmap")
    name = _word(_TOKEN, parts[0], 1, 64, "codec name")
    channels = number(parts[2], 1, 255, "channels") if len(parts) == 3 else 1
    draft.maps[payload_type] = (name, number(parts[1], 1, 1 << 24, "clock rate"), channels)


def _a_fmtp(draft: Draft, value: str) -> None:
    word, _, rest = value.partition(" ")
    payload_type = payload_type_of(word)
    if payload_type in draft.parameters:
        raise Malformed("fmtp twice")
    pairs = [item.strip() for item in rest.split(";")]
    if len(pairs) > MAX_PARAMETERS:
        raise Malformed("too many fmtp parameters")
    split = [item.partition("=") for item in pairs]
    draft.parameters[payload_type] = tuple((k.strip(), v.strip()) for k, _, v in split if k.strip())


def _a_rtcp_fb(draft: Draft, value: str) -> None:
    words = value.split(maxsplit=2)
    if len(words) < 2:
        raise Malformed("bad rtcp-fb")
    if len(draft.feedback) >= MAX_CODECS * MAX_FEEDBACK:
        raise Malformed("too many feedback kinds")
    payload_type = None if words[0] == "*" else payload_type_of(words[0])
    kind = _word(_TOKEN, words[1], 1, 64, "feedback kind")
    parameter = words[2].strip() if len(words) == 3 else ""
    draft.feedback.append((payload_type, Feedback(kind, parameter)))


def _a_extmap(draft: Draft, value: str) -> None:
    words = value.split()
    if len(words) < 2:
        raise Malformed("bad extmap")
    local_id = number(words[0].partition("/")[0], 1, 255, "extmap id")
    if local_id == 15:  # RFC 8285 section 4.2: reserved
        raise Malformed("extmap id out of range")
    if local_id in draft.extensions:
        raise Malformed("extmap id twice")
    if len(draft.extensions) >= MAX_EXTENSIONS:
        raise Malformed("too many header extensions")
    draft.extensions[local_id] = _word(_VISIBLE, words[1], 1, 256, "extmap URI")


def _ssrc(text: str) -> int:
    return number(text, 1, 0xFFFFFFFF, "ssrc")  # 0 means "none" in the engine


def _a_ssrc(draft: Draft, value: str) -> None:
    word, _, rest = value.strip().partition(" ")
    pairs = draft.sources.setdefault(_ssrc(word), [])
    if len(draft.sources) > MAX_SOURCES or len(pairs) >= MAX_SOURCE_ATTRIBUTES:
        raise Malformed("too many sources")
    name, _, argument = rest.strip().partition(":")
    if name:
        _word(_TOKEN, name, 1, 64, "source attribute")
        pairs.append((name, argument.strip()))


def _a_ssrc_group(draft: Draft, value: str) -> None:
    words = value.split()
    if not 2 <= len(words) <= MAX_SOURCES or len(draft.groups) >= MAX_SOURCES:
        raise Malformed("bad ssrc-group")
    semantics = _word(_TOKEN, words[0], 1, 32, "ssrc-group semantics")
    draft.groups.append(SourceGroup(semantics, tuple(_ssrc(word) for word in words[1:])))


def _a_rid(draft: Draft, value: str) -> None:
    words = value.split()
    if len(words) < 2 or words[1] not in ("send", "recv"):
        raise Malformed("bad rid")
    rid = _word(_RID, words[0], 1, MAX_RID, "rid")
    if rid in draft.rids:
        raise Malformed("rid twice")
    if len(draft.rids) >= MAX_RIDS:
        raise Malformed("too many rids")
    draft.rids[rid] = words[1] == "send"


def _a_simulcast(draft: Draft, value: str) -> None:
    for word in value.split():
        if word in ("send", "recv"):
            continue
        # COMPAT: "rid=" and "pt=" prefixes are an old draft's (Firefox before 60)
        for item in re.split("[;,]", word.partition("=")[2] or word):
            if item:
                draft.simulcast.append(_word(_RID, item.removeprefix("~"), 1, MAX_RID, "rid"))
        if len(draft.simulcast) > 4 * MAX_RIDS:
            raise Malformed("too many simulcast streams")


def _a_msid(draft: Draft, value: str) -> None:
    words = value.split()
    if not words:
        raise Malformed("empty msid")
    stream = _word(_VISIBLE, words[0], 1, 256, "msid")
    track = _word(_VISIBLE, words[1], 1, 256, "msid") if len(words) > 1 else None
    if draft.msid is None:  # a track in several streams: its id is the same in each
        draft.msid = (stream, track)


def _a_rtcp_mux(draft: Draft, _: str) -> None:
    draft.rtcp_mux = True


def _a_extmap_allow_mixed(draft: Draft, _: str) -> None:
    draft.mixed_extensions = True


def _a_bundle_only(draft: Draft, _: str) -> None:
    draft.bundle_only = True


def _a_sctp_port(draft: Draft, value: str) -> None:
    draft.sctp_port = number(value.strip(), 1, 65535, "SCTP port")


def _a_max_message_size(draft: Draft, value: str) -> None:
    draft.max_message_size = number(value.strip(), 0, (1 << 63) - 1, "max-message-size")


def _a_group(draft: Draft, value: str) -> None:
    words = value.split()
    if not words or words[0] != "BUNDLE":
        return  # LS and others say nothing a Description carries
    if draft.kind is not None or draft.bundle is not None:
        raise Malformed("more than one bundle")
    if len(words) - 1 > MAX_SECTIONS:
        raise Malformed("too many sections")
    draft.bundle = tuple(words[1:])


ATTRIBUTES: Final[dict[str, Callable[[Draft, str], None]]] = {
    "mid": _a_mid,
    "ice-ufrag": _a_ufrag,
    "ice-pwd": _a_pwd,
    "ice-lite": _a_ice_lite,
    "fingerprint": _a_fingerprint,
    "setup": _a_setup,
    **{direction.value: _direction(direction) for direction in Direction},
    "candidate": _a_candidate,
    "rtpmap": _a_rtpmap,
    "fmtp": _a_fmtp,
    "rtcp-fb": _a_rtcp_fb,
    "extmap": _a_extmap,
    "extmap-allow-mixed": _a_extmap_allow_mixed,
    "ssrc": _a_ssrc,
    "ssrc-group": _a_ssrc_group,
    "rid": _a_rid,
    "simulcast": _a_simulcast,
    "msid": _a_msid,
    "rtcp-mux": _a_rtcp_mux,
    "rtcp-mux-only": _a_rtcp_mux,
    "bundle-only": _a_bundle_only,
    "sctp-port": _a_sctp_port,
    "max-message-size": _a_max_message_size,
    "group": _a_group,
}


def parse_candidate(text: str) -> Candidate:
    """One candidate, as in `a=candidate:...`, `candidate:...` or the bare value (RFC 8839 section 5.1)."""
    if len(text) > MAX_LINE_CHARACTERS or not text.isascii() or CONTROL.search(text):
        raise Malformed("bad candidate")
    words = text.strip().removeprefix("a=").removeprefix("candidate:").split()
    if len(words) < 8 or len(words) > 64 or words[6] != "typ":
        raise Malformed("bad candidate")
    tcp_type = None
    for name, value in zip(words[8::2], words[9::2], strict=False):
        if name == "tcptype":
            tcp_type = _word(_TOKEN, value, 1, 16, "tcptype")
    return Candidate(
        foundation=_word(_ICE, words[0], 1, 32, "foundation"),
        component=number(words[1], 1, 256, "component"),
        protocol=_word(_TOKEN, words[2], 1, 16, "candidate protocol").lower(),
        priority=number(words[3], 0, 0xFFFFFFFF, "priority"),
        address=_word(_ADDRESS, words[4], 1, 255, "candidate address"),
        port=number(words[5], 0, 65535, "candidate port"),
        kind=_word(_TOKEN, words[7], 1, 16, "candidate type"),
        tcp_type=tcp_type,
    )
