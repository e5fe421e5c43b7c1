"""Any interleaving of commands keeps the promises that gateways, media and store build on."""

from collections.abc import Sequence

from hypothesis import given

from bridge.conference.commands import Command
from bridge.conference.conference import Conference
from bridge.conference.errors import Malformed, Refused
from bridge.conference.events import (
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    TrackMuted,
    TrackPublished,
    TrackUnpublished,
)
from bridge.conference.ids import LegId
from bridge.conference.ports import MuteRule, Restored
from bridge.conference.state import State
from tests.conference.plays import RECORD, conference, plays


def perform(play: Sequence[Command]) -> tuple[Conference, list[Event]]:
    stage = conference()
    events: list[Event] = []
    for now_ms, command in enumerate(play):
        before = stage.state
        try:
            events += stage.apply(command, now_ms)
        except (Refused, Malformed):
            assert stage.state is before
    return stage, events


@given(plays)
def test_replaying_the_events_gives_the_same_state(play: Sequence[Command]) -> None:
    stage, events = perform(play)
    assert State.of(Restored(RECORD)).after_all(events) == stage.state


@given(plays)
def test_what_the_store_keeps_restores_the_same_state(play: Sequence[Command]) -> None:
    stage, _ = perform(play)
    state = stage.state
    kept = Restored(state.record, tuple(state.legs.values()), tuple(state.mutes))
    assert Conference(kept).state == state


@given(plays)
def test_a_leg_joins_once_and_leaves_at_most_once(play: Sequence[Command]) -> None:
    stage, events = perform(play)
    inside: set[LegId] = set()
    for event in events:
        match event:
            case Joined(leg):
                assert leg.id not in inside
                inside.add(leg.id)
            case Left(leg):
                inside.remove(leg.id)
            case LegChanged(leg) | TrackPublished(leg) | TrackUnpublished(leg) | TrackMuted(leg):
                assert leg.id in inside
            case _:
                pass
    assert inside == set(stage.state.legs)


@given(plays)
def test_a_person_is_announced_once_and_goes_once(play: Sequence[Command]) -> None:
    _, events = perform(play)
    visible: dict[object, int] = {}
    for event in events:
        match event:
            case Joined(leg, first):
                assert first == (not leg.hidden and visible.get(leg.account, 0) == 0)
                visible[leg.account] = visible.get(leg.account, 0) + (not leg.hidden)
            case Left(leg, last=last):
                assert last == (not leg.hidden and visible[leg.account] == 1)
                visible[leg.account] -= not leg.hidden
            case _:
                pass


@given(plays)
def test_versions_of_a_leg_only_grow(play: Sequence[Command]) -> None:
    _, events = perform(play)
    versions: dict[LegId, int] = {}
    for event in events:
        match event:
            case Joined(leg):
                assert leg.version == 1
                versions[leg.id] = 1
            case (
                Left(leg)
                | LegChanged(leg)
                | TrackPublished(leg)
                | TrackUnpublished(leg)
                | TrackMuted(leg)
            ):
                assert leg.version == versions[leg.id] + 1
                versions[leg.id] = leg.version
            case _:
                pass


@given(plays)
def test_a_track_is_held_exactly_while_a_rule_covers_it(play: Sequence[Command]) -> None:
    stage, events = perform(play)
    gates: dict[object, bool] = {}
    for event in events:
        match event:
            case TrackPublished(track=track):
                gates[track.id] = not track.forced
            case TrackMuted(track=track, gate_open=gate_open):
                gates[track.id] = gate_open
                assert gate_open == (not track.forced)
            case _:
                pass
    state = stage.state
    for leg in state.legs.values():
        for track in leg.tracks:
            assert track.forced == (MuteRule(leg.account, track.kind) in state.mutes)
            assert gates[track.id] == (not track.forced)


@given(plays)
def test_identities_and_tracks_are_unique(play: Sequence[Command]) -> None:
    stage, _ = perform(play)
    legs: list[Leg] = list(stage.legs)
    assert len({leg.identity for leg in legs}) == len(legs)
    tracks = [(track.id, track.leg) for leg in legs for track in leg.tracks]
    assert len({track for track, _ in tracks}) == len(tracks)
    assert all(track.leg == leg.id for leg in legs for track in leg.tracks)
