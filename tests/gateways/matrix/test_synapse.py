"""The gateway against a real Synapse: what the fake homeserver cannot prove.

Not here: the whole of parley (tests/scenarios).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.conference.commands import Bind, Leave
from bridge.conference.errors import Refused
from bridge.conference.events import Left
from bridge.conference.ids import Account, Actor, Network, Place, Role
from bridge.gateway import Membership, OpenIdToken
from bridge.gateways.matrix.door import MatrixGateway
from bridge.gateways.matrix.names import room_alias
from tests.gateways.matrix.rig import Rig, rig, until
from tests.peers import synapse
from tests.peers.synapse import Synapse, User, free_port

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(bool(synapse.why_not()), reason=synapse.why_not()),
    pytest.mark.timeout(120),
]

BOB = Actor(Account(Network.XMPP, "bob@example.org"), Role.MEMBER, "Bob")
GHOST = "@_parley_xmpp_bob=40example.org:hs.test"


@contextlib.asynccontextmanager
async def together(**options: Any) -> AsyncIterator[tuple[Synapse, Rig]]:
    """Synapse and the gateway, registered with each other."""
    port = free_port()
    async with (
        Synapse(appservice_url=f"http://127.0.0.1:{port}") as server,
        rig(
            server.url,
            as_token=server.as_token,
            hs_token=server.hs_token,
            internal_port=port,
            **options,
        ) as here,
    ):
        await until(lambda: here.gateway.status() == "connected", "no ping came through")
        yield server, here


async def room_with_bot(server: Synapse, owner: User, **options: Any) -> str:
    room = await owner.create_room(invite=(server.bot_mxid,), **options)
    await eventually(lambda: is_joined(owner, room, server.bot_mxid), "the bot did not come")
    return room


async def is_joined(user: User, room: str, mxid: str) -> bool:
    return any(
        e["type"] == "m.room.member"
        and e["state_key"] == mxid
        and e["content"].get("membership") == "join"
        for e in await user.state(room)
    )


async def eventually(claim: Any, what: str, wait_s: float = 15.0) -> Any:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if found := await claim():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(what)


async def notices(user: User, room: str) -> list[str]:
    return [
        e["content"]["body"]
        for e in await user.history(room)
        if e["type"] == "m.room.message" and e["content"].get("msgtype") == "m.notice"
    ]


async def answer(user: User, room: str, line: str) -> str:
    """Say a command and wait for the one notice that follows."""
    before = len(await notices(user, room))
    await user.say(room, line)

    async def newer() -> list[str]:
        return (await notices(user, room))[before:]

    found: list[str] = await eventually(newer, f"no answer to {line}")
    return found[0]


async def test_text_crosses_both_ways_exactly_once() -> None:
    async with together() as (server, here):
        alice = await server.register("alice", display_name="Alice")
        room = await room_with_bot(server, alice, public=False)
        record = await here.conference(Place(Network.MATRIX, room))

        event = await alice.say(room, "hello from Matrix")
        await until(lambda: bool(here.said), "the line did not reach the conference")
        said = here.said[0]
        assert (said.text, said.source_id, said.by.name) == ("hello from Matrix", event, "Alice")
        assert said.by.role is Role.OWNER

        first = await here.deliver(record, room, BOB, "hello from XMPP", key="line-1")
        again = await here.deliver(record, room, BOB, "hello from XMPP", key="line-1", attempts=1)
        assert first == again
        lines = [
            (e["sender"], e["content"]["body"])
            for e in await alice.history(room)
            if e["type"] == "m.room.message"
        ]
        assert lines == [(alice.mxid, "hello from Matrix"), (GHOST, "hello from XMPP")]
        names = {
            e["state_key"]: e["content"].get("displayname")
            for e in await alice.state(room)
            if e["type"] == "m.room.member"
        }
        assert names[GHOST] == "Bob"
        await until(lambda: here.inbox.is_idle)
        assert len(here.said) == 1, "the ghost's own line came back"


async def test_a_line_is_not_doubled_after_the_homeserver_forgot_the_transaction() -> None:
    async with together() as (server, here):
        alice = await server.register("alice")
        room = await room_with_bot(server, alice)
        record = await here.conference(Place(Network.MATRIX, room))
        first = await here.deliver(record, room, BOB, "once", key="line-1")
        await server.restart()
        assert await here.deliver(record, room, BOB, "once", key="line-1", attempts=1) == first
        bodies = [e["content"].get("body") for e in await alice.history(room)]
        assert bodies.count("once") == 1


async def test_a_ghost_is_in_the_call_and_leaves_it() -> None:
    async with together() as (server, here):
        alice = await server.register("alice")
        room = await room_with_bot(server, alice, public=False)
        record = await here.conference(Place(Network.MATRIX, room))
        leg = await here.joins(record, "bob@example.org", "Bob")
        identity = here.registry.view(record.id)[0].identity

        members = await eventually(lambda: alice.call_members(room), "no membership")
        ((state_key, content),) = members.items()
        ghost, _, device = identity.rpartition(":")
        assert ghost == GHOST
        assert state_key == f"_{GHOST}_{device}_m.call"
        assert content["membershipID"] == identity
        assert content["foci_preferred"] == [
            {"type": "livekit", "livekit_service_url": "http://localhost:8480"}
        ]
        (seat,) = here.gateway._memberships.seats()
        await until(lambda: seat.published_s is not None)
        assert seat.delay_id, "no delayed leave was scheduled"

        began = time.monotonic()
        await here.submit(record, Leave(leg))
        await eventually(lambda: gone(alice, room), "the ghost stayed")
        assert time.monotonic() - began < 2
        await until(lambda: not here.gateway._memberships.seats())
        assert not await here.store.items("matrix", "membership:")


async def gone(user: User, room: str) -> bool:
    return not await user.call_members(room)


def quick(gateway: MatrixGateway) -> None:
    """Restarts every 0.5 s against a leave after 1.5 s."""
    gateway._memberships._restart_s = 0.5
    gateway._memberships._leave_delay_ms = 1_500


async def test_the_delayed_leave_is_kept_from_firing_and_fires_when_nobody_does() -> None:
    async with together(prepare=quick) as (server, here):
        alice = await server.register("alice")
        room = await room_with_bot(server, alice)
        record = await here.conference(Place(Network.MATRIX, room))
        await here.joins(record, "bob@example.org", "Bob")
        await eventually(lambda: alice.call_members(room), "no membership")
        for _ in range(15):
            await asyncio.sleep(0.2)
            assert await alice.call_members(room), "the leave fired although we restarted it"

        (seat,) = here.gateway._memberships.seats()
        delay_id, seat.delay_id = seat.delay_id, ""  # as if parley had died: nobody restarts it
        assert delay_id
        await eventually(lambda: gone(alice, room), "the delayed leave never fired")
        # Our own eyes see that leave in a transaction, and the leg still lives: published again.
        await eventually(lambda: alice.call_members(room), "not published again")


async def test_a_homeserver_outage_longer_than_the_delay_heals() -> None:
    async with together(prepare=quick) as (server, here):
        alice = await server.register("alice")
        room = await room_with_bot(server, alice)
        record = await here.conference(Place(Network.MATRIX, room))
        await here.joins(record, "bob@example.org", "Bob")
        await eventually(lambda: alice.call_members(room), "no membership")
        await server.stop()
        await asyncio.sleep(2.0)
        await server.start()

        async def stands() -> bool:
            for _ in range(8):
                if not await alice.call_members(room):
                    return False
                await asyncio.sleep(0.2)
            return True

        await eventually(stands, "the membership did not come back to stay", 30)


async def test_without_delayed_events_the_state_is_plain_and_a_start_cleans_up() -> None:
    port = free_port()
    async with Synapse(appservice_url=f"http://127.0.0.1:{port}", delayed_events=False) as server:
        options: dict[str, Any] = {
            "as_token": server.as_token,
            "hs_token": server.hs_token,
            "internal_port": port,
        }
        alice = await server.register("alice")
        async with rig(server.url, **options) as here:
            room = await room_with_bot(server, alice)
            record = await here.conference(Place(Network.MATRIX, room))
            await here.joins(record, "bob@example.org", "Bob")
            await eventually(lambda: alice.call_members(room), "no membership")
            await until(lambda: "without delayed events" in here.gateway.status())
            store = here.store
        assert await alice.call_members(room), "the end of the process must not withdraw"
        async with rig(server.url, store=store, **options):
            await eventually(lambda: gone(alice, room), "the start did not clean up")


async def test_an_openid_token_proves_its_owner_and_only_him() -> None:
    async with together() as (server, here):
        alice = await server.register("alice", display_name="Alice")
        room = await room_with_bot(server, alice)
        carol = await server.register("carol")
        proof = here.context.proof
        assert proof is not None
        claims = await alice.openid()
        token = OpenIdToken(
            claims["access_token"],
            claims["token_type"],
            claims["matrix_server_name"],
            claims["expires_in"],
        )
        assert await proof.prove(token) == alice.mxid
        with pytest.raises(Refused):
            await proof.prove(OpenIdToken("wrong", "Bearer", "hs.test", 3600))
        assert await proof.membership(room, alice.mxid) is Membership.JOINED
        assert await proof.membership(room, carol.mxid) is Membership.ABSENT
        elsewhere = await carol.create_room()
        assert await proof.membership(elsewhere, carol.mxid) is Membership.UNKNOWN
        shown = await proof.profile(room, alice.mxid)
        assert (shown.name, shown.role) == ("Alice", Role.OWNER)


async def test_commands_are_answered_in_the_room() -> None:
    async with together() as (server, here):
        alice = await server.register("alice", display_name="Alice")
        bob = await server.register("bob")
        room = await room_with_bot(server, alice, call_member_level=None, name="Team")
        await bob.join(room)
        assert "!conf link" in await answer(alice, room, "!conf help")
        assert "Only moderators" in await answer(bob, room, "!conf link room@muc.example.org")
        text = await answer(alice, room, "!conf link room@muc.example.org")
        assert "one conference now" in text
        record = await here.directory.by_place(Place(Network.XMPP, "room@muc.example.org"))
        assert record is not None
        assert (record.room, record.title) == (room_alias(room), "Team")
        assert Place(Network.MATRIX, room) in record.places
        await here.joins(record, "bob@example.org", "Bobby")
        text = await answer(alice, room, "!conf status")
        assert "Bobby (XMPP)" in text
        assert "room@muc.example.org" in text
        assert await answer(alice, room, "!conf mute Bobby") == "Bobby was muted by Alice (audio)."
        assert "lack the power" in await answer(alice, room, "!conf fix-permissions")
        levels = next(e for e in await alice.state(room) if e["type"] == "m.room.power_levels")
        content = levels["content"]
        content["users"][server.bot_mxid] = 100
        await alice.put_state(room, "m.room.power_levels", content)
        assert "Done" in await answer(alice, room, "!conf fix-permissions")
        await eventually(lambda: alice.call_members(room), "still not shown after the fix")
        assert "ended" in await answer(alice, room, "!conf end")
        await eventually(lambda: gone(alice, room), "the ghost stayed after the end")


async def test_a_kick_in_the_room_ends_the_media() -> None:
    async with together() as (server, here):
        alice = await server.register("alice")
        mallory = await server.register("mallory")
        room = await room_with_bot(server, alice)
        await mallory.join(room)
        record = await here.conference(Place(Network.MATRIX, room))
        await here.joins(record, mallory.mxid, "Mallory", Network.MATRIX)
        began = time.monotonic()
        await alice.call("POST", f"/_matrix/client/v3/rooms/{room}/kick", {"user_id": mallory.mxid})
        await until(lambda: any(isinstance(e, Left) for e in here.events), "still in the call")
        assert time.monotonic() - began < 2
        proof = here.context.proof
        assert proof is not None
        assert await proof.membership(room, mallory.mxid) is Membership.ABSENT


async def test_a_kicked_ghost_leaves_the_call_and_is_not_brought_back_by_text() -> None:
    async with together() as (server, here):
        alice = await server.register("alice")
        room = await room_with_bot(server, alice)
        record = await here.conference(Place(Network.MATRIX, room))
        await here.joins(record, "bob@example.org", "Bob")
        await eventually(lambda: alice.call_members(room), "no membership")
        await alice.call("POST", f"/_matrix/client/v3/rooms/{room}/kick", {"user_id": GHOST})
        await until(lambda: any(isinstance(e, Left) for e in here.events), "still in the call")
        with pytest.raises(Refused):
            await here.deliver(record, room, BOB, "let me in")


async def test_a_binding_made_during_the_call_shows_who_is_there() -> None:
    async with together() as (server, here):
        alice = await server.register("alice")
        room = await room_with_bot(server, alice)
        record = await here.conference()
        await here.joins(record, "bob@example.org", "Bob")
        by = Actor(Account(Network.MATRIX, alice.mxid), Role.OWNER, "Alice")
        await here.submit(record, Bind(by, Place(Network.MATRIX, room)))
        await eventually(lambda: alice.call_members(room), "no membership")
