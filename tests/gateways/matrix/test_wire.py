"""Raw events: a value or `Malformed`, never another error."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.conference.errors import Malformed
from bridge.gateways.matrix import wire

BASE: dict[str, Any] = {
    "event_id": "$e",
    "room_id": "!r:hs.test",
    "sender": "@alice:hs.test",
    "origin_server_ts": 5,
    "type": "m.room.message",
    "content": {"msgtype": "m.text", "body": "hello"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)


def event(**changes: Any) -> dict[str, Any]:
    return {**BASE, **changes}


@given(JSON)
def test_anything_is_a_value_or_malformed(value: object) -> None:
    with contextlib.suppress(Malformed):
        wire.parse_event(value)


@given(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["m.room.message", "m.room.member", wire.CALL_MEMBER, "m.room.power_levels", "x"]
            )
        },
        optional={
            key: JSON
            for key in ("event_id", "room_id", "sender", "content", "state_key", "origin_server_ts")
        },
    )
)
def test_broken_fields_are_a_value_or_malformed(changes: dict[str, Any]) -> None:
    with contextlib.suppress(Malformed):
        wire.parse_event({**BASE, "state_key": "@alice:hs.test", **changes})


@given(JSON, JSON)
def test_power_levels_never_fail(content: object, create: object) -> None:
    levels = wire.parse_power_levels(content, create)
    assert isinstance(levels.of("@a:b"), int)
    assert isinstance(levels.needed("x", is_state=True), int)


def test_a_line_of_text() -> None:
    assert wire.parse_event(BASE) == wire.Message("!r:hs.test", "$e", "@alice:hs.test", 5, "hello")


def test_kinds_of_messages() -> None:
    def parse(**content: Any) -> Any:
        return wire.parse_event(event(content={"msgtype": "m.text", "body": "x", **content}))

    assert parse(msgtype="m.emote").is_emote
    assert parse(msgtype="m.notice").is_notice
    assert parse(**{"m.relates_to": {"rel_type": "m.replace", "event_id": "$o"}}).is_edit
    reply = parse(
        body="> <@bob:hs.test> what\n> more\n\nyes",
        **{"m.relates_to": {"m.in_reply_to": {"event_id": "$o"}}},
    )
    assert (reply.is_reply, reply.text) == (True, "yes")
    assert parse(body="> quoted by hand").text == "> quoted by hand"
    assert parse(**{"m.mentions": {"user_ids": ["@bob:hs.test", 5, "nobody"]}}).mentions == (
        "@bob:hs.test",
    )
    assert isinstance(parse(msgtype="m.image"), wire.Other)
    assert isinstance(wire.parse_event(event(content={})), wire.Other)  # redacted
    with pytest.raises(Malformed):
        parse(body="x" * 40_000)


def test_only_the_sender_counts_in_a_call_membership() -> None:
    def parse(sender: str, key: str) -> Any:
        return wire.parse_event(
            event(
                type=wire.CALL_MEMBER,
                sender=sender,
                state_key=key,
                content={"member": {"user_id": "@victim:hs.test"}},
            )
        )

    assert parse("@a:hs.test", "_@a:hs.test_DEV_m.call").sender == "@a:hs.test"
    assert parse("@a:hs.test", "@a:hs.test").state_key == "@a:hs.test"
    for stolen in ("_@victim:hs.test_DEV_m.call", "@victim:hs.test", "", "_@a:hs.testing_D_m.call"):
        with pytest.raises(Malformed):
            parse("@a:hs.test", stolen)


def test_an_avatar_is_an_mxc_address_or_nothing() -> None:
    def avatar(url: object) -> str:
        found = wire.parse_event(
            event(
                type="m.room.member",
                state_key="@a:hs.test",
                content={"membership": "join", "avatar_url": url},
            )
        )
        assert isinstance(found, wire.Member)
        return found.avatar

    assert avatar("mxc://hs.test/abc") == "mxc://hs.test/abc"
    assert avatar("https://tracker.example/x") == ""
    assert avatar(5) == ""


def test_power_levels_follow_the_specification() -> None:
    levels = wire.parse_power_levels(
        {"users": {"@a:b": 100, "@c:d": "50", "@e:f": None}, "users_default": 1, "events": {"x": 7}}
    )
    assert (levels.of("@a:b"), levels.of("@c:d"), levels.of("@e:f")) == (100, 50, 1)
    assert (levels.needed("x", is_state=True), levels.needed("y", is_state=True)) == (7, 50)
    assert levels.needed("y", is_state=False) == 0
    create = {
        "sender": "@creator:b",
        "content": {"room_version": "12", "additional_creators": ["@second:b"]},
    }
    newer = wire.parse_power_levels({}, create)
    assert newer.of("@creator:b") > 100
    assert newer.of("@second:b") > 100
    assert (
        wire.parse_power_levels({}, {**create, "content": {"room_version": "11"}}).of("@creator:b")
        == 0
    )
