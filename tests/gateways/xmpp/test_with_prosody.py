"""The gateway against a real Prosody: text both ways, exactly once, across restarts of either side."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bridge.conference.commands import Join, Leave, Publish, Say
from bridge.conference.errors import Unavailable
from bridge.conference.events import Joined, Leg, MuteRuled, StreamsRuled, Track, TrackPublished
from bridge.conference.ids import (
    Account,
    Actor,
    LegId,
    Network,
    Receives,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.streams import StreamChoice, StreamRule
from bridge.gateways.xmpp.gateway import XmppGateway
from tests.gateways.xmpp.fakes import CONFERENCE, MUC, House, line, make_leg, until
from tests.peers import prosody
from tests.peers.jingle import Client
from tests.peers.prosody import Prosody

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(bool(prosody.why_not()), reason=prosody.why_not() or "-"),
]


@contextlib.asynccontextmanager
async def gateway(house: House) -> AsyncIterator[XmppGateway]:
    door = XmppGateway(house.context)
    house.context.gateways["xmpp"] = door
    task = asyncio.create_task(door.run())
    try:
        await until(lambda: "in 1 of 1 rooms" in door.status(), timeout_s=10)
        yield door
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (why := task.exception()) is not None:
            raise why


@contextlib.asynccontextmanager
async def client(server: Prosody, name: str, *, room: str | None = MUC) -> AsyncIterator[Client]:
    await server.register(name, "pw")
    person = Client(f"{name}@{server.domain}", "pw")
    await person.log_in("127.0.0.1", server.c2s_port)
    try:
        if room:
            await person.join(room, name)
        yield person
    finally:
        with contextlib.suppress(TimeoutError):
            await person.leave()


def sending(leg: Leg, *, encrypted: bool) -> Leg:
    kind, source = TrackKind.AUDIO, TrackSource.MICROPHONE
    track = Track(TrackId(f"TR_{leg.id}"), leg.id, kind, source, encrypted=encrypted)
    return replace(leg, tracks=(track,))


def house_of(server: Prosody) -> House:
    return House(port=server.component_port, secret=server.component_secret)


async def test_text_crosses_both_ways_once() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with gateway(house) as door, client(server, "bob") as bob:
            bob.say("hello from bob")
            await until(lambda: house.of(Say))
            (say,) = house.of(Say)
            assert say.text == "hello from bob"
            assert say.by.account == Account(Network.XMPP, f"bob@{server.domain}") or (
                say.by.account.address.startswith(MUC + "/")
            )
            assert say.by.name == "bob"

            key = secrets.token_hex(16)
            remote = await door.deliver(line("hello from Alice", key))
            assert remote
            await until(lambda: bob.texts[-1]["text"] == "hello from Alice")
            assert bob.texts[-1]["from"] == "Alice"
            await door.deliver(line("again", secrets.token_hex(16)))
            await asyncio.sleep(0.3)
            assert [s.text for s in house.of(Say)] == ["hello from bob"]  # no echo came back

            # A crash after the line reached the room: it is found, not sent again (R14).
            assert await door.deliver(line("hello from Alice", key, attempts=1)) == remote
            assert [t["text"] for t in bob.texts].count("hello from Alice") == 1


async def test_a_repeated_line_is_found_by_a_new_process() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with client(server, "bob", room=None) as bob:
            async with gateway(house) as door:
                await bob.join(MUC, "bob")
                remote = await door.deliver(line("only once", "key-1"))
            fresh = house_of(server)
            fresh.store.values = house.store.values
            async with gateway(fresh) as door:
                assert await door.deliver(line("only once", "key-1", attempts=1)) == remote
                assert await door.deliver(line("second", "key-2", attempts=1)) != remote
                await until(lambda: len(bob.texts) == 2)
                assert [t["text"] for t in bob.texts] == ["only once", "second"]
                assert fresh.of(Say) == []


async def test_a_killed_process_leaves_no_ghosts_and_keeps_nicknames() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with client(server, "bob", room=None) as bob:
            async with gateway(house) as door:
                await bob.join(MUC, "bob")
                await door.deliver(line("one", "k1"))
                await door.deliver(line("uno", "k2", name="Zoe", address="@zoe:hs.test"))
            # The stream is closed, but nobody left the room: as after SIGKILL.
            async with gateway(house) as door:
                room = door._places[MUC][0]
                await until(lambda: set(room.roster.by_nick) == {"Parley", "bob"})
                await door.deliver(line("two", "k3"))
                await until(lambda: len(bob.texts) == 3)
                assert [t["from"] for t in bob.texts] == ["Alice", "Zoe", "Alice"]


async def test_lines_said_while_parley_was_away_are_taken_once() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with client(server, "bob", room=None) as bob:
            async with gateway(house):
                await bob.join(MUC, "bob")
                bob.say("before")
                await until(lambda: house.of(Say))
            for number in range(30):  # more than a room replays to a newcomer
                bob.say(f"away {number}")
            await until(lambda: len(bob.texts) == 31)
            async with gateway(house):
                await until(lambda: len(house.of(Say)) == 31)
                bob.say("after")
                await until(lambda: len(house.of(Say)) == 32)
    expected = ["before", *(f"away {n}" for n in range(30)), "after"]
    assert [say.text for say in house.of(Say)] == expected


async def test_the_server_restarts_and_text_goes_on() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with gateway(house) as door, client(server, "bob") as bob:
            await door.deliver(line("one", "k1"))
            await server.stop()
            await until(lambda: "not connected" in door.status())
            with pytest.raises(Unavailable):
                await door.deliver(line("two", "k2"))
            await asyncio.sleep(3)
            await server.start()
            began = asyncio.get_running_loop().time()
            await until(lambda: "in 1 of 1 rooms" in door.status(), timeout_s=10)
            assert asyncio.get_running_loop().time() - began <= 5  # R2
            await door.deliver(line("two", "k2", attempts=1))
            async with client(server, "carol") as carol:
                carol.say("I am new")
                await until(lambda: any(s.text == "I am new" for s in house.of(Say)))
                await door.deliver(line("three", "k3"))
                await until(lambda: carol.texts and carol.texts[-1]["text"] == "three")
            del bob


async def test_commands_are_answered_by_rank() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with gateway(house), client(server, "bob") as bob:
            bob.say("!conf status")
            await until(lambda: any("Nobody is in the call" in t["text"] for t in bob.texts))
            bob.say("!conf end")
            await until(lambda: any("for moderators" in t["text"] for t in bob.texts))
            bob.say("!conf dance")
            await until(lambda: any("!conf help" in t["text"] for t in bob.texts[2:]))
            assert house.of(Say) == []


async def test_who_enters_the_room_sees_whom_to_call() -> None:
    async with (
        Prosody() as server,
        gateway(house_of(server)),
        client(server, "bob", room=None) as bob,
    ):
        seen: list[str] = []
        bob.add_event_handler("presence_available", lambda p: seen.append(str(p["from"])))
        await bob.join(MUC, "bob")
        focus = f"demo@{server.component}/focus"
        await until(lambda: focus in seen)
        info = await bob.plugin["xep_0030"].get_info(jid=focus)
        assert "urn:xmpp:jingle-message:0" in info["disco_info"]["features"]


async def test_a_taken_nickname_gets_the_suffix() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with gateway(house) as door, client(server, "alice") as alice:
            await door.deliver(line("am I you?", "k1", name="аlice"))  # Cyrillic a
            await until(lambda: alice.texts)
            assert alice.texts[-1]["from"] == "аlice (m)"


async def test_people_of_the_call_are_announced_and_enter() -> None:
    async with Prosody() as server:
        house = house_of(server)
        async with gateway(house) as door, client(server, "bob") as bob:
            join = Join(
                LegId("PA_1"),
                "livekit",
                Account(Network.MATRIX, "@alice:hs.test"),
                "Alice",
                Role.MEMBER,
                Receives.EACH,
            )
            door.notify(CONFERENCE, (Joined(make_leg(join), True),))
            await until(lambda: any(t["text"] == "Alice joined the call." for t in bob.texts))
            room = door._places[MUC][0]
            await until(lambda: "Alice" in room.roster.by_nick)
            by = Actor(Account(Network.XMPP, "x@y"), Role.OWNER, "Zoe")
            door.notify(CONFERENCE, (MuteRuled(join.account, TrackKind.AUDIO, True, by),))
            await until(lambda: any("was muted by Zoe." in t["text"] for t in bob.texts))
            choice = StreamChoice(last_n=5)
            door.notify(CONFERENCE, (StreamsRuled(choice, StreamRule.LAST_N, 5, by),))
            told = "Zoe changed the call's policy: everybody receives 5 pictures at most"
            await until(lambda: any(t["text"].startswith(told) for t in bob.texts))
            # One who encrypts his frames and one who cannot: said where people read it.
            secret = sending(make_leg(join), encrypted=True)
            account = Account(Network.XMPP, f"bob@{server.domain}")
            bobs = make_leg(replace(join, leg=LegId("PA_2"), account=account, name="Bob"))
            house.legs += [secret, sending(bobs, encrypted=False)]
            door.notify(CONFERENCE, (TrackPublished(secret, secret.tracks[0]),))
            told = "Encrypted: Alice. Not encrypted: Bob."
            await until(lambda: any(told in t["text"] for t in bob.texts))


async def test_a_call_is_answered_with_a_leg_and_ends_with_it() -> None:
    """Signalling only: the worker is a fake, so media never comes up."""
    async with Prosody() as server:
        house = house_of(server)
        async with gateway(house), client(server, "bob", room=None) as bob:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bob.call(f"demo@{server.component}"), 3)
            assert [h["what"] for h in bob.happened][:2] == ["jmi-ringing", "jmi-proceed"]
            assert house.media.calls[:4] == ["open", "expect 0", "expect 1", "offer"]
            (join,) = house.of(Join)
            assert join.account == Account(Network.XMPP, f"bob@{server.domain}")
            assert join.receives is Receives.COMPACT
            assert [p.kind for p in house.of(Publish)] == [TrackKind.AUDIO, TrackKind.VIDEO]
            assert any(h["what"] == "session-accept" for h in bob.happened)
            await bob.hang_up()
            await until(lambda: house.of(Leave))
            assert house.store.saved == {}
