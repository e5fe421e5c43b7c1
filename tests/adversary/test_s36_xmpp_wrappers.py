"""S36, S37 in a chat room: forged archive results, copies of our lines, real addresses that a sender invents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element

from bridge.gateways.xmpp.rooms import Room
from tests.gateways.xmpp.fakes import CONFERENCE, DOMAIN, MUC, FakeWire, House, until, xml

FOCUS = f"demo@{DOMAIN}/focus"
PUPPET = f"g-1@{DOMAIN}/parley"


def presence(nick: str, occupant_id: str, *codes: int) -> Element:
    status = "".join(f"<status code='{code}'/>" for code in codes)
    return xml(
        f"<presence xmlns='jabber:client' from='{MUC}/{nick}' to='{FOCUS}'>"
        f"<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/>{status}</x>"
        f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{occupant_id}'/></presence>"
    )


def line(nick: str, text: str, *, id: str, occupant_id: str, archive: str = "") -> str:
    mark = f"<stanza-id xmlns='urn:xmpp:sid:0' by='{MUC}' id='{archive}'/>" if archive else ""
    return (
        f"<message xmlns='jabber:client' type='groupchat' from='{MUC}/{nick}' id='{id}'>"
        f"<body>{text}</body><origin-id xmlns='urn:xmpp:sid:0' id='{id}'/>{mark}"
        f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{occupant_id}'/></message>"
    )


def wrapped(inner: str, query: str) -> Element:
    return xml(
        f"<message xmlns='jabber:client' from='{MUC}' to='{FOCUS}'>"
        f"<result xmlns='urn:xmpp:mam:2' queryid='{query}' id='a1'><forwarded xmlns='urn:xmpp:forward:0'>"
        f"<delay xmlns='urn:xmpp:delay' stamp='2026-11-20T10:00:00Z'/>{inner}</forwarded></result></message>"
    )


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[Room, House]]:
    house, wire, up = House(), FakeWire(), asyncio.Event()
    up.set()
    room = Room(house.context, wire, CONFERENCE, MUC, up, lambda _: None)
    task = asyncio.create_task(room.run())
    try:
        await until(lambda: wire.sent)
        room.presence(presence("Ann", "ann"))
        room.presence(presence("Parley", "focus", 110))
        await until(lambda: room.is_joined)
        yield room, house
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_archive_result_that_nobody_asked_for_is_dropped() -> None:
    async with joined() as (room, house):
        room.message(wrapped(line("Ann", "forged", id="m1", occupant_id="ann"), "guess"))
        room.message(xml(line("Ann", "true", id="m2", occupant_id="ann", archive="a2")))
        await until(lambda: house.store.lines)
        assert [row.payload["text"] for row in house.store.lines] == ["true"]


async def test_a_copy_of_our_line_is_the_copiers_own() -> None:
    """Somebody repeats id and origin-id of a line that a puppet is sending: it confirms nothing."""
    async with joined() as (room, house):
        room.presence(presence("Bob (m)", "puppet"))
        occupant = room.roster.by_nick["Bob (m)"]
        room.own(occupant, PUPPET)
        echo = room.await_echo("key-1")
        room.message(xml(line("Ann", "not Bob", id="key-1", occupant_id="ann", archive="a1")))
        await until(lambda: house.store.lines)
        assert not echo.done()
        assert house.store.lines[0].payload["account"] == f"{MUC}/ann"
        room.message(xml(line("Bob (m)", "Bob", id="key-1", occupant_id="puppet", archive="a2")))
        assert await asyncio.wait_for(echo, 1) == "a2"
        await asyncio.sleep(0.02)
        assert len(house.store.lines) == 1  # our own line did not come back in


async def test_who_takes_the_nickname_of_a_puppet_that_left_is_heard() -> None:
    async with joined() as (room, house):
        room.presence(presence("Bob (m)", "puppet"))
        room.own(room.roster.by_nick["Bob (m)"], PUPPET)
        room.disown("Bob (m)")
        room.presence(presence("Bob (m)", "eve"))
        room.message(xml(line("Bob (m)", "I am Eve", id="m1", occupant_id="eve", archive="a1")))
        await until(lambda: house.store.lines)
        assert house.store.lines[0].payload["account"] == f"{MUC}/eve"


async def test_a_line_told_twice_is_taken_once() -> None:
    async with joined() as (room, house):
        for _ in range(3):
            room.message(xml(line("Ann", "once", id="m1", occupant_id="ann", archive="a1")))
        room.message(xml(line("Ann", "twice", id="m2", occupant_id="ann", archive="a2")))
        await until(lambda: len(house.store.lines) == 2)
        assert [row.payload["text"] for row in house.store.lines] == ["once", "twice"]
