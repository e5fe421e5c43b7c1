"""SDP text <-> `sfu.description` values.

RFC 8866 (grammar), RFC 8829 section 5.8 (what JSEP peers write), RFC 9143 (BUNDLE); attributes: see
`sfu.sdp_attributes`.
Pure: text in, value out, `Malformed` for anything a peer must not send (S27); printing is the inverse.
What a `Description` has no word for (ice-options, rtcp-rsize, extmap direction, SDES keys) is read over.
Not here: negotiation (`sfu.session`), who offers when (a gateway), Jingle (`bridge.gateways.xmpp`).
"""

from dataclasses import replace
from typing import Final

from sfu.description import (
    MAX_CODECS,
    MAX_SECTIONS,
    Codec,
    Description,
    DescriptionType,
    Direction,
    Extension,
    Malformed,
    MediaKind,
    Rid,
    Section,
    Setup,
    Source,
    Transport,
)
from sfu.sdp_attributes import (
    ATTRIBUTES,
    CONTROL,
    MAX_FEEDBACK,
    MAX_LINE_CHARACTERS,
    Draft,
    number,
    parse_candidate,
    payload_type_of,
)
from sfu.sdp_print import print_description

__all__ = ["MAX_TEXT_CHARACTERS", "parse", "parse_candidate", "print_description"]

MAX_TEXT_CHARACTERS: Final = 256 * 1024  # the largest signalling message that may carry it (S23)

_RTP_PROTOCOLS: Final = frozenset(
    {"UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF"}
)
_SCTP_PROTOCOLS: Final = frozenset({"UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"})
_STATIC: Final = {  # RFC 3551 table 4, the ones WebRTC peers leave without rtpmap
    0: ("PCMU", 8000),
    8: ("PCMA", 8000),
    9: ("G722", 8000),
    13: ("CN", 8000),
}
_NO_TRANSPORT: Final = Transport(ufrag="", pwd="")


def parse(text: str, kind: DescriptionType) -> Description:
    """The description this text spells. Raises `Malformed`, and nothing else, on hostile input."""
    drafts = _read(text)
    session, media = drafts[0], drafts[1:]
    for index, draft in enumerate(media):
        if draft.mid is None:
            draft.mid = str(index)  # a peer without BUNDLE need not name its sections
    mids = [draft.mid or "" for draft in media]
    if len(set(mids)) != len(mids):
        raise Malformed("two sections with one mid")
    bundle = session.bundle or ()
    if len(set(bundle)) != len(bundle) or not set(bundle) <= set(mids):
        raise Malformed("bundle names a mid twice or one that is not there")
    sections = tuple(_section(session, draft, kind) for draft in media)
    return Description(kind, _bundled(sections, bundle), bundle)


def _bundled(sections: tuple[Section, ...], bundle: tuple[str, ...]) -> tuple[Section, ...]:
    """Give every bundled section the transport of the tagged one (RFC 9143 section 7)."""
    by_mid = {s.mid: s for s in sections if not s.rejected}
    shared = next((by_mid[m].transport for m in bundle if m in by_mid), None)
    if shared is not None:
        members = set(bundle)
        sections = tuple(
            replace(s, transport=shared) if s.mid in members and not s.rejected else s
            for s in sections
        )
    if any(not s.rejected and not s.transport.ufrag for s in sections):
        raise Malformed("section without ICE credentials")
    return sections


def _read(text: str) -> list[Draft]:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise Malformed("description too long")
    text = text.replace("\r\n", "\n")
    if CONTROL.search(text):
        raise Malformed("control character")
    lines = text.split("\n")
    if lines[0] != "v=0":
        raise Malformed("not a session description")
    drafts = [Draft()]
    for line in filter(None, lines):
        _check_line(line)
        if line[0] == "m":
            if len(drafts) > MAX_SECTIONS:
                raise Malformed("too many sections")
            drafts.append(_media_line(line[2:]))
        elif line[0] == "a":
            name, _, value = line[2:].partition(":")
            handler = ATTRIBUTES.get(name)
            if handler is not None:
                handler(drafts[-1], value)
    return drafts


def _check_line(line: str) -> None:
    if len(line) > MAX_LINE_CHARACTERS:
        raise Malformed("line too long")
    if line[1:2] != "=":
        raise Malformed("line without a type")
    if line[0] in "am" and not line.isascii():
        raise Malformed("attribute outside ASCII")


def _media_line(value: str) -> Draft:
    words = value.split()
    if len(words) < 4:
        raise Malformed("media line too short")
    try:
        kind = MediaKind(words[0])
    except ValueError:
        raise Malformed("unknown media kind") from None
    port = number(words[1].partition("/")[0], 0, 65535, "port")
    protocols = _SCTP_PROTOCOLS if kind is MediaKind.APPLICATION else _RTP_PROTOCOLS
    if port and words[2] not in protocols:
        raise Malformed("media protocol without DTLS")
    if len(words) - 3 > MAX_CODECS:
        raise Malformed("too many formats")
    return Draft(kind=kind, port=port, protocol=words[2], formats=tuple(words[3:]))


def _section(session: Draft, draft: Draft, kind: DescriptionType) -> Section:
    assert draft.kind is not None and draft.mid is not None  # noqa: PT018  (set by _media_line and parse)
    if draft.is_rejected:
        return Section(draft.mid, draft.kind, Direction.INACTIVE, _NO_TRANSPORT, rejected=True)
    direction = draft.direction or session.direction or Direction.SENDRECV
    transport = _transport(session, draft, kind)
    if draft.kind is MediaKind.APPLICATION:
        legacy = draft.formats[0] if draft.protocol == "DTLS/SCTP" else ""
        port = draft.sctp_port
        if port is None:
            port = number(legacy, 1, 65535, "SCTP port") if legacy.isdigit() else 5000
        return Section(
            draft.mid,
            draft.kind,
            direction,
            transport,
            sctp_port=port,
            max_message_size=draft.max_message_size,
        )
    stream, track = _msid(draft)
    return Section(
        draft.mid,
        draft.kind,
        direction,
        transport,
        codecs=_codecs(draft),
        extensions=tuple(Extension(i, uri) for i, uri in draft.extensions.items()),
        sources=tuple(Source(ssrc, tuple(pairs)) for ssrc, pairs in draft.sources.items()),
        source_groups=tuple(draft.groups),
        rids=_rids(draft),
        stream=stream,
        track=track,
        rtcp_mux=draft.rtcp_mux,
        mixed_extensions=draft.mixed_extensions or session.mixed_extensions,
    )


def _transport(session: Draft, draft: Draft, kind: DescriptionType) -> Transport:
    default = Setup.ACTPASS if kind is DescriptionType.OFFER else Setup.ACTIVE
    ufrag, pwd = draft.ufrag or session.ufrag or "", draft.pwd or session.pwd or ""
    if bool(ufrag) != bool(pwd):
        raise Malformed("half of the ICE credentials")
    return Transport(
        ufrag=ufrag,
        pwd=pwd,
        fingerprints=tuple(draft.fingerprints or session.fingerprints),
        setup=draft.setup or session.setup or default,
        candidates=tuple(draft.candidates or session.candidates),
        ice_lite=session.ice_lite,
    )


def _codecs(draft: Draft) -> tuple[Codec, ...]:
    codecs: list[Codec] = []
    seen: set[int] = set()
    for word in draft.formats:
        payload_type = payload_type_of(word)
        if payload_type in seen:
            raise Malformed("payload type twice in a media line")
        seen.add(payload_type)
        static = _STATIC.get(payload_type)
        entry = draft.maps.get(payload_type) or (static and (*static, 1))
        if entry is None:
            continue  # nothing says what it is, so nobody can use it
        feedback = tuple(f for pt, f in draft.feedback if pt is None or pt == payload_type)
        if len(feedback) > MAX_FEEDBACK:
            raise Malformed("too many feedback kinds")
        name, rate, channels = entry
        parameters = draft.parameters.get(payload_type, ())
        codecs.append(Codec(payload_type, name, rate, channels, parameters, feedback))
    return tuple(codecs)


def _rids(draft: Draft) -> tuple[Rid, ...]:
    """In the order of the simulcast line (RFC 8853 section 5.2), which is the order of preference."""
    listed = [rid for rid in dict.fromkeys(draft.simulcast) if rid in draft.rids]
    order = listed + [rid for rid in draft.rids if rid not in listed]
    return tuple(Rid(rid, draft.rids[rid]) for rid in order)


def _msid(draft: Draft) -> tuple[str | None, str | None]:
    if draft.msid is not None:
        return draft.msid
    for pairs in draft.sources.values():  # COMPAT: plan-B style peers label their sources only
        for name, value in pairs:
            if name == "msid":
                stream, _, track = value.partition(" ")
                return stream or None, track.strip() or None
    return None, None
