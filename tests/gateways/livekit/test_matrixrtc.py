"""The MatrixRTC authorization service (MSC4195): who gets a token for which room, under which identity."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from bridge.conference.ids import Account, Network, Place, Role
from bridge.gateway import Membership
from bridge.gateways.livekit import conferences
from tests.gateways.livekit.rig import Rig

ROOM = "!room:hs.test"
ALICE = "@alice:hs.test"
LEGACY_ALIAS = conferences.room_alias(ROOM, "m.call#ROOM")


def _openid(user: str = "alice", server: str = "hs.test") -> dict[str, Any]:
    return {
        "access_token": f"good-{user}",
        "token_type": "Bearer",
        "matrix_server_name": server,
        "expires_in": 3600,
    }


def _legacy(**how: Any) -> dict[str, Any]:
    return {"room": ROOM, "openid_token": _openid(), "device_id": "DEVICE"} | how


def _current(**how: Any) -> dict[str, Any]:
    member = {"id": "mem", "claimed_user_id": ALICE, "claimed_device_id": "DEVICE"}
    base = {"room_id": ROOM, "slot_id": "m.call#ROOM", "openid_token": _openid(), "member": member}
    return base | how


async def _post(rig: Rig, path: str, body: Any) -> tuple[int, Any]:
    assert rig.session is not None
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with rig.session.post(rig.url + path, data=data) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        return answer.status, await answer.json()


def _payload(jwt: str) -> dict[str, Any]:
    """As Element Call reads it: plain base64, which knows neither `-` nor `_`."""
    middle = jwt.split(".")[1]
    raw = base64.b64decode(middle + "=" * (-len(middle) % 4), validate=True)
    payload: dict[str, Any] = json.loads(raw)
    return payload


def test_the_vectors_of_msc4195() -> None:
    assert (
        conferences.room_alias("!roomid:example.com", "slot1234")
        == "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"
    )
    assert (
        conferences.rtc_identity("@alice:example.com", "DEVICE123", "memberABC")
        == "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU"
    )


async def test_the_legacy_form(rig: Rig) -> None:
    status, body = await _post(rig, "/sfu/get", _legacy(delay_id="x", unknown={"field": 1}))
    assert status == 200
    assert body["url"] == "ws://parley.test"
    payload = _payload(body["jwt"])
    assert payload["sub"] == f"{ALICE}:DEVICE"
    assert payload["video"]["room"] == LEGACY_ALIAS
    assert payload["video"]["roomJoin"] is True
    assert payload["video"]["roomCreate"] is False
    assert payload["exp"] - payload["nbf"] == 3600
    assert payload["name"] == f"Name of {ALICE} ~ Who? >"
    assert [(r.room, r.auto) for r in rig.directory.records] == [(LEGACY_ALIAS, True)]


async def test_the_hashed_form_names_the_same_room(rig: Rig) -> None:
    status, body = await _post(rig, "/get_token", _current())
    assert status == 200
    payload = _payload(body["jwt"])
    assert payload["sub"] == conferences.rtc_identity(ALICE, "DEVICE", "mem")
    assert payload["video"]["room"] == LEGACY_ALIAS
    claims = rig.gateway.tokens.verify(body["jwt"])
    assert claims.acts_as == Account(Network.MATRIX, ALICE)
    assert claims.ranks_as is Role.MEMBER


async def test_another_slot_is_another_call(rig: Rig) -> None:
    _, body = await _post(rig, "/get_token", _current(slot_id="m.call#OTHER"))
    assert _payload(body["jwt"])["video"]["room"] == conferences.room_alias(ROOM, "m.call#OTHER")


async def _bind(rig: Rig) -> None:
    record = await rig.directory.create(room="demo-room", slug="demo")
    rig.directory.records[0] = replace(record, places=(Place(Network.MATRIX, ROOM),))


async def test_a_bound_room_is_its_conference(rig: Rig) -> None:
    await _bind(rig)
    rig.proof.memberships[ROOM, ALICE] = Membership.JOINED
    for path, form in (("/sfu/get", _legacy()), ("/get_token", _current())):
        _, body = await _post(rig, path, form)
        assert _payload(body["jwt"])["video"]["room"] == "demo-room"
    assert len(rig.directory.records) == 1


@pytest.mark.parametrize("membership", [Membership.ABSENT, Membership.UNKNOWN])
async def test_a_bound_room_is_for_its_members(rig: Rig, membership: Membership) -> None:
    await _bind(rig)
    rig.proof.memberships[ROOM, ALICE] = membership
    status, body = await _post(rig, "/sfu/get", _legacy())
    assert (status, body["errcode"]) == (403, "M_FORBIDDEN")


async def test_where_the_bot_is_strangers_get_nothing(rig: Rig) -> None:
    rig.proof.memberships[ROOM, ALICE] = Membership.ABSENT
    status, body = await _post(rig, "/get_token", _current())
    assert (status, body["errcode"]) == (403, "M_FORBIDDEN")
    assert rig.directory.records == []


async def test_a_homeserver_that_is_not_allowed(rig: Rig) -> None:
    rig.proof.servers = {"elsewhere.test"}
    status, body = await _post(rig, "/sfu/get", _legacy())
    assert (status, body["errcode"]) == (403, "M_FORBIDDEN")


async def test_a_token_that_is_not_believed_or_of_somebody_else(rig: Rig) -> None:
    bad = _legacy(openid_token=_openid() | {"access_token": "bad"})
    status, body = await _post(rig, "/sfu/get", bad)
    assert (status, body["errcode"]) == (401, "M_UNAUTHORIZED")
    member = {"id": "m", "claimed_user_id": "@admin:hs.test", "claimed_device_id": "D"}
    status, body = await _post(rig, "/get_token", _current(member=member))
    assert (status, body["errcode"]) == (401, "M_UNAUTHORIZED")


async def test_guessing_openid_tokens_is_slowed_down(rig: Rig) -> None:
    bad = _legacy(openid_token=_openid() | {"access_token": "bad"})
    answers = [await _post(rig, "/sfu/get", bad) for _ in range(14)]
    assert [status for status, _ in answers[:10]] == [401] * 10
    limited = [body for status, body in answers if status == 429]
    assert limited
    assert limited[0]["errcode"] == "M_LIMIT_EXCEEDED"
    assert limited[0]["retry_after_ms"] > 0


async def test_without_a_matrix_gateway_nobody_can_be_proven(rig: Rig) -> None:
    rig.gateway._context.proof = None
    status, body = await _post(rig, "/sfu/get", _legacy())
    assert (status, body["errcode"]) == (503, "M_LOOKUP_FAILED")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 60_000,
        b"\xff",
        b" " * 70_000 + b"{}",
        {"room": ROOM},
        _legacy(room="#alias:hs.test"),
        _legacy(room=["!x"]),
        _legacy(room="!" + "x" * 600),
        _legacy(room="!a\nb:hs.test"),
        _legacy(device_id=""),
        _legacy(device_id=5),
        _legacy(openid_token="x"),
        _legacy(openid_token=_openid() | {"access_token": "x" * 5000}),
        _legacy(openid_token=_openid() | {"matrix_server_name": ""}),
    ],
    ids=range(16),
)
async def test_a_bad_body_is_said_in_matrix_words(rig: Rig, body: Any) -> None:
    status, answer = await _post(rig, "/sfu/get", body)
    assert (status, answer["errcode"]) == (400, "M_BAD_JSON")
    assert rig.directory.records == []


@pytest.mark.parametrize(
    "path",
    [
        "/delegate_delayed_leave",
        "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave",
    ],
)
async def test_delegation_is_denied_with_cors(rig: Rig, path: str) -> None:
    """Any other answer would make Element Call rely on us for an hour (fact sheet section 1.3)."""
    status, body = await _post(rig, path, b"")
    assert (status, body["errcode"]) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize("path", ["/sfu/get", "/get_token", "/delegate_delayed_leave"])
async def test_preflights(rig: Rig, path: str) -> None:
    assert rig.session is not None
    async with rig.session.options(rig.url + path) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Methods"] == "POST"
        assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]
