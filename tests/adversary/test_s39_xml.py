"""S39: a hostile or broken XMPP server. DOCTYPE, entities, instructions, size, depth; logs without content.

The four cases that an unguarded slixmpp 1.17.0 takes (security-reliability.md, section 0.3), and neighbours.
Each runs against the parser and against a live component stream: nothing is delivered, the stream is dropped
quickly, the next connection works.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element

import pytest

from bridge.conference.errors import Malformed
from bridge.gateways.xmpp import link
from bridge.gateways.xmpp.guard import MAX_DEPTH, MAX_STANZA_BYTES, Guard, Opened, Stanza
from bridge.gateways.xmpp.link import Link
from tests.gateways.xmpp.fakes import until

HEADER = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
    b"xmlns:stream='http://etherx.jabber.org/streams' id='1' from='conf.call.test'>"
)
CANARY = b"canary-9f2"
BOMB = (
    b"<!DOCTYPE b [<!ENTITY a '"
    + CANARY
    + b"'>"
    + b"".join(
        b"<!ENTITY %c '%s'>" % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(9)
    )
    + b"]>"
)
MESSAGE = b"<message from='a@call.test' to='demo@conf.call.test'><body>%s</body></message>"

INSIDE = {
    "8 MB body": MESSAGE % (CANARY + b"x" * 8_000_000),
    "300 KB attribute": b"<message to='conf.call.test' id='" + CANARY + b"y" * 300_000 + b"'/>",
    "20,000 nested elements": b"<message>" + b"<e>" * 20_000 + CANARY,
    "one element too deep": b"<a>" * MAX_DEPTH + CANARY,
    "processing instruction": b"<?php " + CANARY + b" ?>",
    "comment": b"<!-- " + CANARY + b" -->",
    "undeclared entity": MESSAGE % (b"&" + CANARY + b";"),
    "unclosed": MESSAGE % (b"</" + CANARY + b">"),
    "DOCTYPE inside the stream": b"<!DOCTYPE x [<!ENTITY e '" + CANARY + b"'>]>" + MESSAGE % b"&e;",
    "NUL": MESSAGE % (CANARY + b"\x00"),
    "not UTF-8": MESSAGE % (CANARY + b"\xff\xfe"),
    "unbound prefix": b"<evil:message>" + CANARY + b"</evil:message>",
    "attribute twice": b"<message id='" + CANARY + b"' id='2'/>",
}
BEFORE = {
    "DOCTYPE with an internal entity": b"<?xml version='1.0'?><!DOCTYPE m [<!ENTITY e '"
    + CANARY
    + b"'>]>",
    "DOCTYPE that names a file": b"<!DOCTYPE m [<!ENTITY e SYSTEM 'file:///" + CANARY + b"'>]>",
    "DOCTYPE that names a URL": b"<!DOCTYPE m SYSTEM 'http://127.0.0.1:9/" + CANARY + b".dtd'>",
    "entities that multiply": BOMB,
}
CASES = {name: HEADER + data for name, data in INSIDE.items()} | {
    name: data + HEADER.replace(b"<?xml version='1.0'?>", b"") + MESSAGE % b"&e;&j;"
    for name, data in BEFORE.items()
}


@pytest.mark.parametrize("name", CASES)
def test_the_parser_refuses_and_names_no_content(name: str) -> None:
    began = time.perf_counter()
    with pytest.raises(Malformed) as refusal:
        _feed(Guard(), CASES[name])
    assert time.perf_counter() - began < 0.5
    text = str(refusal.value) + repr(refusal.value.__cause__)
    assert CANARY.decode() not in text


def _feed(guard: Guard, data: bytes) -> None:
    for at in range(0, len(data), 65_536):
        items = guard.feed(data[at : at + 65_536])
        assert not [item for item in items if isinstance(item, Stanza)]


def test_the_largest_stanza_and_the_deepest_are_taken() -> None:
    guard = Guard()
    (opened,) = guard.feed(HEADER)
    assert isinstance(opened, Opened)
    body = b"x" * (MAX_STANZA_BYTES - 200)
    items = [
        item
        for at in range(0, len(body) + 200, 4096)
        for item in guard.feed((MESSAGE % body)[at : at + 4096])
    ]
    assert len(items) == 1
    depth = MAX_DEPTH - 1  # the stream's root is one
    assert len(guard.feed(b"<a>" * depth + b"</a>" * depth)) == 1
    # Many small stanzas and keep-alives in one read are not one large stanza.
    assert len(guard.feed(MESSAGE % (b"x" * 1000) * 400)) == 400
    for _ in range(100):
        assert guard.feed(b" " * 65_536) == []
    assert len(guard.feed(MESSAGE % b"still here")) == 1


@contextlib.asynccontextmanager
async def server(*openings: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Accepts every component; connection number n says `openings[n]`, the last one for ever."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(said)
        said.append(b"")
        opening = openings[min(number, len(openings) - 1)]
        with contextlib.suppress(OSError):
            if opening.startswith(HEADER):
                writer.write(HEADER)
                said[number] += await reader.readuntil(b"</handshake>")
                writer.write(b"<handshake/>" + opening[len(HEADER) :])
            else:
                writer.write(opening)
            while data := await reader.read(65_536):
                said[number] += data
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], said
    finally:
        listener.close()
        await listener.wait_closed()


@contextlib.asynccontextmanager
async def component(port: int, stanzas: list[Element]) -> AsyncIterator[Link]:
    stream = Link(
        "conf.call.test",
        "secret",
        "127.0.0.1",
        port,
        on_stanza=stanzas.append,
        on_up=lambda: None,
        on_down=lambda: None,
    )
    task = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("name", CASES)
async def test_the_stream_is_dropped_and_the_next_one_works(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "BACKOFF_FIRST_S", 0.02)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "asyncio")
    good = HEADER + MESSAGE % b"good morning"
    stanzas: list[Element] = []
    async with server(CASES[name], good) as (port, _), component(port, stanzas):
        await until(lambda: stanzas, timeout_s=8)
    assert [stanza.findtext("{jabber:client}body") for stanza in stanzas] == ["good morning"]
    assert CANARY.decode() not in caplog.text


async def test_stanzas_for_others_and_forged_answers_are_dropped() -> None:
    """S36: only our domain; an iq answer counts only from the address that was asked."""
    foreign = b"<message from='a@call.test' to='x@other.test'><body>no</body></message>"
    stanzas: list[Element] = []
    async with server(HEADER + foreign + MESSAGE % b"yes") as (port, said):
        async with component(port, stanzas) as stream:
            await until(lambda: stanzas, timeout_s=5)
            assert len(stanzas) == 1
            iq = Element(
                "{jabber:client}iq",
                {"to": "bob@call.test/x", "from": "d@conf.call.test", "type": "get"},
            )
            asking = asyncio.create_task(stream.request(iq, timeout_s=5))
            await asyncio.sleep(0.05)
            for sender, kind in (("eve@call.test/x", "result"), ("bob@call.test", "result")):
                stream.received(_answer(iq, sender, kind))
            await asyncio.sleep(0.01)
            assert not asking.done()
            stream.received(_answer(iq, "bob@call.test/x", "result"))
            assert (await asking).get("type") == "result"
        assert b"<handshake" in said[0]


def _answer(iq: Element, sender: str, kind: str) -> Element:
    return Element(
        "{jabber:client}iq",
        {"from": sender, "to": "d@conf.call.test", "type": kind, "id": iq.get("id", "")},
    )
