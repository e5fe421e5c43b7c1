"""Moderators steer what of a call is forwarded: words, bounds, and what is told of it."""

import pytest

from bridge.conference import commands as c
from bridge.conference.errors import Refused
from bridge.conference.events import StreamsRuled
from bridge.conference.ids import Role
from bridge.conference.steering import describe, news, parse
from bridge.conference.streams import (
    AS_CONFIGURED,
    AUDIENCE,
    StreamChoice,
    StreamPolicy,
    StreamRule,
)
from tests.conference.plays import BOB, actor, conference

CONFIGURED = StreamPolicy(last_n=9, quiet_video_s=60, loudest=3, audience=frozenset({Role.GUEST}))


@pytest.mark.parametrize(
    ("words", "rule", "value"),
    [
        ("last-n 5", StreamRule.LAST_N, 5),
        ("  LAST-N   0 ", StreamRule.LAST_N, 0),
        ("quiet-video 20", StreamRule.QUIET_VIDEO, 20),
        ("quiet-video off", StreamRule.QUIET_VIDEO, 0),
        ("audience on", StreamRule.AUDIENCE, 1),
        ("audience OFF", StreamRule.AUDIENCE, 0),
        ("loudest default", StreamRule.LOUDEST, None),
        ("default", None, None),
    ],
)
def test_words(words: str, rule: StreamRule | None, value: int | None) -> None:
    by = actor()
    assert parse(by, words) == c.RuleStreams(by, rule, value)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("", "last-n, quiet-video, audience, loudest"),
        ("fast 3", "last-n, quiet-video, audience, loudest"),
        ("default please", "last-n, quiet-video"),
        ("last-n", "a number from 0 (off) to 1000 or default. For example: last-n 5"),
        ("last-n -1", "a number from 0 (off)"),
        ("last-n on", "a number from 0 (off)"),
        ("last-n ٣", "a number from 0 (off)"),
        ("last-n 99999999999999999999", "a number from 0 (off)"),
        ("quiet-video 1.5", "to 86400"),
        ("audience 1", "audience takes on, off or default. For example: audience on"),
    ],
)
def test_what_is_not_understood_is_explained(words: str, answer: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(actor(), words)
    assert answer in str(refused.value)


@pytest.mark.parametrize(("words"), ["last-n 1001", "quiet-video 86401", "loudest 17"])
def test_numbers_out_of_bounds_are_refused(words: str) -> None:
    with pytest.raises(Refused, match=r"a number from 0 \(off\) to"):
        conference().apply(parse(actor(), words), 0)


def test_choices_add_up_and_go_back() -> None:
    scene = conference()

    def say(words: str) -> StreamPolicy:
        scene.apply(parse(actor(), words), 0)
        return scene.record.streams.over(CONFIGURED)

    assert say("last-n 5") == StreamPolicy(5, 60, 3, frozenset({Role.GUEST}))
    assert say("audience on").audience == AUDIENCE
    assert say("loudest off").loudest == 0
    assert say("quiet-video 20") == StreamPolicy(5, 20, 0, AUDIENCE)
    assert say("audience off").audience == frozenset()
    assert say("last-n default").last_n == 9
    assert scene.record.streams == StreamChoice(None, 20, 0, False)
    assert say("default") == CONFIGURED
    assert scene.record.streams == AS_CONFIGURED


def test_what_is_so_already_is_no_news() -> None:
    scene = conference()
    assert scene.apply(parse(actor(), "default"), 0) == ()
    (event,) = scene.apply(parse(actor(), "last-n 5"), 0)
    assert event == StreamsRuled(StreamChoice(last_n=5), StreamRule.LAST_N, 5, actor())
    assert scene.apply(parse(actor(), "last-n 5"), 0) == ()


def test_members_change_nothing() -> None:
    scene = conference()
    with pytest.raises(Refused, match="Only a moderator"):
        scene.apply(parse(actor(BOB, Role.MEMBER), "last-n 5"), 0)
    assert scene.record.streams == AS_CONFIGURED


def test_what_is_told() -> None:
    choice = StreamChoice(last_n=5, audience=True)
    assert describe(choice, CONFIGURED).splitlines() == [
        "last-n: everybody receives 5 pictures at most, the latest speakers first (chosen here).",
        "quiet-video: a picture is held back after 60 s of silence (as configured).",
        "audience: of guests and members pictures are forwarded only while they speak (chosen here).",
        "loudest: the 3 loudest are heard (as configured).",
    ]
    assert "everybody is heard (as configured)" in describe(AS_CONFIGURED, StreamPolicy())

    def told(words: str) -> str:
        scene = conference()
        scene.apply(parse(actor(), "loudest 2"), 0)
        (event,) = scene.apply(parse(actor(), words), 0)
        assert isinstance(event, StreamsRuled)
        return news(event, CONFIGURED)

    assert told("last-n off") == "changed the call's policy: everybody receives all pictures."
    assert told("loudest default") == (
        "changed the call's policy: the 3 loudest are heard (as configured)."
    )
    assert told("default") == "put the call's policy back to what is configured."
