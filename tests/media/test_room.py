"""The plan: whatever happens in a conference, the worker ends up forwarding exactly what it should."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.conference import commands as c
from bridge.conference.conference import Conference
from bridge.conference.errors import Malformed, Refused
from bridge.conference.events import Joined, TrackPublished
from bridge.conference.ids import Account, LegId, Network, TrackId, TrackKind
from bridge.media.room import Room, Session
from sfu import protocol
from sfu.description import Wish
from tests.conference.plays import ANN, BOB, RECORD, actor, conference, join, plays, publish
from tests.media.worker import EACH, FakeWorker, expect

CAT = Account(Network.WEB, "cat")


class Hall:
    """A conference, its room and a worker, wired without asyncio."""

    def __init__(self) -> None:
        self.conference: Conference = conference()
        self.room = Room(RECORD.id)
        self.worker = FakeWorker()

    def send(self, commands: Sequence[protocol.Command]) -> None:
        for command in commands:
            if isinstance(self.worker.carry_out(command), protocol.Failure):
                self.room.missed(command)

    def open(
        self, leg: str, *, receives: bool = True, follows: bool = False, auto: bool = True
    ) -> None:
        self.worker.carry_out(protocol.Open(leg, RECORD.id, EACH))
        self.send(self.room.opened(Session(leg, LegId(leg), receives, follows, auto)))

    def expect(self, leg: str, track: str) -> None:
        if self.room.publishers.get(TrackId(track), leg) != leg:
            return  # as `WorkerMedia.expect`
        if isinstance(self.worker.carry_out(expect(leg, track)), protocol.Done):
            self.send(self.room.expected(leg, TrackId(track)))

    def do(self, command: c.Command) -> None:
        if isinstance(command, c.Publish):
            self.expect(command.leg, command.track)
        for event in self.conference.apply(command, 0):
            self.send(self.room.apply(event))
            if isinstance(event, Joined):
                self.open(event.leg.id)

    def published(self, leg: str, track: str, kind: TrackKind = TrackKind.AUDIO) -> None:
        self.do(publish(leg, track, kind))


def test_everybody_gets_everybody_elses_tracks_with_labels_that_name_the_leg() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN))
    hall.published("PA_a", "TR_a")
    hall.do(join("PA_b", BOB))
    hall.published("PA_b", "TR_b")
    assert hall.worker.subscriptions == {("PA_b", "TR_a"), ("PA_a", "TR_b")}
    labels = {(s.stream_label, s.track_label) for s in hall.worker.of(protocol.Subscribe)}  # type: ignore[union-attr]
    assert labels == {("PA_a|TR_a", "TR_a"), ("PA_b|TR_b", "TR_b")}


def test_an_explicit_choice_wins_both_ways_and_keeps_its_wish() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN))
    hall.published("PA_a", "TR_a")
    hall.do(join("PA_b", BOB))
    hall.send(hall.room.choose(LegId("PA_b"), TrackId("TR_a"), False))
    assert hall.worker.subscriptions == set()
    hall.send(hall.room.wish(LegId("PA_b"), TrackId("TR_a"), Wish(width=320)))
    assert not hall.worker.of(protocol.Want)
    hall.send(hall.room.choose(LegId("PA_b"), TrackId("TR_a"), True))
    assert hall.worker.commands[-1].wish == Wish(width=320)  # type: ignore[union-attr]
    hall.send(hall.room.wish(LegId("PA_b"), TrackId("TR_a"), Wish(paused=True)))
    assert hall.worker.commands[-1] == protocol.Want("PA_b", "TR_a", Wish(paused=True))


def test_no_auto_subscribe_no_receiving_and_compact_sessions_get_nothing_by_themselves() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN))
    hall.published("PA_a", "TR_a")
    for leg, options in {
        "PA_1": {"auto": False},
        "PA_2": {"receives": False},
        "PA_3": {"follows": True},
    }.items():
        for event in hall.conference.apply(join(leg, CAT), 0):
            hall.send(hall.room.apply(event))
        hall.open(leg, **options)
    assert hall.worker.subscriptions == set()
    hall.send(hall.room.choose(LegId("PA_1"), TrackId("TR_a"), True))
    assert hall.worker.subscriptions == {("PA_1", "TR_a")}


def test_a_track_stays_shut_until_the_conference_let_it_in() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN, can_publish=False))
    hall.expect("PA_a", "TR_a")
    assert not hall.worker.tracks["TR_a"].gate_open


def test_the_gate_of_a_muted_account_never_opens() -> None:
    hall = Hall()
    hall.do(join("PA_b", BOB))
    hall.do(join("PA_a", ANN))
    hall.do(c.Mute(actor(), BOB))
    hall.published("PA_b", "TR_b")
    opened = [g for g in hall.worker.of(protocol.Gate) if g.open]  # type: ignore[union-attr]
    assert not opened
    hall.do(c.Unmute(actor(), BOB))
    assert hall.worker.tracks["TR_b"].gate_open


def test_a_hidden_leg_hears_and_is_not_heard() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN))
    hall.published("PA_a", "TR_a")
    hall.do(join("PA_h", BOB, hidden=True))
    hall.published("PA_h", "TR_h")
    assert hall.worker.subscriptions == {("PA_h", "TR_a")}
    assert not hall.worker.tracks["TR_h"].gate_open


def test_publishing_before_the_announcement_is_made_good() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN))
    hall.do(join("PA_b", BOB))
    (event,) = hall.conference.apply(publish("PA_a", "TR_a"), 0)
    assert isinstance(event, TrackPublished)
    hall.send(hall.room.apply(event))
    assert hall.worker.subscriptions == set()
    hall.expect("PA_a", "TR_a")
    assert hall.worker.subscriptions == {("PA_b", "TR_a")}
    assert hall.worker.tracks["TR_a"].gate_open


def test_whoever_leaves_takes_sessions_and_choices_along() -> None:
    hall = Hall()
    hall.do(join("PA_a", ANN))
    hall.published("PA_a", "TR_a")
    hall.do(join("PA_b", BOB))
    hall.send(hall.room.choose(LegId("PA_b"), TrackId("TR_a"), False))
    hall.do(c.Leave(LegId("PA_a")))
    hall.do(c.Leave(LegId("PA_b")))
    assert hall.room == Room(RECORD.id)
    assert hall.worker.sessions == {}


choices = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 5)), st.booleans(), max_size=4
)


@given(plays, choices)
def test_any_play_ends_with_exactly_the_right_gates_and_subscriptions(
    play: Sequence[c.Command], chosen: dict[tuple[int, int], bool]
) -> None:
    hall = Hall()
    for number, command in enumerate(play):
        if number == len(play) // 2:
            for (leg, track), value in chosen.items():
                if LegId(f"PA_{leg}") in hall.room.legs:
                    hall.send(hall.room.choose(LegId(f"PA_{leg}"), TrackId(f"TR_{track}"), value))
        try:
            hall.do(command)
        except (Refused, Malformed):
            continue
    legs = hall.conference.state.legs
    wanted = {
        (to.id, track.id)
        for to in legs.values()
        for leg in legs.values()
        for track in leg.tracks
        if leg.id != to.id
        and not leg.hidden
        and hall.room.choices.get((to.id, track.id), True)
        and track.id in hall.worker.tracks
    }
    assert hall.worker.subscriptions == wanted
    for publisher in legs.values():
        for held in publisher.tracks:
            if held.id in hall.worker.tracks:
                is_open = hall.worker.tracks[held.id].gate_open
                assert is_open == (not held.forced and not publisher.hidden)
    assert set(hall.worker.sessions) == set(legs)
    assert hall.room.plan_all() == []
