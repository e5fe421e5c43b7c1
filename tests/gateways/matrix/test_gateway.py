"""The whole gateway against a fake homeserver: text, commands, ghosts, and what goes wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.conference.commands import Leave, Mute, Publish, SetMuted
from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import Left, MuteRuled
from bridge.conference.ids import (
    Account,
    Actor,
    LegId,
    Network,
    Place,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.gateway import Membership
from bridge.gateways.matrix import inbound
from bridge.gateways.matrix.commands import VERBS, split_kind
from bridge.gateways.matrix.door import MatrixGateway
from tests.gateways.matrix.homeserver import FakeHomeserver
from tests.gateways.matrix.rig import Rig, rig, until

ALICE, BOT = "@alice:hs.test", "@parley:hs.test"
BOB = Actor(Account(Network.XMPP, "bob@example.org"), Role.MEMBER, "Bob")
GHOST = "@_parley_xmpp_bob=40example.org:hs.test"


@contextlib.asynccontextmanager
async def play(**options: Any) -> AsyncIterator[tuple[FakeHomeserver, Rig]]:
    async with FakeHomeserver() as server, rig(server.url, **options) as here:
        server.hears = here.internal_url
        await until(lambda: here.gateway.status() == "connected")
        yield server, here


def bound(room: str) -> Place:
    return Place(Network.MATRIX, room)


async def ask(server: FakeHomeserver, here: Rig, room: str, line: str, **content: Any) -> list[str]:
    """Notices that follow a line."""
    before = len(server.rooms[room].messages())
    await server.says(room, ALICE, line, **content)
    await until(lambda: here.inbox.is_idle, "the line was not handled")
    await asyncio.sleep(0.05)  # notices are sent by a task of their own
    return [body for who, body in server.rooms[room].messages()[before + 1 :] if who == BOT]


# --- text ---------------------------------------------------------------------------------------------


async def test_a_line_becomes_said_once_however_often_it_comes() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        await here.conference(bound(room))
        line = server.message(room, ALICE, "hi")
        assert await asyncio.gather(*(server.push(line, txn="t1") for _ in range(5))) == [200] * 5
        assert await server.push(line, txn="t2") == 200
        await until(lambda: here.inbox.is_idle)
        assert [said.text for said in here.said] == ["hi"]
        assert here.said[0].by == Actor(Account(Network.MATRIX, ALICE), Role.OWNER, "alice")
        assert here.said[0].origin == bound(room)


async def test_our_own_voice_notices_and_edits_are_not_read_back() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT, GHOST)
        await here.conference(bound(room))
        await server.says(room, BOT, "I said that")
        await server.says(room, GHOST, "Bob said that")
        await server.says(room, ALICE, "beep", msgtype="m.notice")
        await server.says(room, ALICE, "* fixed", **{"m.relates_to": {"rel_type": "m.replace"}})
        await server.says(room, ALICE, "a real line")
        await until(lambda: here.inbox.is_idle)
        assert [said.text for said in here.said] == ["a real line"]


async def test_a_poison_event_is_a_dead_letter_and_the_next_line_passes() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        await here.conference(bound(room))
        good = server.message(room, ALICE, "after the poison")
        poison = {**good, "event_id": "$poison", "sender": "nobody"}
        assert await server.push(poison, {"no": "id"}, "not even an object", good) == 200
        await until(lambda: here.inbox.is_idle)
        assert [said.text for said in here.said] == ["after the poison"]
        assert len(here.inbox.letters) == 3


async def test_a_bug_in_one_event_does_not_stop_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        await here.conference(bound(room))
        real = inbound.Inbound._message

        async def buggy(self: Any, message: Any, cause: Any) -> None:
            if message.text == "boom":
                raise KeyError("bug")
            await real(self, message, cause)

        monkeypatch.setattr(inbound.Inbound, "_message", buggy)
        await server.says(room, ALICE, "boom")
        await server.says(room, ALICE, "fine")
        await until(lambda: here.inbox.is_idle)
        assert [said.text for said in here.said] == ["fine"]
        assert list(here.inbox.letters.values()) == ["bug: KeyError"]


async def test_a_line_waits_for_the_database_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "BACKOFF_S", (0.05,))
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        await here.conference(bound(room))
        real, refusals = here.context.submit, iter(range(3))

        async def away(*args: Any) -> Any:
            if next(refusals, None) is not None:
                raise Unavailable("database")
            return await real(*args)

        here.context.submit = away
        await server.says(room, ALICE, "one")
        await server.says(room, ALICE, "two")
        await until(lambda: here.inbox.is_idle)
        assert [said.text for said in here.said] == ["one", "two"]


async def test_ghosts_speak_with_name_and_mark_only_a_clash() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT, public=False)
        server.users[ALICE]["displayname"] = "Alice"
        server.member(room, ALICE, "join")
        record = await here.conference(bound(room))
        await here.deliver(record, room, BOB, "hello")
        false = Actor(Account(Network.XMPP, "evil@example.org"), Role.MEMBER, "\u0410lice\u202e")
        await here.deliver(record, room, false, "trust me", is_emote=True)
        assert server.users[GHOST]["displayname"] == "Bob"
        assert server.users["@_parley_xmpp_evil=40example.org:hs.test"]["displayname"] == (
            "\u0410lice (XMPP)"
        )
        assert server.rooms[room].messages()[0] == (GHOST, "hello")
        sent = server.rooms[room].timeline[-1]["content"]
        assert (sent["msgtype"], sent["m.mentions"]) == ("m.emote", {})


async def test_a_matrix_person_is_never_imitated_by_a_ghost() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        by = Actor(Account(Network.MATRIX, ALICE), Role.MEMBER, "Alice")
        await here.deliver(record, room, by, "from inside the call")
        assert server.rooms[room].messages() == [(BOT, "Alice: from inside the call")]


async def test_delivery_says_whether_trying_again_is_reasonable() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        await here.deliver(record, room, BOB, "first")
        for fault in ("failing", "limited"):
            setattr(server, fault, 1)
            with pytest.raises(Unavailable):
                await here.deliver(record, room, BOB, "later")
        server.member(room, GHOST, "leave")  # gone without our knowing: let in again, once
        server.rooms[room].public = False
        assert await here.deliver(record, room, BOB, "back")
        server.member(room, GHOST, "ban", ALICE)
        with pytest.raises(Refused):
            await here.deliver(record, room, BOB, "never")
        assert await here.deliver(record, room, BOB, "  ") is None
        assert [body for _, body in server.rooms[room].messages()] == ["first", "back"]


async def test_a_second_attempt_finds_the_line_of_the_first() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        first = await here.deliver(record, room, BOB, "once", key="k1")
        server._transactions.clear()  # the homeserver's memory of transactions is short
        assert await here.deliver(record, room, BOB, "once", key="k1", attempts=1) == first
        assert len(server.rooms[room].messages()) == 1


async def test_what_the_homeserver_forgot_to_hand_over_is_fetched_after_an_interruption() -> None:
    async with play() as (server, here):
        room = server.room(ALICE)
        server.message(room, ALICE, "before the bot came")
        server.member(room, BOT, "join")
        await here.conference(bound(room))
        await server.says(room, ALICE, "handed over")
        await until(lambda: len(here.said) == 1)
        server.message(room, ALICE, "lost one")
        server.message(room, ALICE, "lost two")
        await until(lambda: bool(here.store.rows.get(("matrix", "read-until"))))
        await server.hang_up()
        await until(lambda: len(here.said) == 3)
        assert [said.text for said in here.said] == ["handed over", "lost one", "lost two"]


async def test_a_line_that_the_homeserver_left_behind_when_it_found_us_keeps_its_place() -> None:
    """Synapse: accepted between the end of its retries and the note that we are back, handed over much later."""
    async with FakeHomeserver() as server:
        room = server.room(ALICE, BOT)
        async with rig(server.url) as here:
            server.hears = here.internal_url
            await here.conference(bound(room))
            await until(lambda: bool(here.store.rows.get(("matrix", "read-until"))))
            await server.hang_up()
            await until(lambda: any(path.endswith("/messages") for _, path, _ in server.requests))
            server.message(room, ALICE, "left behind")
            await server.says(room, ALICE, "handed over")
            await until(lambda: len(here.said) == 2)
            assert [said.text for said in here.said] == ["left behind", "handed over"]


async def test_a_ping_that_fails_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """Synapse fails pings as long as it hands over what waits, and what it hands over waits for the catch-up."""
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        await here.conference(bound(room))
        await until(lambda: bool(here.store.rows.get(("matrix", "read-until"))))
        server.can_reach_us = False
        server.message(room, ALICE, "lost")
        await server.hang_up()
        async with asyncio.timeout(5):
            await server.says(room, ALICE, "handed over")
        await until(lambda: len(here.said) == 2)
        assert [said.text for said in here.said] == ["lost", "handed over"]
        await until(lambda: "cannot reach us" in caplog.text, "the operator was not told")
        assert "cannot reach us" in here.gateway.status()


# --- in the call --------------------------------------------------------------------------------------


async def test_everybody_but_matrix_people_gets_a_membership() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        bob = await here.joins(record, "bob@example.org", "Bob")
        await here.joins(record, "guest-1", "Carol", Network.WEB)
        await here.joins(record, ALICE, "Alice", Network.MATRIX)
        calls = server.rooms[room].calls
        await until(lambda: len(calls()) == 2)
        assert {c["membershipID"] for c in calls().values()} == {
            leg.identity
            for leg in here.registry.view(record.id)
            if leg.account.network is not Network.MATRIX
        }
        await until(lambda: len(server.delayed) == 2)
        await here.submit(record, Leave(bob))
        await until(lambda: len(calls()) == 1)
        await until(lambda: len(server.delayed) == 1, "the delayed leave was not cancelled")


async def test_two_devices_of_one_person_are_two_memberships_of_one_ghost() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        await here.joins(record, "bob@example.org", "Bob")
        await here.joins(record, "bob@example.org", "Bob")
        await until(lambda: len(server.rooms[room].calls()) == 2)
        assert all(GHOST in key for key in server.rooms[room].calls())


async def test_a_restart_adopts_the_living_and_clears_the_dead() -> None:
    async with FakeHomeserver() as server:
        room = server.room(ALICE, BOT)
        async with rig(server.url) as here:
            record = await here.conference(bound(room))
            await here.joins(record, "bob@example.org", "Bob")
            gone = await here.joins(record, "dave@example.org", "Dave")
            await until(lambda: len(server.rooms[room].calls()) == 2)
            await here.registry.flush()
            store, journal = here.store, here.journal
        legs = journal.states[record.id].legs
        del legs[gone]
        before = len(server.requests)
        async with rig(server.url, store=store, journal=journal):
            await until(lambda: len(server.rooms[room].calls()) == 1)
            assert all(GHOST in key for key in server.rooms[room].calls())
            await asyncio.sleep(0.1)
            again = [
                r
                for r in server.requests[before:]
                if r[0] == "PUT" and GHOST in r[1] and "/state/" in r[1]
            ]
            assert not again, "a membership that stands was published again"


async def test_no_right_to_show_people_is_said_once_and_heals() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        levels = {"users": {ALICE: 100}, "events": {}}
        server._put(room, "m.room.power_levels", "", ALICE, levels)
        record = await here.conference(bound(room))
        await here.joins(record, "bob@example.org", "Bob")
        await here.joins(record, "dave@example.org", "Dave")
        await until(lambda: bool(server.rooms[room].messages()))
        assert "fix-permissions" in server.rooms[room].messages()[0][1]
        await asyncio.sleep(0.1)
        assert len(server.rooms[room].messages()) == 1
        levels = {"users": {ALICE: 100}, "events": {"org.matrix.msc3401.call.member": 0}}
        event = server._put(room, "m.room.power_levels", "", ALICE, levels)
        await server.push(event)
        await until(lambda: len(server.rooms[room].calls()) == 2)


# --- the room decides who is in the call --------------------------------------------------------------


async def test_ban_kick_and_leave_end_the_call_for_that_person() -> None:
    for how in ("ban", "kick", "leave"):
        async with play() as (server, here):
            mallory = "@mallory:hs.test"
            room = server.room(ALICE, BOT, mallory)
            record = await here.conference(bound(room))
            await here.joins(record, mallory, "Mallory", Network.MATRIX)
            await here.joins(record, ALICE, "Alice", Network.MATRIX)
            proof = here.context.proof
            assert proof is not None
            assert await proof.membership(room, mallory) is Membership.JOINED
            sender = mallory if how == "leave" else ALICE
            event = server.member(room, mallory, "ban" if how == "ban" else "leave", sender)
            await server.push(event)
            await until(lambda here=here: any(isinstance(e, Left) for e in here.events))  # type: ignore[misc]
            left = [e.leg.account.address for e in here.events if isinstance(e, Left)]
            assert left == [mallory]
            assert await proof.membership(room, mallory) is Membership.ABSENT


async def test_a_new_name_in_the_room_is_the_name_in_the_call() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        await here.joins(record, ALICE, "alice", Network.MATRIX)
        server.users[ALICE]["displayname"] = "Alice\u202e Liddell"
        await server.push(server.member(room, ALICE, "join"))
        await until(lambda: here.registry.view(record.id)[0].name == "Alice Liddell")


async def test_an_old_kick_of_somebody_who_is_back_changes_nothing() -> None:
    async with play() as (server, here):
        mallory = "@mallory:hs.test"
        room = server.room(ALICE, BOT, mallory)
        record = await here.conference(bound(room))
        await here.joins(record, mallory, "Mallory", Network.MATRIX)
        kick = server.member(room, mallory, "leave", ALICE)
        server.member(room, mallory, "join")
        await server.push(kick)
        await until(lambda: here.inbox.is_idle)
        assert not any(isinstance(e, Left) for e in here.events)


async def test_the_bot_comes_when_invited_by_an_allowed_homeserver() -> None:
    async with play(allowed=("hs.test",)) as (server, here):
        room = server.room(ALICE, public=False)
        await server.push(server.member(room, BOT, "invite", ALICE))
        await until(lambda: server.rooms[room].membership(BOT) == "join")
        strange = server.room("@x:other.test", public=False)
        event = server.member(strange, BOT, "invite", "@x:other.test")
        await server.push(event)
        await until(lambda: here.inbox.is_idle)
        assert server.rooms[strange].membership(BOT) != "join"


# --- commands -----------------------------------------------------------------------------------------


async def test_help_comes_from_the_table_and_fits_the_rank() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT, "@bob:hs.test")
        (text,) = await ask(server, here, room, "!conf")
        for verb in VERBS.values():
            assert f"!conf {verb.usage}" in text
        await server.says(room, "@bob:hs.test", "!conf help")
        await until(lambda: here.inbox.is_idle)
        short = server.rooms[room].messages()[-1][1]
        assert "status" in short
        assert "!conf link" not in short
        assert "I do not know" in (await ask(server, here, room, "!conf dance"))[0]


async def test_commands_of_ghosts_edits_replies_and_notices_are_not_run() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT, GHOST, levels={GHOST: 100})
        record = await here.conference(bound(room))
        await here.joins(record, "bob@example.org", "Bob")
        for content in (
            {"msgtype": "m.notice"},
            {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}},
            {"m.relates_to": {"m.in_reply_to": {"event_id": "$x"}}},
        ):
            assert await ask(server, here, room, "!conf end", **content) == []
        await server.says(room, GHOST, "!conf end")
        await until(lambda: here.inbox.is_idle)
        assert len(here.registry.view(record.id)) == 1
        assert not here.said


async def test_mute_by_mention_ghost_jid_and_name() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        server.users[ALICE]["displayname"] = "Alice"
        server.member(room, ALICE, "join")
        record = await here.conference(bound(room))
        leg = await here.joins(record, "bob@example.org", "Bob Smith")
        track = Publish(leg, TrackId("TR_1"), TrackKind.AUDIO, TrackSource.MICROPHONE)
        await here.submit(record, track)
        for who in ("Bob Smith", "@bob smith", "bob@example.org", GHOST, "bob", "Bob Smith (XMPP)"):
            (text,) = await ask(server, here, room, f"!conf mute {who}")
            assert text == "Bob Smith was muted by Alice (audio).", who
            (text,) = await ask(server, here, room, f"!conf mute {who}")
            assert text == "Bob Smith already is muted (audio)."
            with pytest.raises(Refused):
                await here.submit(record, SetMuted(leg, TrackId("TR_1"), False))
            (text,) = await ask(server, here, room, f"!conf unmute {who}")
            assert text == "Bob Smith was unmuted by Alice (audio)."
        (text,) = await ask(
            server, here, room, "!conf mute Bob all", **{"m.mentions": {"user_ids": [GHOST]}}
        )
        assert text == "Bob Smith was muted by Alice (audio and video)."
        rules = [e for e in here.events if isinstance(e, MuteRuled)]
        assert {rule.target.address for rule in rules} == {"bob@example.org"}
        (text,) = await ask(server, here, room, "!conf mute nobody")
        assert "Nobody called" in text


async def test_moderators_steer_the_policy() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT, "@carol:hs.test")
        server.users[ALICE]["displayname"] = "Alice"
        server.member(room, ALICE, "join")
        (text,) = await ask(server, here, room, "!conf policy")
        assert "There is no call in this room" in text
        record = await here.conference(bound(room))
        (text,) = await ask(server, here, room, "!conf policy")
        assert text.count("(as configured)") == 4
        (text,) = await ask(server, here, room, "!conf policy last-n 5")
        last_n = "everybody receives 5 pictures at most, the latest speakers first"
        assert text == f"Alice changed the call's policy: {last_n}."
        (text,) = await ask(server, here, room, "!conf policy last-n 5")
        assert text == "It is so already."
        (text,) = await ask(server, here, room, "!conf policy")
        assert f"last-n: {last_n} (chosen here)." in text
        (text,) = await ask(server, here, room, "!conf policy last-n many")
        assert "For example: last-n 5" in text
        await server.says(room, "@carol:hs.test", "!conf policy default")
        await until(lambda: here.inbox.is_idle)
        assert here.registry.record(record.id).streams.last_n == 5
        (text,) = await ask(server, here, room, "!conf policy default")
        assert text == "Alice put the call's policy back to what is configured."
        (_, text) = server.rooms[room].messages()[-3]
        assert "Only a moderator" in text


async def test_two_people_of_one_name_are_asked_about() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        await here.joins(record, "bob@one.example", "Bob")
        await here.joins(record, "bob@two.example", "Bob")
        (text,) = await ask(server, here, room, "!conf mute Bob")
        assert "bob@one.example" in text
        assert "bob@two.example" in text
        assert not any(isinstance(e, MuteRuled) for e in here.events)


async def test_a_mute_from_elsewhere_is_told_in_the_room() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        await here.joins(record, "bob@example.org", "Bob")
        admin = Actor(Account(Network.XMPP, "admin@example.org"), Role.OWNER, "Admin")
        await here.submit(record, Mute(admin, BOB.account, TrackKind.VIDEO))
        await until(lambda: bool(server.rooms[room].messages()))
        assert server.rooms[room].messages() == [(BOT, "Bob was muted by Admin (video).")]


async def test_a_call_that_is_partly_encrypted_is_told_in_the_room_once() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        record = await here.conference(bound(room))
        alice = await here.joins(record, ALICE, "Alice", Network.MATRIX)
        bob = await here.joins(record, "bob@example.org", "Bob")
        for number, (leg, encrypted) in enumerate(((alice, True), (bob, False), (alice, True))):
            track = TrackId(f"TR_{number}")
            source = TrackSource.MICROPHONE
            await here.submit(
                record, Publish(leg, track, TrackKind.AUDIO, source, encrypted=encrypted)
            )
        await until(lambda: bool(server.rooms[room].messages()))
        (said,) = server.rooms[room].messages()
        assert "Encrypted: Alice. Not encrypted: Bob." in said[1]


async def test_a_muc_of_another_conference_is_not_taken_over() -> None:
    async with play() as (server, here):
        room = server.room(ALICE, BOT)
        muc = Place(Network.XMPP, "room@muc.example.org")
        await here.conference(muc)
        (text,) = await ask(server, here, room, "!conf link room@muc.example.org")
        assert "already belongs" in text
        (text,) = await ask(server, here, room, "!conf link not-a-jid")
        assert "not the address of a MUC" in text
        assert await here.directory.by_place(bound(room)) is None
        (text,) = await ask(server, here, room, "!conf link other@muc.example.org")
        assert "one conference now" in text
        (text,) = await ask(server, here, room, "!conf unlink")
        assert "other@muc.example.org" in text


async def test_a_member_cannot_mute_and_a_configured_administrator_can() -> None:
    async with play(admins=("@root:hs.test",)) as (server, here):
        room = server.room(ALICE, BOT, "@carol:hs.test", "@root:hs.test")
        record = await here.conference(bound(room))
        await here.joins(record, "bob@example.org", "Bob")
        await server.says(room, "@carol:hs.test", "!conf mute Bob")
        await until(lambda: here.inbox.is_idle)
        assert not any(isinstance(e, MuteRuled) for e in here.events)
        await server.says(room, "@root:hs.test", "!conf mute Bob")
        await until(lambda: any(isinstance(e, MuteRuled) for e in here.events))


def test_what_to_mute_is_the_last_word() -> None:
    assert split_kind("@bob") == ("@bob", TrackKind.AUDIO)
    assert split_kind("Bob Smith video") == ("Bob Smith", TrackKind.VIDEO)
    assert split_kind("Bob all") == ("Bob", None)
    assert split_kind("video") == ("video", TrackKind.AUDIO)


async def test_identity_needs_no_homeserver() -> None:
    def nothing(gateway: MatrixGateway) -> None:
        return

    async with rig("http://127.0.0.1:9", prepare=nothing) as here:
        ghosts = here.context.ghosts
        assert ghosts is not None
        record = await here.conference()
        identity = await ghosts.ensure(record, BOB.account, "Bob", LegId("PA_1"))
        assert identity.startswith(GHOST + ":P")
        await until(lambda: "homeserver" in here.gateway.status())


def test_the_page_lists_every_command() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/gateways/matrix.md").read_text()
    for verb in VERBS.values():
        usage = verb.usage.replace("|", "\\|")
        assert f"`!conf {usage}`" in page, verb.name
