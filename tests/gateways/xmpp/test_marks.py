"""How far a chat room has been read: after a crash nothing that was not kept may lie behind the mark (R14)."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from bridge.gateways.xmpp import muc
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.rooms import GATEWAY, Room
from tests.gateways.xmpp.fakes import CONFERENCE, MUC, FakeStore, FakeWire, House, until, xml

MARK = (GATEWAY, f"muc:{MUC}")
STAMP = "2026-11-20T10:00:0{}Z"


def live(nick: str, archive_id: str, occupant_id: str = "") -> Element:
    return xml(
        f"<message xmlns='jabber:client' type='groupchat' from='{MUC}/{nick}' id='m-{archive_id}'>"
        f"<body>{archive_id}</body>"
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{MUC}' id='{archive_id}'/>"
        f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{occupant_id or nick}'/></message>"
    )


def archived(query: str, number: int) -> Element:
    return xml(
        f"<message xmlns='jabber:client' from='{MUC}'>"
        f"<result xmlns='{muc.MAM}' queryid='{query}' id='a{number}'>"
        f"<forwarded xmlns='urn:xmpp:forward:0'>"
        f"<delay xmlns='urn:xmpp:delay' stamp='{STAMP.format(number)}'/>"
        f"<message xmlns='jabber:client' type='groupchat' from='{MUC}/bob' id='m-a{number}'>"
        f"<body>a{number}</body></message></forwarded></result></message>"
    )


class Crashing(FakeStore):
    """Takes no line from this one on, as if the process ended there, until it `goes_on`."""

    def __init__(self, ends_at: str) -> None:
        super().__init__()
        self.ends_at = ends_at
        self.goes_on = asyncio.Event()

    async def put(self, gateway: str, key: str, value: Any) -> bool:
        if not isinstance(value, Mapping) and key.endswith(f"|{self.ends_at}"):
            await self.goes_on.wait()
        return await super().put(gateway, key, value)


def a_room(store: FakeStore, wire: FakeWire) -> Room:
    house = House()
    up = asyncio.Event()
    up.set()
    house.context.store = house.context.inbox = store  # type: ignore[misc, assignment]
    return Room(house.context, wire, CONFERENCE, MUC, up, lambda _: None)


async def enter(room: Room, wire: FakeWire) -> "asyncio.Task[None]":
    task = asyncio.create_task(room.run())
    await until(lambda: any(one.tag == st.PRESENCE for one in wire.sent))
    room.presence(
        xml(
            f"<presence xmlns='jabber:client' from='{MUC}/Parley'>"
            "<x xmlns='http://jabber.org/protocol/muc#user'>"
            "<item affiliation='none' role='participant'/><status code='110'/></x></presence>"
        )
    )
    return task


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_an_echo_during_the_catch_up_does_not_hide_what_is_not_kept_yet() -> None:
    store, wire = Crashing("a3"), FakeWire()
    store.values[MARK] = {"id": "a0", "at_ms": 1_000}
    store.values[GATEWAY, f"own:{MUC}"] = {"ids": ["ours"], "present": {}}
    room = a_room(store, wire)

    def answer(iq: Element) -> Element:
        query = iq.find(f"{{{muc.MAM}}}query")
        if query is None:
            return xml(
                "<iq xmlns='jabber:client' type='result'>"
                "<query xmlns='http://jabber.org/protocol/disco#info'>"
                f"<feature var='{muc.MAM}'/></query></iq>"
            )
        for number in range(1, 6):
            room.message(archived(query.get("queryid", ""), number))
        room.own_nicks["Alice"] = "g-1@component/parley"
        room.message(live("Alice", "a9", "ours"))  # a line of ours, delivered meanwhile
        return xml(
            f"<iq xmlns='jabber:client' type='result'><fin xmlns='{muc.MAM}' complete='true'/></iq>"
        )

    wire.answer = answer
    task = await enter(room, wire)
    await until(lambda: len(store.lines) == 2)
    await asyncio.sleep(0.01)
    assert store.values[MARK]["id"] in ("a0", "a1", "a2")
    await end(task)


async def test_an_echo_waits_for_the_lines_before_it() -> None:
    store, wire = Crashing("a2"), FakeWire()
    room = a_room(store, wire)
    task = await enter(room, wire)
    await until(lambda: room._progress[1] > 0)  # what is said before is older than the room to us
    room.own_nicks["Alice"] = "g-1@component/parley"
    for nick, archive_id in (("bob", "a1"), ("bob", "a2"), ("Alice", "a3")):
        room.message(live(nick, archive_id))
        await asyncio.sleep(0.005)
    await until(lambda: len(store.lines) == 1)
    await asyncio.sleep(0.01)
    await room._save_progress(*room._progress)  # as the next line would, 5 s later
    assert store.values[MARK]["id"] == "a1"
    await end(task)


async def test_what_a_killed_process_sent_is_ours() -> None:
    """It may be reflected before its puppet is back in the room."""
    store, wire = FakeStore(), FakeWire()
    store.values[GATEWAY, f"own:{MUC}"] = {"ids": ["ours"], "present": {"g-1": "Alice"}}
    room = a_room(store, wire)
    task = await enter(room, wire)
    room.message(live("Alice", "a1", "ours"))
    room.message(live("bob", "a2"))
    await until(lambda: bool(store.lines))
    assert [row.payload["text"] for row in store.lines] == ["a2"]
    await end(task)


async def test_what_finds_no_room_is_read_from_the_archive(monkeypatch: Any) -> None:
    store, wire = Crashing("a1"), FakeWire()
    monkeypatch.setattr("bridge.gateways.xmpp.rooms.QUEUE", 2)
    room = a_room(store, wire)
    asked: list[str] = []

    def answer(iq: Element) -> Element:
        query = iq.find(f"{{{muc.MAM}}}query")
        if query is None:
            return xml(
                "<iq xmlns='jabber:client' type='result'>"
                "<query xmlns='http://jabber.org/protocol/disco#info'>"
                f"<feature var='{muc.MAM}'/></query></iq>"
            )
        asked.append(query.findtext(".//{http://jabber.org/protocol/rsm}after") or "")
        for number in range(4, 6):
            room.message(archived(query.get("queryid", ""), number))
        return xml(
            f"<iq xmlns='jabber:client' type='result'><fin xmlns='{muc.MAM}' complete='true'/></iq>"
        )

    wire.answer = answer
    task = await enter(room, wire)
    await asyncio.sleep(0.01)
    for number in range(1, 5):  # the first is being kept, two wait, the fourth finds no room
        room.message(live("bob", f"a{number}"))
        await asyncio.sleep(0.005)
    store.goes_on.set()
    await until(lambda: bool(store.lines))
    room.message(live("bob", "a5"))  # there would be room, but the fourth comes before it
    await until(lambda: len(store.lines) == 5)
    assert asked == ["a3"]
    assert [row.payload["text"] for row in store.lines] == [f"a{n}" for n in range(1, 6)]
    await end(task)
