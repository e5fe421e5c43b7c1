"""What the worker is told of a conference's policy, and when."""

from dataclasses import replace

from bridge.app.policies import policies
from bridge.conference import commands as c
from bridge.conference.conference import Conference
from bridge.conference.ids import LegId, Role, TrackId
from bridge.conference.ports import Restored
from bridge.conference.steering import parse
from bridge.conference.streams import StreamPolicy
from bridge.config import Config
from bridge.config.models import ConferenceSection, PolicySection
from bridge.media.room import Room, Session
from sfu import protocol
from tests.conference.plays import ANN, BOB, RECORD, actor, join, publish


def test_a_conference_has_its_own_policy_or_everybodys() -> None:
    config = Config(
        policy=PolicySection(loudest=3),
        conferences=(
            ConferenceSection(
                slug=RECORD.slug, policy=PolicySection(last_n=5, audience=("guest",))
            ),
            ConferenceSection(slug="other"),
        ),
    )
    of = policies(config)
    assert of(RECORD) == StreamPolicy(last_n=5, audience=frozenset({Role.GUEST}))
    assert of(replace(RECORD, slug="other")) == StreamPolicy(loudest=3)


def told(commands: list[protocol.Command]) -> list[protocol.Policy]:
    return [command for command in commands if isinstance(command, protocol.Policy)]


def test_without_rules_nothing_is_told() -> None:
    room = Room(RECORD.id)
    assert told(room.opened(Session("PA_a", LegId("PA_a"), receives=True))) == []


def test_rules_follow_the_sessions_and_the_muted() -> None:
    rules = StreamPolicy(last_n=4, audience=frozenset({Role.GUEST}))
    room, conference = Room(RECORD.id, rules=rules), Conference(Restored(RECORD))

    def do(command: c.Command) -> list[protocol.Policy]:
        return told([x for event in conference.apply(command, 0) for x in room.apply(event)])

    do(replace(join("PA_a", ANN), role=Role.MODERATOR))
    do(replace(join("PA_b", BOB), role=Role.GUEST))
    (first,) = told(room.opened(Session("PA_a", LegId("PA_a"), receives=True)))
    assert (first.last_n, first.moderators, first.audience) == (4, ("PA_a",), ())
    (second,) = told(room.opened(Session("PA_b", LegId("PA_b"), receives=True)))
    assert (second.moderators, second.audience) == (("PA_a",), ("PA_b",))
    do(publish("PA_b", "TR_b"))
    assert room.audible(TrackId("TR_b")) is not None
    (third,) = do(c.SetMuted(LegId("PA_b"), TrackId("TR_b"), True))
    assert third.muted == ("TR_b",)
    assert room.audible(TrackId("TR_b")) is None
    assert told(room.plan_all()) == [], "it was told"
    room.ended("PA_a")
    room.ended("PA_b")
    assert told(room.opened(Session("PA_a", LegId("PA_a"), receives=True))), "a new group"


def test_what_moderators_choose_is_told_at_once() -> None:
    room, conference = Room(RECORD.id), Conference(Restored(RECORD))
    conference.apply(join("PA_a", ANN), 0)
    room.opened(Session("PA_a", LegId("PA_a"), receives=True))
    (ruled,) = conference.apply(parse(actor(), "last-n 5"), 0)
    room.rules = conference.record.streams.over(StreamPolicy(loudest=3))
    (policy,) = told(room.apply(ruled))
    assert (policy.last_n, policy.loudest) == (5, 3)
