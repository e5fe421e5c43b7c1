"""One call, three worlds: Element Call, an XMPP client, a browser guest and LiveKit SDKs in one conference.

The acts run in order on one stack: everybody hears and sees everybody; text; force-mute; leaving; a killed
client; a killed control plane; restarted chat servers.
Not here: the people (tests.scenarios.cast), the stack (tests.peers.stack).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from tests.peers import elementcall, guestpage
from tests.peers.browser import Look, open_browser
from tests.peers.process import PeerProcess
from tests.peers.stack import Stack, running_stack
from tests.peers.synapse import User
from tests.scenarios.cast import (
    ElementCallPerson,
    GuestPerson,
    Person,
    ProcessPerson,
    jingle_arguments,
    native_arguments,
    person_hears,
    person_sees,
    plain_token,
)
from tests.scenarios.results import Results

pytestmark = [pytest.mark.peers, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

SAMPLES = 5
ENOUGH = 3  # of SAMPLES: encoders and two busy cores may swallow a moment

ALICE = Look(500, (210, 40, 40))
BOB = Look(700, (40, 60, 210))
ZOE = Look(900, (40, 190, 60))
DAVE = Look(1100, (220, 200, 40))
TOM = Look(1300, (180, 50, 200))


@dataclass(slots=True)
class Play:
    """The running call."""

    stack: Stack
    results: Results
    people: dict[str, Person] = field(default_factory=dict)
    clients: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    dave: User | None = None

    @property
    def everybody(self) -> list[Person]:
        return list(self.people.values())

    async def only(self, speaker: str | None) -> None:
        """Everybody else is silent; None = everybody speaks."""
        for name, person in self.people.items():
            await person.speak(speaker is None or name == speaker)

    async def native(self, name: str, look: Look, url: str, token: str) -> ProcessPerson:
        process = PeerProcess(
            "tests.peers.native",
            native_arguments(url, token, look),
            self.stack.folder / f"{name}.log",
        )
        await self.clients.enter_async_context(process)
        person = ProcessPerson(name, look, process)
        self.people[name] = person
        return person

    async def plain_native(self, name: str, look: Look) -> ProcessPerson:
        """A LiveKit SDK client with a token minted elsewhere; it gets a ghost."""
        url, token = await self.stack.matrix_token(self.stack.alice)
        room = _room_of(token)
        return await self.native(name, look, url, plain_token(self.stack, name, name.title(), room))

    async def jingle(self, name: str, look: Look) -> ProcessPerson:
        await self.stack.prosody.register(name, "parley-demo")
        process = PeerProcess(
            "tests.peers.jingle",
            jingle_arguments(self.stack, name, look, call=True),
            self.stack.folder / f"{name}.log",
        )
        await self.clients.enter_async_context(process)
        person = ProcessPerson(name, look, process)
        self.people[name] = person
        return person


def _room_of(token: str) -> str:
    import jwt

    room: str = jwt.decode(token, options={"verify_signature": False})["video"]["room"]
    return room


async def until(
    seconds: float, check: Callable[[], Awaitable[bool]], every_s: float = 0.25
) -> float | None:
    """Seconds until it held, or None."""
    began = time.monotonic()
    while True:
        if await check():
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            return None
        await asyncio.sleep(every_s)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def play() -> AsyncIterator[Play]:
    results = Results()
    async with running_stack(log_level="debug") as stack:
        play = Play(stack, results)
        async with play.clients:
            await _enter(play)
            try:
                yield play
            finally:
                print("\n" + results.table())
                results.write()
                print(stack.parley.last_words(200))


async def _enter(play: Play) -> None:
    """Everybody joins, each in the client's own way."""
    stack = play.stack
    logs = stack.folder
    enter = play.clients.enter_async_context

    browser = await enter(
        open_browser(
            ALICE,
            storage=elementcall.storage_script(stack.session(stack.alice)),
            log=logs / "alice.log",
        )
    )
    await elementcall.join(browser, stack.element_call, stack.room, stack.synapse.server_name)
    play.people["alice"] = ElementCallPerson("alice", ALICE, browser, stack.alice, stack.room)

    play.dave = dave = await stack.synapse.register("dave", display_name="Dave")
    await dave.join(stack.room)
    url, token = await stack.matrix_token(dave)
    await stack.publish_membership(dave)
    await play.native("dave", DAVE, url, token)

    await play.plain_native("tom", TOM)
    await play.jingle("bob", BOB)

    guest = await enter(open_browser(ZOE, log=logs / "zoe.log"))
    await guestpage.join(guest, await stack.parley.invite("demo"), "Zoe")
    play.people["zoe"] = GuestPerson("zoe", ZOE, guest)


async def _samples(check: Callable[[], Awaitable[bool]]) -> int:
    good = 0
    for _ in range(SAMPLES):
        good += await check()
        await asyncio.sleep(1.0)
    return good


async def _pair(play: Play, act: str, who: Person, whom: Person) -> None:
    heard, seen = await asyncio.gather(
        _samples(lambda: person_hears(who, whom)), _samples(lambda: person_sees(who, whom))
    )
    names = f"{who.name} <- {whom.name}"
    play.results.add(act, f"{names} tone", f"{heard}/{SAMPLES}", heard >= ENOUGH)
    play.results.add(act, f"{names} colour", f"{seen}/{SAMPLES}", seen >= ENOUGH)


async def test_everybody_hears_and_sees_everybody(play: Play) -> None:
    act = "media"
    await play.only(None)
    await asyncio.sleep(4)
    each = [person for name, person in play.people.items() if name != "bob"]
    await asyncio.gather(
        *(_pair(play, act, who, whom) for who in each for whom in play.everybody if who is not whom)
    )
    bob = play.people["bob"]
    for name, speaker in play.people.items():
        if name == "bob":
            continue
        await play.only(name)
        await until(8, lambda speaker=speaker: person_hears(bob, speaker))  # type: ignore[misc]
        await _pair(play, act, bob, speaker)
    await play.only(None)
    assert not play.results.bad(act)


async def test_text_crosses_exactly_once(play: Play) -> None:
    act = "text"
    for person in play.everybody:
        await person.say(f"line of {person.name}")
    await asyncio.sleep(1)

    async def all_there() -> bool:
        for reader in play.everybody:
            lines = "\n".join(await reader.texts())
            if any(
                f"line of {author.name}" not in lines
                for author in play.everybody
                if author is not reader
            ):
                return False
        return True

    await until(15, all_there)
    await asyncio.sleep(2)  # time for doubles to show up
    for reader in play.everybody:
        lines = await reader.texts()
        for author in play.everybody:
            if author is reader:
                continue
            count = sum(f"line of {author.name}" in line for line in lines)
            play.results.add(act, f"{reader.name} <- {author.name}", f"{count}x", count == 1)
    assert not play.results.bad(act)


async def test_force_mute_silences_a_client_that_keeps_sending(play: Play) -> None:
    act = "mute"
    stack, bob, dave = play.stack, play.people["bob"], play.people["dave"]
    assert await until(8, lambda: person_hears(dave, bob)) is not None
    await stack.alice.say(stack.room, "!conf mute bob@call.test")

    async def silent() -> bool:
        return not await person_hears(dave, bob)

    took = await until(8, silent)
    play.results.add(act, "bob is silent after the command", f"{took} s", took is not None)
    quiet = sum([await silent() for _ in range(4) if not await asyncio.sleep(0.7)])
    play.results.add(act, "and stays silent", f"{quiet}/4", quiet == 4)
    await stack.alice.say(stack.room, "!conf unmute bob@call.test")
    took = await until(8, lambda: person_hears(dave, bob))
    play.results.add(act, "bob is heard again after unmute", f"{took} s", took is not None)
    answers = [
        event["content"]["body"]
        for event in await stack.alice.history(stack.room)
        if event["type"] == "m.room.message" and event["content"].get("msgtype") == "m.notice"
    ]
    play.results.add(act, "the bot said what it did", f"{len(answers)} notices", len(answers) >= 2)
    assert not play.results.bad(act)


async def _is_in(play: Play, name: str) -> bool:
    people = await play.people["dave"].process.ask("people")  # type: ignore[attr-defined]
    return any(name in (person["identity"] + person["name"]).lower() for person in people)


async def test_a_leave_is_seen_everywhere(play: Play) -> None:
    act = "leave"
    members = len(await play.stack.alice.call_members(play.stack.room))
    assert await _is_in(play, "zoe")
    zoe = play.people.pop("zoe")
    assert isinstance(zoe, GuestPerson)
    await guestpage.leave(zoe.browser)

    async def gone() -> bool:
        now = len(await play.stack.alice.call_members(play.stack.room))
        return not await _is_in(play, "zoe") and now == members - 1

    took = await until(4, gone, 0.1)
    play.results.add(act, "zoe is gone everywhere", f"{took} s", took is not None and took <= 2)
    assert not play.results.bad(act)


async def test_killed_clients_disappear(play: Play) -> None:
    act = "killed"
    for name, limit_s in (("tom", 20), ("bob", 35)):
        person = play.people.pop(name)
        assert isinstance(person, ProcessPerson)
        assert await _is_in(play, name)
        await person.process.kill()

        async def gone(name: str = name) -> bool:
            return not await _is_in(play, name)

        took = await until(limit_s + 5, gone)
        shown = f"{took:.1f} s" if took is not None else "never"
        play.results.add(act, f"{name} is gone", shown, took is not None and took <= limit_s)
    assert not play.results.bad(act)


async def _losses(play: Play) -> dict[str, int]:
    """Missing RTP sequence numbers so far, per native receiver and track."""
    found: dict[str, int] = {}
    for name in ("dave", "tim"):
        person = play.people[name]
        assert isinstance(person, ProcessPerson)
        for row in await person.ask("statistics"):
            found[f"{name} <- {row['identity']} {row['kind']}"] = row["lost"]
    return found


async def test_media_outlives_a_killed_control_plane(play: Play) -> None:
    act = "kill -9"
    stack, results = play.stack, play.results
    await play.plain_native("tim", TOM)
    await play.jingle("ben", BOB)
    dave, ben, tim = (play.people[name] for name in ("dave", "ben", "tim"))
    for check in (
        lambda: person_hears(dave, tim),
        lambda: person_hears(dave, ben),
        lambda: person_hears(tim, dave),
    ):
        assert await until(15, check) is not None
    await asyncio.sleep(3)
    before = await _losses(play)
    worker = stack.parley.worker_pid
    await stack.parley.kill()
    heard = sum([await person_hears(dave, tim) for _ in range(5) if not await asyncio.sleep(1)])
    results.add(act, "dave hears tim while parley is down", f"{heard}/5", heard == 5)
    began = time.monotonic()
    ready = await stack.parley.start()
    results.add(act, "parley is healthy again", f"{ready:.1f} s", ready <= 10)
    results.add(act, "the worker is the same", str(worker), stack.parley.worker_pid == worker)
    await asyncio.sleep(5)
    after = await _losses(play)
    missing = {key: after.get(key, 10**6) - lost for key, lost in before.items()}
    results.add(
        act, "missing RTP sequence numbers", str(sum(missing.values())), not any(missing.values())
    )

    async def said(person: Person, text: str) -> bool:
        return sum(text in line for line in await person.texts()) == 1

    async def resumed() -> bool:
        happened = await tim.process.ask("happened")  # type: ignore[attr-defined]
        return any(event["what"] == "reconnected" for event in happened)

    took = await until(20, resumed)
    results.add(act, "tim's signalling resumed", f"{took}", took is not None)
    results.add(act, "wall time since the restart", f"{time.monotonic() - began:.1f} s", True)
    results.add(act, "roster: ben is still in", "", await _is_in(play, "ben"))
    await stack.alice.say(stack.room, "after the kill")
    took = await until(10, lambda: said(ben, "after the kill"))
    results.add(act, "text reaches the MUC", f"{took} s", took is not None)
    await stack.alice.say(stack.room, "!conf mute ben@call.test")

    async def silent() -> bool:
        return not await person_hears(dave, ben)

    took = await until(8, silent)
    results.add(act, "mute works", f"{took} s", took is not None)
    await stack.alice.say(stack.room, "!conf unmute ben@call.test")
    nina = await play.plain_native("nina", ZOE)
    took = await until(15, lambda: person_sees(tim, nina))
    results.add(act, "renegotiation: tim sees a newcomer", f"{took} s", took is not None)
    await ben.process.ask("hang_up")  # type: ignore[attr-defined]

    async def ben_gone() -> bool:
        return not await _is_in(play, "ben")

    took = await until(6, ben_gone)
    results.add(act, "a Jingle terminate works", f"{took} s", took is not None)
    assert not results.bad(act)


async def test_chat_servers_may_restart(play: Play) -> None:
    act = "restarts"
    stack, results = play.stack, play.results
    dave, tim, ben = (play.people[name] for name in ("dave", "tim", "ben"))
    before = await _losses(play)
    await asyncio.gather(stack.prosody.restart(down_s=2), stack.synapse.restart(down_s=2))
    heard = await until(5, lambda: person_hears(dave, tim))
    results.add(act, "media goes on", f"{heard} s", heard is not None)
    after = await _losses(play)
    missing = sum(after.get(key, 10**6) - lost for key, lost in before.items())
    results.add(act, "missing RTP sequence numbers", str(missing), missing == 0)
    await asyncio.sleep(5)
    await stack.alice.say(stack.room, "after the restarts")

    async def in_call() -> bool:
        return sum("after the restarts" in line for line in await dave.texts()) == 1

    took = await until(30, in_call)
    results.add(act, "Matrix text reaches the call", f"{took} s", took is not None)

    async def in_muc() -> bool:
        history = await ben.texts()
        return sum("after the restarts" in line for line in history) == 1

    await ben.process.ask("join", room=stack.muc, nick="Ben")  # type: ignore[attr-defined]
    took = await until(30, in_muc)
    results.add(act, "and the MUC", f"{took} s", took is not None)
    assert not results.bad(act)
