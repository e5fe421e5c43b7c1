"""What a conference is between two commands, and how each event changes it.

`State.after(event)` is the only place where state changes: whoever replays a conference's events, in order,
holds the same state (a property test says so).
Not here: which events a command leads to (one file per feature: roster, mutes, chat, bindings).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from bridge.conference.events import (
    Bound,
    Ended,
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    MuteRuled,
    Said,
    StreamsRuled,
    Track,
    TrackMuted,
    TrackPublished,
    TrackUnpublished,
    Unbound,
)
from bridge.conference.ids import Account, Identity, LegId, Role, TrackId, TrackKind
from bridge.conference.ports import ConferenceRecord, MuteRule, Restored

BOTH_KINDS = (TrackKind.AUDIO, TrackKind.VIDEO)


def kinds_of(kind: TrackKind | None) -> tuple[TrackKind, ...]:
    """None means audio and video."""
    return BOTH_KINDS if kind is None else (kind,)


@dataclass(frozen=True, slots=True)
class State:
    """Immutable: a command that is refused, or whose commit fails, has changed nothing.

    `mutes` has one rule per account and kind; its `kind` is never None.
    """

    record: ConferenceRecord
    legs: Mapping[LegId, Leg] = field(default_factory=dict)
    mutes: frozenset[MuteRule] = frozenset()

    @staticmethod
    def of(restored: Restored) -> "State":
        return State(
            record=restored.record,
            legs={leg.id: leg for leg in restored.legs},
            mutes=frozenset(
                MuteRule(rule.target, kind)
                for rule in restored.mutes
                for kind in kinds_of(rule.kind)
            ),
        )

    # --- questions -----------------------------------------------------------------------------------

    def legs_of(self, account: Account) -> Iterator[Leg]:
        return (leg for leg in self.legs.values() if leg.account == account)

    def leg_with(self, identity: Identity) -> Leg | None:
        return next((leg for leg in self.legs.values() if leg.identity == identity), None)

    def is_in(self, account: Account) -> bool:
        return any(self.legs_of(account))

    def rank_of(self, account: Account) -> Role | None:
        """The highest role of the account's legs; None when it is not in, so nobody here knows."""
        return max((leg.role for leg in self.legs_of(account)), default=None)

    def is_forced(self, account: Account, kind: TrackKind) -> bool:
        return MuteRule(account, kind) in self.mutes

    def has_track(self, track: TrackId) -> bool:
        return any(track == known.id for leg in self.legs.values() for known in leg.tracks)

    # --- change --------------------------------------------------------------------------------------

    def after(self, event: Event) -> "State":
        match event:
            case Joined(leg) | LegChanged(leg) | TrackPublished(leg) | TrackUnpublished(leg):
                return replace(self, legs={**self.legs, leg.id: leg})
            case TrackMuted(leg):
                return replace(self, legs={**self.legs, leg.id: leg})
            case Left(leg):
                return replace(self, legs={k: v for k, v in self.legs.items() if k != leg.id})
            case MuteRuled(target, kind, muted):
                rules = {MuteRule(target, k) for k in kinds_of(kind)}
                return replace(self, mutes=self.mutes | rules if muted else self.mutes - rules)
            case Bound(place):
                places = (*(p for p in self.record.places if p != place), place)
                return replace(self, record=replace(self.record, places=places, auto=False))
            case Unbound(place):
                places = tuple(p for p in self.record.places if p != place)
                return replace(self, record=replace(self.record, places=places))
            case StreamsRuled(choice):
                return replace(self, record=replace(self.record, streams=choice))
            case Said() | Ended():
                return self
            case _:
                assert_never(event)

    def after_all(self, events: Iterable[Event]) -> "State":
        state = self
        for event in events:
            state = state.after(event)
        return state


def with_track(leg: Leg, track: Track) -> Leg:
    """The leg's next version, with this track added or replaced in its place."""
    if any(known.id == track.id for known in leg.tracks):
        tracks = tuple(track if known.id == track.id else known for known in leg.tracks)
    else:
        tracks = (*leg.tracks, track)
    return replace(leg, tracks=tracks, version=leg.version + 1)


def without_track(leg: Leg, track: TrackId) -> Leg:
    tracks = tuple(known for known in leg.tracks if known.id != track)
    return replace(leg, tracks=tracks, version=leg.version + 1)


def track_of(leg: Leg, track: TrackId) -> Track | None:
    return next((known for known in leg.tracks if known.id == track), None)
