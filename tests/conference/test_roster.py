"""Joining, replacing, publishing, leaving."""

import pytest

from bridge.conference import commands as c
from bridge.conference.errors import IllegalTransition, Malformed, Refused
from bridge.conference.events import Ended, Joined, Left, LegChanged, TrackPublished
from bridge.conference.ids import LeaveReason, LegId, LegState, TrackId
from bridge.conference.roster import MAX_LEGS_PER_ACCOUNT, MAX_TRACKS
from tests.conference.plays import ANN, BOB, GUEST, actor, conference, join, publish


def test_the_same_identity_replaces_the_older_leg() -> None:
    scene = conference()
    scene.apply(join("PA_1", identity="@ann:D"), 1)
    left, joined = scene.apply(join("PA_2", identity="@ann:D"), 2)
    assert isinstance(left, Left)
    assert (left.leg.id, left.reason, left.last) == ("PA_1", LeaveReason.REPLACED, True)
    assert isinstance(joined, Joined)
    assert joined.first
    assert joined.leg.joined_ms == 2
    assert [leg.id for leg in scene.legs] == ["PA_2"]


def test_an_identity_is_not_taken_over_by_another_account() -> None:
    scene = conference()
    scene.apply(join("PA_1", ANN, identity="@ann:D"), 0)
    with pytest.raises(Refused):
        scene.apply(join("PA_2", GUEST, identity="@ann:D"), 0)


def test_a_repeated_join_changes_nothing_and_a_stolen_leg_is_refused() -> None:
    scene = conference()
    scene.apply(join("PA_1", ANN, identity="x"), 0)
    assert scene.apply(join("PA_1", ANN, identity="x"), 5) == ()
    with pytest.raises(Refused):
        scene.apply(join("PA_1", BOB, identity="y"), 0)


def test_first_and_last_speak_of_the_person() -> None:
    scene = conference()
    (phone,) = scene.apply(join("PA_1"), 0)
    (laptop,) = scene.apply(join("PA_2"), 0)
    assert isinstance(phone, Joined)
    assert isinstance(laptop, Joined)
    assert (phone.first, laptop.first) == (True, False)
    lasts = [e.last for leg in ("PA_1", "PA_2") for e in scene.apply(c.Leave(LegId(leg)), 0)]  # type: ignore[union-attr]
    assert lasts == [False, True]


def test_leaving_twice_is_harmless() -> None:
    assert conference().apply(c.Leave(LegId("PA_9")), 0) == ()


def test_join_needs_an_identity_from_the_focus() -> None:
    command = c.Join(LegId("a"), "xmpp", BOB, "Bob", role=join().role, receives=join().receives)
    with pytest.raises(IllegalTransition):
        conference().apply(command, 0)


def test_devices_of_one_person_are_capped_but_replacing_always_works() -> None:
    scene = conference()
    for n in range(MAX_LEGS_PER_ACCOUNT):
        scene.apply(join(f"PA_{n}", identity=f"id{n}"), 0)
    with pytest.raises(Refused, match="devices"):
        scene.apply(join("PA_x", identity="new"), 0)
    assert len(scene.apply(join("PA_x", identity="id0"), 0)) == 2


def test_tracks_are_capped_unique_and_need_the_grant() -> None:
    scene = conference()
    scene.apply(join("PA_1"), 0)
    scene.apply(join("PA_2", BOB, can_publish=False), 0)
    for n in range(MAX_TRACKS):
        (event,) = scene.apply(publish("PA_1", f"TR_{n}"), 0)
        assert isinstance(event, TrackPublished)
        assert event.track in event.leg.tracks
    with pytest.raises(Refused):
        scene.apply(publish("PA_1", "TR_one_more"), 0)
    with pytest.raises(Malformed):
        scene.apply(publish("PA_1", "TR_0"), 0)
    with pytest.raises(Refused):
        scene.apply(publish("PA_2", "TR_b"), 0)
    with pytest.raises(Refused):
        scene.apply(publish("PA_gone", "TR_c"), 0)
    scene.apply(c.Unpublish(LegId("PA_1"), TrackId("TR_0")), 0)
    assert scene.apply(c.Unpublish(LegId("PA_1"), TrackId("TR_0")), 0) == ()
    scene.apply(publish("PA_1", "TR_0"), 0)


def test_the_transport_comes_and_goes_but_never_begins_again() -> None:
    scene = conference()
    scene.apply(join("PA_1"), 0)
    for state in (LegState.ACTIVE, LegState.LOST, LegState.ACTIVE):
        (event,) = scene.apply(c.SetLegState(LegId("PA_1"), state), 0)
        assert isinstance(event, LegChanged)
        assert event.leg.state is state
    assert scene.apply(c.SetLegState(LegId("PA_1"), LegState.ACTIVE), 0) == ()
    with pytest.raises(IllegalTransition):
        scene.apply(c.SetLegState(LegId("PA_1"), LegState.JOINING), 0)


def test_remove_takes_every_device_and_end_everybody() -> None:
    scene = conference()
    scene.apply(join("PA_1", BOB), 0)
    scene.apply(join("PA_2", BOB), 0)
    scene.apply(join("PA_3", ANN), 0)
    events = scene.apply(c.Remove(actor(), BOB), 0)
    assert [(e.leg.id, e.reason, e.last) for e in events if isinstance(e, Left)] == [
        ("PA_1", LeaveReason.REMOVED, False),
        ("PA_2", LeaveReason.REMOVED, True),
    ]
    with pytest.raises(Refused):
        scene.apply(c.Remove(actor(), BOB), 0)
    left, ended = scene.apply(c.End(actor()), 0)
    assert isinstance(left, Left)
    assert left.reason is LeaveReason.ENDED
    assert ended == Ended(actor())
    assert not scene.legs


def test_a_rename_reaches_every_device_and_is_cleaned() -> None:
    scene = conference()
    scene.apply(join("PA_1"), 0)
    scene.apply(join("PA_2"), 0)
    events = scene.apply(c.Rename(ANN, "\u202eAnna\u200b"), 0)
    assert [e.leg.name for e in events if isinstance(e, LegChanged)] == ["Anna", "Anna"]
    assert scene.apply(c.Rename(ANN, "Anna"), 0) == ()
