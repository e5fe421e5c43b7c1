"""Who is told that a call is only partly encrypted end to end."""

from dataclasses import replace

from bridge.conference.events import Leg
from bridge.conference.ids import ConferenceId
from bridge.conference.secrecy import Divisions, divided
from tests.conference.plays import ANN, BOB, conference, join, publish

CALL = ConferenceId("c1")


def scene(*, ann: bool, bob: bool) -> list[Leg]:
    """Two people who send; True: they encrypt."""
    one = conference()
    one.apply(join("PA_1", ANN), 0)
    one.apply(join("PA_2", BOB), 0)
    one.apply(replace(publish("PA_1", "TR_1"), encrypted=ann), 0)
    one.apply(replace(publish("PA_2", "TR_2"), encrypted=bob), 0)
    return list(one.legs)


def test_only_a_mixture_is_news() -> None:
    assert divided(scene(ann=True, bob=True)) == ""
    assert divided(scene(ann=False, bob=False)) == ""
    legs = scene(ann=True, bob=False)
    sentence = divided(legs)
    assert f"Encrypted: {legs[0].name}." in sentence
    assert f"Not encrypted: {legs[1].name}." in sentence
    assert divided(legs[:1]) == ""
    assert divided([legs[0], replace(legs[1], tracks=())]) == "", "who sends nothing is no matter"
    assert divided([legs[0], replace(legs[1], hidden=True)]) == ""


def test_it_is_said_once_until_it_is_over() -> None:
    divisions = Divisions()
    mixed, whole = scene(ann=True, bob=False), scene(ann=True, bob=True)
    assert divisions.news(CALL, mixed)
    assert divisions.news(CALL, mixed) == ""
    assert divisions.news(CALL, whole) == ""
    assert divisions.news(CALL, mixed)


def test_many_names_are_cut() -> None:
    encrypted, plain = scene(ann=True, bob=False)
    crowd = [replace(plain, name=f"P{n}") for n in range(8)]
    assert "P0, P1, P2, P3, P4 and 3 more." in divided([encrypted, *crowd])
