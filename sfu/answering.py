"""What the answer to an offer will be, decided and checked before anything changes.

Raises `Malformed` or `Refused`; reads lines without touching them.
Not here: carrying it out (`sfu.session`), codec choice and the checks themselves (`sfu.negotiation`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfu import negotiation
from sfu.description import Codec, Extension, Malformed, MediaKind, Profile, Section
from sfu.description import Transport as TransportDescription
from sfu.errors import Refused
from sfu.lines import Line


@dataclass(frozen=True, slots=True)
class Plan:
    """What the answer to one offered section will be."""

    section: Section
    codecs: tuple[Codec, ...]
    extensions: tuple[Extension, ...]
    is_rejected: bool


def plan(
    profile: Profile, lines: Mapping[str, Line], numbers: negotiation.Numbers, section: Section
) -> Plan:
    """Notes in `numbers` what the section calls its codecs and extensions."""
    known = lines.get(section.mid)
    if known is not None and known.kind is not section.kind:
        raise Malformed("a section changed its kind")
    if section.rejected:
        return Plan(section, (), (), is_rejected=True)
    if section.kind is MediaKind.APPLICATION:
        return Plan(section, (), (), is_rejected=section.sctp_port is None)
    codecs = numbers.answer_codecs(profile, section)
    if not negotiation.has_media(codecs):
        return Plan(section, (), (), is_rejected=True)
    return Plan(section, codecs, numbers.answer_extensions(profile, section), is_rejected=False)


def described_transports(
    plans: Sequence[Plan], lines: Mapping[str, Line], bundle: Sequence[str]
) -> dict[str, TransportDescription]:
    """One mid per transport, and what the peer says about it; validated."""
    used = [p.section for p in plans if not p.is_rejected]
    tagged = next((s for s in used if s.mid in bundle), None)
    chosen = [s for s in used if s.mid not in bundle]
    if tagged is not None:
        chosen.append(tagged)
    for section in chosen:
        negotiation.check_transport(section)
        line = lines.get(section.mid)
        if line is not None and not line.transport.is_same_peer(section.transport):
            raise Refused("another certificate on a running transport")
    return {section.mid: section.transport for section in chosen}
