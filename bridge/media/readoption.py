"""Matching what we know with what a worker has: after a restart of parley, or of the connection to the worker.

What is absent in a snapshot is closed(lost); what we do not know is closed. A gate that the worker holds
closed and SQL lacks stays closed (house.md section 7). Pure.
Not here: taking the snapshot, sending what follows (`media.media`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.conference.ids import Account, ConferenceId, LegId, TrackId, TrackKind
from bridge.media.room import Room, Transport
from sfu import protocol

_TRANSPORTS = {
    "new": Transport.NEW,
    "connecting": Transport.NEW,
    "connected": Transport.UP,
    "disconnected": Transport.SILENT,
}


@dataclass(frozen=True, slots=True)
class Match:
    """`alive`: as the worker says. `over`: ours, with the reason. `strangers`: open, but nobody's."""

    alive: Mapping[str, Transport]
    over: Mapping[str, str]
    strangers: tuple[str, ...]
    tombstones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A closed gate without a rule: the mute was carried out, but its commit was lost."""

    conference: ConferenceId
    account: Account
    kind: TrackKind


@dataclass(frozen=True, slots=True)
class Readopted:
    """`sessions` and `alive` per leg for `gateway.SavedLeg`; `held` wants a rule again."""

    sessions: Mapping[LegId, tuple[str, ...]]
    alive: frozenset[LegId]
    held: tuple[Held, ...]


def match(known: Iterable[str], snapshot: protocol.Snapshot) -> Match:
    ours = set(known)
    states = {state.session: state for state in snapshot.sessions}
    is_open = {name for name, state in states.items() if state.state in _TRANSPORTS}
    over = {}
    for name in ours - is_open:
        tombstone = states.get(name)
        over[name] = (tombstone.reason if tombstone is not None else "") or "lost"
    return Match(
        alive={name: _TRANSPORTS[states[name].state] for name in ours & is_open},
        over=over,
        strangers=tuple(sorted(is_open - ours)),
        tombstones=tuple(sorted(states.keys() - is_open)),
    )


def correct(room: Room, snapshot: protocol.Snapshot) -> None:
    """Make what the room believes to have told the worker equal to what the worker has."""
    room.forget_policy()
    for policy in snapshot.policies:
        if policy.group == room.conference:
            room.policy = policy
    for state in snapshot.tracks:
        if state.session in room.sessions:
            room.publishers[TrackId(state.track)] = state.session
            room.gates[TrackId(state.track)] = state.gate_open
    for name in room.subscribed:
        room.subscribed[name] = {
            TrackId(sub.track) for sub in snapshot.subscriptions if sub.session == name
        }


def keep_choices(room: Room) -> None:
    """A subscription that auto-subscribe does not explain was somebody's explicit choice."""
    for name, tracks in room.subscribed.items():
        session = room.sessions[name]
        if not session.auto_subscribe:
            room.choices.update({(session.leg, track): True for track in tracks})


def hold(room: Room) -> list[Held]:
    """Keep shut what was shut; call it after `correct`, before planning."""
    held = []
    for leg in room.legs.values():
        for track in leg.tracks:
            if not (track.forced or leg.hidden or room.gates.get(track.id, True)):
                room.held.add(track.id)
                held.append(Held(room.conference, leg.account, track.kind))
    return held
