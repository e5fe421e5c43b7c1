"""Force-mutes hold; own mutes are the publisher's."""

import pytest

from bridge.conference import commands as c
from bridge.conference.errors import Refused
from bridge.conference.events import MuteRuled, TrackMuted, TrackPublished
from bridge.conference.ids import LegId, TrackId, TrackKind
from tests.conference.plays import BOB, actor, conference, join, publish


def test_a_force_mute_closes_the_gates_of_that_kind() -> None:
    scene = conference()
    scene.apply(join("PA_1", BOB), 0)
    scene.apply(publish("PA_1", "TR_mic"), 0)
    scene.apply(publish("PA_1", "TR_cam", TrackKind.VIDEO), 0)
    ruled, muted = scene.apply(c.Mute(actor(), BOB), 0)
    assert ruled == MuteRuled(BOB, TrackKind.AUDIO, True, actor())
    assert isinstance(muted, TrackMuted)
    assert (muted.track.id, muted.track.forced, muted.gate_open) == ("TR_mic", True, False)
    assert muted.by == actor()
    assert scene.apply(c.Mute(actor(), BOB), 0) == ()


def test_it_survives_leaving_and_joining_again() -> None:
    scene = conference()
    scene.apply(join("PA_1", BOB), 0)
    scene.apply(c.Mute(actor(), BOB, None), 0)
    scene.apply(c.Leave(LegId("PA_1")), 0)
    scene.apply(join("PA_2", BOB), 0)
    for kind in TrackKind:
        (event,) = scene.apply(publish("PA_2", f"TR_{kind}", kind), 0)
        assert isinstance(event, TrackPublished)
        assert event.track.forced


def test_only_the_ruling_kind_is_lifted_and_the_gate_opens() -> None:
    scene = conference()
    scene.apply(join("PA_1", BOB), 0)
    scene.apply(publish("PA_1", "TR_mic"), 0)
    scene.apply(c.Mute(actor(), BOB, None), 0)
    with pytest.raises(Refused, match="moderator"):
        scene.apply(c.SetMuted(LegId("PA_1"), TrackId("TR_mic"), False), 0)
    ruled, muted = scene.apply(c.Unmute(actor(), BOB, TrackKind.AUDIO), 0)
    assert ruled == MuteRuled(BOB, TrackKind.AUDIO, False, actor())
    assert isinstance(muted, TrackMuted)
    assert muted.gate_open
    assert scene.state.is_forced(BOB, TrackKind.VIDEO)


def test_an_own_mute_leaves_the_gate_open() -> None:
    scene = conference()
    scene.apply(join("PA_1", BOB), 0)
    scene.apply(publish("PA_1", "TR_mic"), 0)
    (event,) = scene.apply(c.SetMuted(LegId("PA_1"), TrackId("TR_mic"), True), 0)
    assert isinstance(event, TrackMuted)
    assert (event.track.muted, event.gate_open, event.by) == (True, True, None)
    assert scene.apply(c.SetMuted(LegId("PA_1"), TrackId("TR_mic"), True), 0) == ()
    assert scene.apply(c.SetMuted(LegId("PA_1"), TrackId("TR_gone"), True), 0) == ()
