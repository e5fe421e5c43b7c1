"""Jingle contents <-> `sfu.description`: two spellings of one agreement.

Directions: `senders` names sides of the session, a description speaks as its author; both are exact
inverses once it is known who writes. `msid` travels as an XEP-0339 source parameter.
Candidates: component 1 and UDP only; whoever cannot multiplex RTCP cannot call us.
Not here: what the worker does with it.
"""

from collections.abc import Iterable
from typing import Final

from bridge.conference.errors import Malformed
from bridge.gateways.xmpp.jingle import values as v
from sfu.description import (
    Candidate,
    Codec,
    Description,
    DescriptionType,
    Direction,
    MediaKind,
    Section,
    Setup,
    Transport,
)

_KINDS: Final = {"audio": MediaKind.AUDIO, "video": MediaKind.VIDEO}

_TO_DIRECTION: Final = {
    (v.Senders.BOTH, v.Party.INITIATOR): Direction.SENDRECV,
    (v.Senders.BOTH, v.Party.RESPONDER): Direction.SENDRECV,
    (v.Senders.INITIATOR, v.Party.INITIATOR): Direction.SENDONLY,
    (v.Senders.INITIATOR, v.Party.RESPONDER): Direction.RECVONLY,
    (v.Senders.RESPONDER, v.Party.INITIATOR): Direction.RECVONLY,
    (v.Senders.RESPONDER, v.Party.RESPONDER): Direction.SENDONLY,
    (v.Senders.NONE, v.Party.INITIATOR): Direction.INACTIVE,
    (v.Senders.NONE, v.Party.RESPONDER): Direction.INACTIVE,
}
_TO_SENDERS: Final = {
    (direction, author): senders for (senders, author), direction in _TO_DIRECTION.items()
}


def direction_of(senders: v.Senders, author: v.Party) -> Direction:
    """The direction as `author` would write it."""
    return _TO_DIRECTION[senders, author]


def senders_of(direction: Direction, author: v.Party) -> v.Senders:
    return _TO_SENDERS[direction, author]


def usable(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Without component 2 (RTCP is multiplexed; Dino still gathers it) and TCP."""
    return tuple(c for c in candidates if c.component == 1 and c.protocol == "udp")


def to_description(jingle: v.Jingle, author: v.Party, kind: DescriptionType) -> Description:
    """Raises `Malformed` for a content without RTP, ICE-UDP or a fingerprint."""
    if not jingle.contents:
        raise Malformed("no content")
    sections = tuple(to_section(content, author) for content in jingle.contents)
    mids = {section.mid for section in sections}
    if len(mids) != len(sections):
        raise Malformed("two contents with one name")
    if not mids.issuperset(jingle.bundle):
        raise Malformed("group names an unknown content")
    return Description(kind, sections, jingle.bundle)


def to_section(content: v.Content, author: v.Party) -> Section:
    rtp, ice = content.description, content.transport
    if rtp is None or ice is None:
        raise Malformed("content without RTP over ICE-UDP")
    if not ice.ufrag or not ice.pwd or not ice.fingerprints:
        raise Malformed("content without ICE credentials or DTLS fingerprint")
    media_kind = _KINDS.get(rtp.media)
    if media_kind is None:
        raise Malformed("neither audio nor video")
    stream, track = _msid(rtp)
    return Section(
        mid=content.name,
        kind=media_kind,
        direction=direction_of(content.senders, author),
        transport=to_transport(ice),
        codecs=tuple(_with_feedback(codec, rtp) for codec in rtp.codecs),
        extensions=rtp.extensions,
        sources=rtp.sources,
        source_groups=rtp.source_groups,
        stream=stream,
        track=track,
        rtcp_mux=rtp.rtcp_mux,
        creator_initiator=content.creator is v.Party.INITIATOR,
    )


def to_transport(ice: v.IceUdp) -> Transport:
    return Transport(
        ufrag=ice.ufrag,
        pwd=ice.pwd,
        fingerprints=ice.fingerprints,
        setup=ice.setup or Setup.ACTPASS,
        candidates=usable(ice.candidates),
    )


def _with_feedback(codec: Codec, rtp: v.Rtp) -> Codec:
    if not rtp.feedback:
        return codec
    return Codec(
        codec.payload_type,
        codec.name,
        codec.clock_rate,
        codec.channels,
        codec.parameters,
        codec.feedback + tuple(kind for kind in rtp.feedback if kind not in codec.feedback),
    )


def _msid(rtp: v.Rtp) -> tuple[str | None, str | None]:
    for source in rtp.sources:
        for name, value in source.attributes:
            words = value.split(" ")
            if name == "msid" and words[0]:
                return words[0], words[1] if len(words) > 1 and words[1] else None
    return None, None


def to_contents(description: Description, author: v.Party) -> tuple[v.Content, ...]:
    """Everything but rejected sections, in order."""
    return tuple(to_content(s, author) for s in description.sections if not s.rejected)


def to_content(section: Section, author: v.Party) -> v.Content:
    return v.Content(
        name=section.mid,
        creator=v.Party.INITIATOR if section.creator_initiator else v.Party.RESPONDER,
        senders=senders_of(section.direction, author),
        description=v.Rtp(
            media=section.kind.value,
            codecs=section.codecs,
            extensions=section.extensions,
            sources=section.sources,
            source_groups=section.source_groups,
            rtcp_mux=section.rtcp_mux,
        ),
        transport=to_ice(section.transport),
    )


def to_ice(transport: Transport) -> v.IceUdp:
    return v.IceUdp(
        ufrag=transport.ufrag,
        pwd=transport.pwd,
        fingerprints=transport.fingerprints,
        setup=transport.setup,
        candidates=usable(transport.candidates),  # XEP-0176 knows UDP only
    )
