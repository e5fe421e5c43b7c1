"""Role by command by situation, generated from the vocabulary: nothing can be forgotten (S26)."""

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.conference import commands as c
from bridge.conference.conference import Conference
from bridge.conference.errors import Refused
from bridge.conference.ids import Account, Actor, LegId, Network, Role, TrackKind
from bridge.conference.policy import TABLE, Verdict, authorize, verdict
from bridge.conference.state import State
from tests.conference.plays import ANN, BOB, MUC, ROOM, actor, conference, join

COMMANDS: tuple[type[c.Command], ...] = get_args(c.Command)
DAN = Account(Network.MATRIX, "@dan:a.example")

# Written out by hand, apart from the table: who may, towards whom (None = not in the call).
TARGETED = (c.Mute, c.Unmute, c.Remove)


def expected(command: type[c.Command], role: Role, target: Role | None, *, inside: bool) -> bool:
    if command in TARGETED:
        if role is Role.OWNER:
            return True
        return role is Role.MODERATOR and target in (Role.GUEST, Role.MEMBER)
    if command is c.Say:
        return role is not Role.GUEST or inside
    if command in (c.Bind, c.Unbind, c.RuleStreams, c.End):
        return role >= Role.MODERATOR
    return True


def make(command: type[c.Command], by: Actor) -> c.Command:
    if command is c.Say:
        return c.Say(by, "hi", "$1", "matrix", ROOM)
    if command in (c.Bind, c.Unbind):
        return command(by, MUC)
    if command is c.RuleStreams:
        return c.RuleStreams(by, None, None)
    if command is c.End:
        return c.End(by)
    return command(by, BOB)  # type: ignore[call-arg, arg-type]


def stage(role: Role, target: Role | None, *, inside: bool) -> Conference:
    scene = conference()
    if target is not None:
        scene.apply(join("PA_b", BOB, role=target), 0)
    if inside:
        scene.apply(join("PA_a", ANN, role=role), 0)
    return scene


def allowed(state: State, command: c.Command) -> bool:
    try:
        authorize(state, command)
    except Refused as why:
        return not str(why).endswith(".")  # a sentence for a person, or the test sees a wrong "yes"
    return True


def test_the_table_knows_every_command_and_role() -> None:
    assert set(TABLE) == set(COMMANDS)
    assert all(len(row) == len(Role) for row in TABLE.values())


@pytest.mark.parametrize("command", [k for k in COMMANDS if "by" in k.__dataclass_fields__])
def test_every_role_in_every_situation(command: type[c.Command]) -> None:
    for role, target, inside in product(Role, (None, *Role), (True, False)):
        state = stage(role, target, inside=inside).state
        got = allowed(state, make(command, Actor(ANN, role)))
        assert got == expected(command, role, target, inside=inside), (role, target, inside)


@given(st.sampled_from(COMMANDS), st.sampled_from(Role), st.sampled_from(Role))
def test_a_higher_role_never_loses_a_right(command: type[c.Command], one: Role, two: Role) -> None:
    low, high = sorted((one, two))
    assert verdict(command, low).value <= verdict(command, high).value


@given(
    st.sampled_from([k for k in COMMANDS if "by" in k.__dataclass_fields__]),
    st.sampled_from(Role),
    st.sampled_from(Role),
    st.sampled_from([None, *Role]),
    st.booleans(),
)
def test_adding_a_right_never_removes_one(
    command: type[c.Command], one: Role, two: Role, target: Role | None, inside: bool
) -> None:
    low, high = sorted((one, two))
    state = stage(low, target, inside=inside).state
    if allowed(state, make(command, Actor(ANN, low))):
        assert allowed(state, make(command, Actor(ANN, high)))


def test_own_affairs_need_no_rank() -> None:
    own = [k for k in COMMANDS if "by" not in k.__dataclass_fields__]
    assert all(verdict(command, role) is Verdict.ALWAYS for command in own for role in Role)


def test_a_moderator_cannot_lift_what_an_owner_ruled_about_himself() -> None:
    scene = conference()
    scene.apply(join("PA_m", BOB, role=Role.MODERATOR), 0)
    scene.apply(c.Mute(actor(ANN, Role.OWNER), BOB, TrackKind.AUDIO), 0)
    with pytest.raises(Refused):
        scene.apply(c.Unmute(actor(BOB, Role.MODERATOR), BOB), 0)
    scene.apply(c.Leave(LegId("PA_m")), 0)
    with pytest.raises(Refused):
        scene.apply(c.Unmute(actor(BOB, Role.MODERATOR), BOB), 0)


def test_the_highest_leg_of_a_person_counts() -> None:
    scene = conference()
    scene.apply(join("PA_1", BOB, role=Role.MEMBER), 0)
    scene.apply(join("PA_2", BOB, role=Role.OWNER), 0)
    with pytest.raises(Refused, match="owner"):
        scene.apply(c.Remove(actor(DAN, Role.MODERATOR), BOB), 0)
