"""Who is in, with which device and tracks: join, leave, rename, transport state, publish, unpublish, remove, end.

A leg whose identity joins again is replaced. `first` and `last` speak of visible legs: a hidden leg (a
recorder) neither announces a person nor takes one away.
Not here: mutes (`mutes`), who may (`policy`), sessions in the worker (`bridge.media`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bridge.conference.commands import (
    End,
    Join,
    Leave,
    Publish,
    Remove,
    Rename,
    SetLegState,
    Unpublish,
)
from bridge.conference.errors import IllegalTransition, Malformed, Refused
from bridge.conference.events import (
    Ended,
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    Track,
    TrackPublished,
    TrackUnpublished,
)
from bridge.conference.ids import Actor, Identity, LeaveReason, LegState
from bridge.conference.names import clean_label, clean_name
from bridge.conference.state import State, track_of, with_track, without_track

MAX_LEGS: Final = 1000  # of one conference
MAX_LEGS_PER_ACCOUNT: Final = 8  # devices of one person
MAX_TRACKS: Final = 8  # of one leg (S10)
MAX_LAYERS: Final = 4  # as `sfu.description.MAX_RIDS`
MAX_ID_CHARS: Final = 512
MAX_AVATAR_CHARS: Final = 1024
MAX_LABEL_CHARS: Final = 256

_NEXT: Final = frozenset(
    {
        (LegState.JOINING, LegState.ACTIVE),
        (LegState.JOINING, LegState.LOST),
        (LegState.ACTIVE, LegState.LOST),
        (LegState.LOST, LegState.ACTIVE),
    }
)


def join(state: State, command: Join, now_ms: int) -> tuple[Event, ...]:
    identity = command.identity
    if identity is None:
        raise IllegalTransition("join without identity: the focus must ask for one first")
    if not command.leg or max(len(command.leg), len(identity)) > MAX_ID_CHARS:
        raise Malformed("leg id or identity is empty or too long")
    known = state.legs.get(command.leg)
    if known is not None:
        if (known.account, known.identity) == (command.account, identity):
            return ()  # networks repeat themselves; harmless
        raise Refused("This session belongs to somebody else.")
    left = _replaced(state, command, identity)
    state = state.after_all(left)
    _check_caps(state, command)
    leg = Leg(
        id=command.leg,
        gateway=command.gateway,
        account=command.account,
        identity=identity,
        name=clean_name(command.name, command.account.address),
        role=command.role,
        receives=command.receives,
        avatar=clean_label(command.avatar, MAX_AVATAR_CHARS),
        token_subject=command.token_subject,
        can_publish=command.can_publish,
        can_subscribe=command.can_subscribe,
        hidden=command.hidden,
        joined_ms=now_ms,
    )
    return (*left, Joined(leg, first=not leg.hidden and _visible(state, leg) == 0))


def leave(state: State, command: Leave) -> tuple[Event, ...]:
    leg = state.legs.get(command.leg)
    return () if leg is None else depart(state, (leg,), command.reason)


def remove(state: State, command: Remove) -> tuple[Event, ...]:
    legs = tuple(state.legs_of(command.target))
    if not legs:
        raise Refused("They are not in the call.")
    return depart(state, legs, LeaveReason.REMOVED, command.by)


def end(state: State, command: End) -> tuple[Event, ...]:
    legs = tuple(state.legs.values())
    return (*depart(state, legs, LeaveReason.ENDED, command.by), Ended(command.by))


def depart(
    state: State, legs: Sequence[Leg], reason: LeaveReason, by: Actor | None = None
) -> tuple[Event, ...]:
    """`Left` of these legs, one after the other, so that exactly the person's final one says `last`."""
    events: list[Event] = []
    for leg in legs:
        gone = replace(leg, version=leg.version + 1)
        last = not leg.hidden and _visible(state, leg) == 1
        event = Left(gone, reason, last, by)
        state = state.after(event)
        events.append(event)
    return tuple(events)


def rename(state: State, command: Rename) -> tuple[Event, ...]:
    name = clean_name(command.name, command.account.address)
    avatar = clean_label(command.avatar, MAX_AVATAR_CHARS)
    return tuple(
        LegChanged(replace(leg, name=name, avatar=avatar, version=leg.version + 1))
        for leg in state.legs_of(command.account)
        if (leg.name, leg.avatar) != (name, avatar)
    )


def set_leg_state(state: State, command: SetLegState) -> tuple[Event, ...]:
    leg = state.legs.get(command.leg)
    if leg is None or leg.state is command.state:
        return ()  # the worker's word may cross a leave
    if (leg.state, command.state) not in _NEXT:
        raise IllegalTransition(f"leg {command.state.name} while {leg.state.name}")
    return (LegChanged(replace(leg, state=command.state, version=leg.version + 1)),)


def publish(state: State, command: Publish) -> tuple[Event, ...]:
    leg = state.legs.get(command.leg)
    if leg is None:
        raise Refused("You are not in the call.")
    if not leg.can_publish:
        raise Refused("Your invitation lets you watch and listen, not send.")
    if not command.track or len(command.track) > MAX_ID_CHARS:
        raise Malformed("track id is empty or too long")
    if state.has_track(command.track):
        raise Malformed("track id already in use")
    if len(command.layers) > MAX_LAYERS:
        raise Malformed(f"{len(command.layers)} layers, at most {MAX_LAYERS}")
    if len(leg.tracks) >= MAX_TRACKS:
        raise Refused(f"You already send {MAX_TRACKS} tracks; stop one of them first.")
    track = Track(
        id=command.track,
        leg=leg.id,
        kind=command.kind,
        source=command.source,
        name=clean_label(command.name, MAX_LABEL_CHARS),
        muted=command.muted,
        forced=state.is_forced(leg.account, command.kind),
        encrypted=command.encrypted,
        mime_type=clean_label(command.mime_type, MAX_LABEL_CHARS),
        width=command.width,
        height=command.height,
        layers=command.layers,
        stream=clean_label(command.stream, MAX_LABEL_CHARS),
        disable_dtx=command.disable_dtx,
        stereo=command.stereo,
    )
    return (TrackPublished(with_track(leg, track), track),)


def unpublish(state: State, command: Unpublish) -> tuple[Event, ...]:
    leg = state.legs.get(command.leg)
    track = None if leg is None else track_of(leg, command.track)
    if leg is None or track is None:
        return ()
    return (TrackUnpublished(without_track(leg, track.id), track),)


def _replaced(state: State, command: Join, identity: Identity) -> tuple[Event, ...]:
    old = state.leg_with(identity)
    if old is None:
        return ()
    if old.account != command.account:
        raise Refused("This identity is in the call already, under another account.")
    return depart(state, (old,), LeaveReason.REPLACED)


def _check_caps(state: State, command: Join) -> None:
    if len(state.legs) >= MAX_LEGS:
        raise Refused(f"The call is full: it has {MAX_LEGS} participants.")
    if sum(1 for _ in state.legs_of(command.account)) >= MAX_LEGS_PER_ACCOUNT:
        raise Refused(f"You are in this call with {MAX_LEGS_PER_ACCOUNT} devices; leave with one.")


def _visible(state: State, leg: Leg) -> int:
    return sum(1 for other in state.legs_of(leg.account) if not other.hidden)
