"""Codecs, header extensions, rids and sources: what both sides of one section can do. Pure.

RFC 3264 section 6 (answers), RFC 8829 (JSEP), RFC 8834, RFC 8843 section 10 (payload types in a bundle),
RFC 8853 (simulcast), RFC 5576 (source groups), RFC 4588 (rtx), RFC 6184, RFC 9628.
Not here: which section carries what (`sfu.session`), transports.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from sfu.description import (
    MAX_CANDIDATES,
    MAX_CODECS,
    MAX_EXTENSIONS,
    MAX_RIDS,
    MAX_SECTIONS,
    MAX_SOURCES,
    Codec,
    Description,
    Extension,
    LayerSpec,
    Malformed,
    MediaKind,
    Profile,
    Section,
    Setup,
)

MAX_LAYERS: Final = 3  # simulcast layers of one track (S10)
_DYNAMIC: Final = range(96, 128)  # RFC 3551 section 6
_ONE_BYTE_IDS: Final = range(1, 15)  # RFC 8285 section 4.2
_LAYER_RIDS: Final = ("q", "h", "f")  # LiveKit clients, lowest first
_MIN_UFRAG, _MIN_PWD, _MAX_ICE = 4, 22, 256  # RFC 8839 section 5.4
_MAX_WORD: Final = 256  # characters of mid, rid, msid words

URI_RID: Final = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
_VIDEO_ONLY: Final = {
    URI_RID,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "urn:3gpp:video-orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
}
_AUDIO_ONLY: Final = {"urn:ietf:params:rtp-hdrext:ssrc-audio-level"}

_ANSWERS: Final = {  # RFC 8842 section 5.3: who waits for the other's hello
    Setup.ACTPASS: Setup.PASSIVE,
    Setup.ACTIVE: Setup.PASSIVE,
    Setup.PASSIVE: Setup.ACTIVE,
}


def answered_setup(offered: Setup) -> Setup:
    return _ANSWERS[offered]


def check(description: Description) -> None:
    """Caps and shape of anything a peer sent, before a single value of it is used. Raises `Malformed`."""
    if not 0 < len(description.sections) <= MAX_SECTIONS:
        raise Malformed(f"{len(description.sections)} sections")
    mids = [s.mid for s in description.sections]
    if len(set(mids)) != len(mids):
        raise Malformed("the same mid twice")
    if not set(description.bundle) <= set(mids):
        raise Malformed("bundle names an unknown mid")
    for section in description.sections:
        _check_section(section)


def _check_section(section: Section) -> None:
    if not 0 < len(section.mid) <= _MAX_WORD:
        raise Malformed("mid of a wrong length")
    counts = (
        (len(section.codecs), MAX_CODECS),
        (len(section.extensions), MAX_EXTENSIONS),
        (len(section.sources), MAX_SOURCES),
        (len(section.source_groups), MAX_SOURCES),
        (len(section.rids), 2 * MAX_RIDS),
        (len(section.transport.candidates), MAX_CANDIDATES),
    )
    if any(count > cap for count, cap in counts):
        raise Malformed("too many entries in a section")
    if any(len(rid.id) > _MAX_WORD for rid in section.rids):
        raise Malformed("rid too long")
    if section.rejected or section.kind is MediaKind.APPLICATION:
        return
    if any(not 0 <= c.payload_type <= 127 for c in section.codecs):
        raise Malformed("payload type out of range")
    if len({c.payload_type for c in section.codecs}) != len(section.codecs):
        raise Malformed("a payload type twice in one section")
    if any(not 1 <= e.id <= 255 for e in section.extensions):
        raise Malformed("header extension id out of range")
    if any(not 0 <= s.ssrc < 2**32 for s in section.sources):
        raise Malformed("ssrc out of range")
    if not section.rtcp_mux:
        raise Malformed("without rtcp-mux")


def check_transport(section: Section) -> None:
    """Credentials and fingerprints of a section whose transport is used. Raises `Malformed`."""
    transport = section.transport
    if not _MIN_UFRAG <= len(transport.ufrag) <= _MAX_ICE:
        raise Malformed("ice ufrag of a wrong length")
    if not _MIN_PWD <= len(transport.pwd) <= _MAX_ICE:
        raise Malformed("ice pwd of a wrong length")
    if not any(f.algorithm.lower() in _HASHES for f in transport.fingerprints):
        raise Malformed("no usable fingerprint")


_HASHES: Final = {"sha-256", "sha-384", "sha-512"}


class Numbers:
    """Payload types and extension ids of one session: they mean the same in every section of a bundle."""

    def __init__(self) -> None:
        self._codecs: dict[int, Codec] = {}
        self._extensions: dict[str, int] = {}

    def copy(self) -> "Numbers":
        other = Numbers()
        other._codecs = dict(self._codecs)
        other._extensions = dict(self._extensions)
        return other

    # --- the peer's numbers

    def answer_codecs(self, profile: Profile, section: Section) -> tuple[Codec, ...]:
        """What we accept of the offered codecs. Empty: nothing in common.

        In the offer's order, which says what a publisher wants to send: it sends the first of the answer.
        """
        ours = profile_codecs(profile, section.kind)
        accepted: list[Codec] = []
        for offered in section.codecs:
            named = (c for c in ours if c.name.lower() != "rtx")
            wanted = next((c for c in named if same_codec(c, offered)), None)
            if wanted is None:
                continue
            codec = self._answered(profile, wanted, offered)
            if codec.payload_type not in {c.payload_type for c in accepted}:
                accepted.append(codec)
        numbers = {c.payload_type for c in accepted}
        repairs: list[Codec] = []
        if profile.fixed_payload_types:
            repairs = [c for c in ours if _repairs(c) in numbers]
        elif section.kind is MediaKind.VIDEO:
            repairs = [
                self._keep(replace(c, feedback=()))
                for c in section.codecs
                if _repairs(c) in numbers
            ]
        return (*accepted, *repairs)

    def answer_extensions(self, profile: Profile, section: Section) -> tuple[Extension, ...]:
        """The offered header extensions we accept, under the offer's ids."""
        accepted = tuple(e for e in section.extensions if e.uri in profile.extensions)
        for extension in accepted:
            self._extensions.setdefault(extension.uri, extension.id)
        return accepted

    # --- our numbers

    def offer_codecs(self, profile: Profile, kind: MediaKind) -> tuple[Codec, ...]:
        """The profile's codecs, under numbers this session already uses for them, or else the profile's."""
        renumbered: dict[int, int] = {}
        offered: list[Codec] = []
        for codec in profile_codecs(profile, kind):
            repaired = _repairs(codec)
            if repaired is not None:
                codec = replace(
                    codec, parameters=(("apt", str(renumbered.get(repaired, repaired))),)
                )
            elif codec.name.lower() == "red":
                codec = replace(codec, parameters=_blocks(codec, renumbered))
            number = self._number_of(codec)
            renumbered[codec.payload_type] = number
            offered.append(self._keep(replace(codec, payload_type=number)))
        return tuple(offered)

    def offer_extensions(self, profile: Profile, kind: MediaKind) -> tuple[Extension, ...]:
        foreign = _AUDIO_ONLY if kind is MediaKind.VIDEO else _VIDEO_ONLY
        offered: list[Extension] = []
        for uri in profile.extensions:
            used = set(self._extensions.values())
            free = next((i for i in _ONE_BYTE_IDS if i not in used), None)
            if uri not in self._extensions:
                if free is None:
                    continue
                self._extensions[uri] = free
            if uri not in foreign:
                offered.append(Extension(self._extensions[uri], uri))
        return tuple(offered)

    # --- inside

    def _answered(self, profile: Profile, wanted: Codec, offered: Codec) -> Codec:
        if profile.fixed_payload_types:
            return wanted
        feedback = tuple(f for f in wanted.feedback if f in offered.feedback)
        # Audio parameters say what a receiver wishes, so ours are said; video ones name the bit stream,
        # so the offered ones are repeated.
        name = offered.name.lower()
        parameters = offered.parameters
        if name == "opus" and wanted.parameters:
            # Pauses and stereo are the sender's to decide: every receiver of Opus takes both (RFC 7587 section 7).
            ours = {key for key, _ in wanted.parameters}
            kept = tuple(p for p in parameters if p[0] in _SENDERS_CHOICE and p[0] not in ours)
            parameters = wanted.parameters + kept
        elif name in _AUDIO_CODECS and name != "red" and wanted.parameters:
            parameters = wanted.parameters  # those of RED are payload types, so the offer's
        return self._keep(replace(offered, parameters=parameters, feedback=feedback))

    def _keep(self, codec: Codec) -> Codec:
        """The same payload type keeps its format parameters in every section of the bundle."""
        known = self._codecs.setdefault(codec.payload_type, codec)
        if not _same_format(known, codec):
            raise Malformed("a payload type with two meanings")
        return replace(codec, parameters=known.parameters)

    def _number_of(self, codec: Codec) -> int:
        for number, known in self._codecs.items():
            if _same_format(known, codec) and same_codec(codec, known):
                return number
        if codec.payload_type not in self._codecs:
            return codec.payload_type
        return next(n for n in reversed(_DYNAMIC) if n not in self._codecs)


_SENDERS_CHOICE: Final = ("usedtx", "stereo", "sprop-stereo")
_AUDIO_CODECS: Final = {"opus", "red", "pcmu", "pcma", "g722", "telephone-event", "cn"}


def profile_codecs(profile: Profile, kind: MediaKind) -> tuple[Codec, ...]:
    return {MediaKind.AUDIO: profile.audio, MediaKind.VIDEO: profile.video}.get(kind, ())


def _repairs(codec: Codec) -> int | None:
    """The payload type an rtx codec repeats."""
    apt = codec.parameter("apt") if codec.name.lower() == "rtx" else None
    return int(apt) if apt is not None and apt.isdigit() else None


def _blocks(red: Codec, renumbered: dict[int, int]) -> tuple[tuple[str, str], ...]:
    """The payload types inside RED (RFC 2198 section 5), as this session numbers them."""
    listed, _ = red.parameters[0]
    numbers = [int(number) for number in listed.split("/")]
    return (("/".join(str(renumbered.get(number, number)) for number in numbers), ""),)


def _same_format(one: Codec, other: Codec) -> bool:
    return (one.name.lower(), one.clock_rate, one.channels, _repairs(one)) == (
        other.name.lower(),
        other.clock_rate,
        other.channels,
        _repairs(other),
    )


def same_codec(ours: Codec, theirs: Codec) -> bool:
    """Whether both name one decodable format, including the parameters that change the bit stream."""
    if not _same_format(ours, theirs):
        return False
    return all(
        _parameter(ours, name, default)[:size].lower()
        == _parameter(theirs, name, default)[:size].lower()
        for name, default, size in _FORMAT_PARAMETERS.get(ours.name.lower(), ())
    )


# name of the parameter, its value when absent, how many characters count
_FORMAT_PARAMETERS: Final[dict[str, tuple[tuple[str, str, int], ...]]] = {
    # RFC 6184 section 8.1: profile_idc counts; constraint flags and level are the sender's business
    "h264": (("packetization-mode", "0", 1), ("profile-level-id", "420010", 2)),
    "vp9": (("profile-id", "0", 2),),  # RFC 9628 section 6
    "av1": (("profile", "0", 2),),
}


def _parameter(codec: Codec, name: str, default: str) -> str:
    return codec.parameter(name) or default


def agreed_codecs(ours: tuple[Codec, ...], theirs: tuple[Codec, ...]) -> tuple[Codec, ...]:
    """What we may send: their payload types of formats that we named too, feedback common to both.

    Numbers are compared first. Only a format of ours whose number they do not use at all is looked up by
    its meaning, or an answer that took one H264 variant of several would revive the others.
    """
    by_number = {c.payload_type: c for c in ours}
    theirs_numbers = {c.payload_type for c in theirs}
    unnumbered = [c for c in ours if c.payload_type not in theirs_numbers]
    agreed: list[Codec] = []
    for codec in theirs:
        mine = by_number.get(codec.payload_type)
        if mine is None or not _same_format(mine, codec):
            mine = next((c for c in unnumbered if same_codec(c, codec)), None)
            if mine is None:
                continue
            unnumbered.remove(mine)
        feedback = tuple(f for f in mine.feedback if f in codec.feedback)
        agreed.append(replace(mine, payload_type=codec.payload_type, feedback=feedback))
    return tuple(agreed)


def agreed_extensions(
    ours: tuple[Extension, ...], answered: tuple[Extension, ...]
) -> tuple[Extension, ...]:
    uris = {e.uri for e in answered}
    return tuple(e for e in ours if e.uri in uris)


def has_media(codecs: Iterable[Codec]) -> bool:
    """Whether anything but repair formats was agreed."""
    return any(c.name.lower() not in ("rtx", "red", "ulpfec", "flexfec-03") for c in codecs)


def layer_rids(section: Section, layers: tuple[LayerSpec, ...]) -> tuple[str, ...]:
    """The rids the peer sends, lowest layer first: as announced, else q h f, else as in its list."""
    sent = [rid.id for rid in section.rids if rid.send]
    announced = [layer.rid for layer in layers if layer.rid in sent]
    if len(announced) == len(sent) and announced:
        sent = announced
    elif set(sent) <= set(_LAYER_RIDS):
        sent.sort(key=_LAYER_RIDS.index)
    return tuple(sent[:MAX_LAYERS])


def layer_ssrcs(section: Section) -> tuple[tuple[int, int], ...]:
    """Announced (ssrc, rtx ssrc or 0) pairs, lowest layer first; empty when nothing was announced."""
    repair = {
        g.ssrcs[0]: g.ssrcs[1]
        for g in section.source_groups
        if g.semantics.upper() == "FID" and len(g.ssrcs) == 2
    }
    simulcast = next((g.ssrcs for g in section.source_groups if g.semantics.upper() == "SIM"), ())
    if simulcast:
        media = list(simulcast[:MAX_LAYERS])
    else:
        repairing = set(repair.values())
        media = [s.ssrc for s in section.sources if s.ssrc not in repairing][:1]
    return tuple((ssrc, repair.get(ssrc, 0)) for ssrc in media)
