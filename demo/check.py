"""One call, unattended: a Matrix person (native LiveKit client) and an XMPP person (Jingle client).

Both send a tone and a colour and a line of text; each must hear, see and read the other.
Not here: the full play with every client (tests/scenarios).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from tests.peers.browser import Look
from tests.peers.process import PeerProcess
from tests.peers.stack import Stack
from tests.scenarios.cast import (
    Person,
    ProcessPerson,
    jingle_arguments,
    native_arguments,
    person_hears,
    person_sees,
)

PATIENCE_S = 25.0


async def _within(seconds: float, check: Callable[[], Awaitable[bool]]) -> float | None:
    """Seconds until it held, or None."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if await check():
            return time.monotonic() - began
        await asyncio.sleep(0.3)
    return None


async def _read(reader: Callable[[], Awaitable[list[str]]], text: str) -> bool:
    return (await reader()).count(text) == 1


async def run(stack: Stack) -> int:
    """0 when everybody saw, heard and read everybody; prints what each saw."""
    log = stack.folder / "clients.log"
    url, token = await stack.matrix_token(stack.alice)
    await stack.publish_membership(stack.alice)
    await stack.prosody.register("bob", "parley-demo")
    matrix_look, xmpp_look = Look(600, (200, 30, 30)), Look(900, (30, 40, 200))
    async with contextlib.AsyncExitStack() as clients:
        native = await clients.enter_async_context(
            PeerProcess("tests.peers.native", native_arguments(url, token, matrix_look), log)
        )
        jingle = await clients.enter_async_context(
            PeerProcess(
                "tests.peers.jingle",
                jingle_arguments(stack, "bob", xmpp_look, call=True),
                log,
            )
        )
        alice: Person = ProcessPerson("alice (Matrix, LiveKit SDK)", matrix_look, native)
        bob: Person = ProcessPerson("bob (XMPP, Jingle)", xmpp_look, jingle)
        bad = 0

        async def expect(what: str, check: Callable[[], Awaitable[bool]]) -> None:
            nonlocal bad
            took = await _within(PATIENCE_S, check)
            bad += took is None
            print(f"  {'no ' if took is None else 'yes'}  {what}", flush=True)

        for who, whom in ((alice, bob), (bob, alice)):
            await expect(
                f"{who.name} hears {whom.name} at {whom.look.tone_hz} Hz",
                lambda who=who, whom=whom: person_hears(who, whom),  # type: ignore[misc]
            )
            await expect(
                f"{who.name} sees {whom.name} in {whom.look.rgb}",
                lambda who=who, whom=whom: person_sees(who, whom),  # type: ignore[misc]
            )
        await stack.alice.say(stack.room, "hello from Matrix")
        await bob.say("hello from XMPP")

        async def room_lines() -> list[str]:
            return [
                str(event["content"].get("body", ""))
                for event in await stack.alice.history(stack.room)
                if event["type"] == "m.room.message"
            ]

        await expect(
            "the line from Matrix is in the MUC once", lambda: _read(bob.texts, "hello from Matrix")
        )
        await expect(
            "the line from XMPP is in the Matrix room once",
            lambda: _read(room_lines, "hello from XMPP"),
        )
        await expect(
            "both lines are in the call once",
            lambda: _both(alice.texts),
        )
        members = await stack.alice.call_members(stack.room)
        print(f"  memberships in the Matrix room: {len(members)}")
    await stack.withdraw_membership(stack.alice)
    print("The call works." if not bad else f"{bad} expectations were not met.", flush=True)
    return 1 if bad else 0


async def _both(reader: Callable[[], Awaitable[list[str]]]) -> bool:
    lines = await reader()
    return lines.count("hello from Matrix") == 1 and lines.count("hello from XMPP") == 1
