"""What one call knows, what its task is told, and how it is kept across a restart (pure).

`wire_state` is versioned JSON (house.md section 7): enough to go on with the session after parley was killed.
Not here: the task (`call`), the registry (`calls`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import ParseError, fromstring

from bridge.conference.errors import Malformed
from bridge.conference.ids import LeaveReason, LegId, Role, TrackId
from bridge.gateway import MediaSignal
from bridge.gateways.xmpp import profiles
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.parse import parse_jingle
from bridge.gateways.xmpp.jingle.print import print_jingle
from bridge.gateways.xmpp.jingle.session import State
from bridge.gateways.xmpp.jmi import Verb
from bridge.gateways.xmpp.stanza import Jid, parse_jid, serialize
from sfu.description import MediaKind, Profile

WIRE_STATE_VERSION: Final = 1

TERMINATE_FOR: Final[dict[LeaveReason, str]] = {
    LeaveReason.LEFT: "success",
    LeaveReason.LOST: "connectivity-error",
    LeaveReason.REPLACED: "alternative-session",
    LeaveReason.REMOVED: "gone",
    LeaveReason.ENDED: "success",
    LeaveReason.FAILED: "failed-application",
}
"""Why a leg ended -> Jingle's condition (XEP-0166 section 7.4)."""

SESSION_OVER: Final[dict[str, tuple[LeaveReason, str]]] = {
    "lost": (LeaveReason.LOST, "connectivity-error"),
    "failed": (LeaveReason.FAILED, "failed-transport"),
    "fingerprint": (LeaveReason.FAILED, "security-error"),
    "close": (LeaveReason.LEFT, "success"),
    "drained": (LeaveReason.ENDED, "gone"),
    "bug": (LeaveReason.FAILED, "general-error"),
}
"""Why the worker ended a session (`sfu.protocol.Closed`) -> our reason and Jingle's."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The caller may enter, under this name and rank."""

    name: str
    role: Role


# --- what a call's task is told -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rung:
    """They propose (XEP-0353)."""

    sender: Jid
    media: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """Another Jingle message of theirs, already checked against the state table."""

    verb: Verb
    sender: Jid


@dataclass(frozen=True, slots=True)
class Asked:
    """A Jingle action of theirs, acknowledged and checked against the state table."""

    jingle: v.Jingle


@dataclass(frozen=True, slots=True)
class Media:
    signal: MediaSignal


@dataclass(frozen=True, slots=True)
class Forced:
    """A moderator shut (or freed) a track of this leg."""

    track: TrackId
    muted: bool


@dataclass(frozen=True, slots=True)
class LegLeft:
    reason: LeaveReason


@dataclass(frozen=True, slots=True)
class PeerPresence:
    """The full JID came or went."""

    is_gone: bool


@dataclass(frozen=True, slots=True)
class Start:
    """We ring them (`!conf call`)."""

    media: tuple[str, ...]


News = Rung | Message | Asked | Media | Forced | LegLeft | PeerPresence | Start


# --- what a call knows -------------------------------------------------------------------------------


@dataclass(slots=True)
class Part:
    """One content of the session. `track` is what the peer publishes with it."""

    name: str
    kind: MediaKind
    track: TrackId
    creator: v.Party
    is_published: bool = False
    is_muted: bool = False


@dataclass(slots=True)
class Facts:
    """The state of one call that outlives its task."""

    me: Jid
    peer: Jid
    sid: str
    we_initiate: bool
    state: State
    profile: Profile = profiles.DINO
    via_jmi: bool = False
    leg: LegId | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    remote: v.Jingle | None = None

    @property
    def we(self) -> v.Party:
        return v.Party.INITIATOR if self.we_initiate else v.Party.RESPONDER


def to_wire_state(facts: Facts) -> dict[str, object]:
    remote = "" if facts.remote is None else serialize(print_jingle(facts.remote))
    return {
        "version": WIRE_STATE_VERSION,
        "me": str(facts.me),
        "peer": str(facts.peer),
        "sid": facts.sid,
        "we_initiate": facts.we_initiate,
        "profile": facts.profile.name,
        "via_jmi": facts.via_jmi,
        "parts": [
            {
                "name": part.name,
                "kind": part.kind.value,
                "track": part.track,
                "creator": part.creator.value,
                "published": part.is_published,
                "muted": part.is_muted,
            }
            for part in facts.parts.values()
        ],
        "remote": remote,
    }


def from_wire_state(leg: LegId, state: Mapping[str, object]) -> Facts:
    """Raises `Malformed` for a state that another version wrote, or that is damaged."""
    if state.get("version") != WIRE_STATE_VERSION:
        raise Malformed("wire state of another version")
    try:
        return _facts(leg, state)
    except (KeyError, TypeError, ValueError, ParseError) as why:
        raise Malformed("damaged wire state") from why


def _facts(leg: LegId, state: Mapping[str, object]) -> Facts:
    parts = state["parts"]
    if not isinstance(parts, list):
        raise Malformed("damaged wire state")
    facts = Facts(
        me=parse_jid(str(state["me"])),
        peer=parse_jid(str(state["peer"])),
        sid=str(state["sid"]),
        we_initiate=bool(state["we_initiate"]),
        state=State.ACTIVE,
        profile=profiles.BY_NAME[str(state["profile"])],
        via_jmi=bool(state["via_jmi"]),
        leg=leg,
        remote=parse_jingle(fromstring(str(state["remote"]))) if state["remote"] else None,
    )
    for item in parts:
        part = Part(
            name=str(item["name"]),
            kind=MediaKind(item["kind"]),
            track=TrackId(str(item["track"])),
            creator=v.Party(item["creator"]),
            is_published=bool(item["published"]),
            is_muted=bool(item["muted"]),
        )
        facts.parts[part.name] = part
    return facts
