"""Own mutes and force-mutes. A rule is about an account and a kind, so it survives leaving and joining again.

A track is `forced` exactly while a rule covers its account and kind; its gate at the server is open exactly
while it is not forced. The publisher's own mute never closes the gate: honest clients send nothing then.
Not here: who may (`policy`), the gate itself (`bridge.media`).
"""

from collections.abc import Iterator
from dataclasses import replace

from bridge.conference.commands import Mute, SetMuted, Unmute
from bridge.conference.errors import Refused
from bridge.conference.events import Event, MuteRuled, TrackMuted
from bridge.conference.ids import Account, Actor, TrackKind
from bridge.conference.state import State, kinds_of, track_of, with_track


def set_muted(state: State, command: SetMuted) -> tuple[Event, ...]:
    leg = state.legs.get(command.leg)
    track = None if leg is None else track_of(leg, command.track)
    if leg is None or track is None:
        return ()  # crossed an unpublish
    if track.forced and not command.muted:
        raise Refused("A moderator muted you; ask them to lift it, then unmute yourself.")
    if track.muted == command.muted:
        return ()
    track = replace(track, muted=command.muted)
    return (TrackMuted(with_track(leg, track), track, gate_open=not track.forced),)


def mute(state: State, command: Mute) -> tuple[Event, ...]:
    return _rule(state, command.by, command.target, command.kind, muted=True)


def unmute(state: State, command: Unmute) -> tuple[Event, ...]:
    return _rule(state, command.by, command.target, command.kind, muted=False)


def _rule(
    state: State, by: Actor, target: Account, kind: TrackKind | None, *, muted: bool
) -> tuple[Event, ...]:
    """One `MuteRuled` per kind that changes (never kind None: what is ruled apart can be lifted apart)."""
    events: list[Event] = []
    for one in kinds_of(kind):
        if state.is_forced(target, one) == muted:
            continue
        events.append(MuteRuled(target, one, muted, by))
        for event in _force(state, target, one, forced=muted, by=by):
            state = state.after(event)
            events.append(event)
    return tuple(events)


def _force(
    state: State, target: Account, kind: TrackKind, *, forced: bool, by: Actor
) -> Iterator[TrackMuted]:
    for leg in state.legs_of(target):
        for track in leg.tracks:
            if track.kind is kind:
                held = replace(track, forced=forced)
                leg = with_track(leg, held)
                yield TrackMuted(leg, held, gate_open=not forced, by=by)
