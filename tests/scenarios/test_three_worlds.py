"""One call, three worlds: Element Call, an XMPP client, a browser guest and LiveKit SDKs in one conference.

The acts run in order on one stack: everybody hears and sees everybody; text; force-mute; leaving; a killed
client; a killed control plane; restarted chat servers.
Not here: the people (tests.scenarios.cast), the stack (tests.peers.stack).
"""

import asyncio
import contextlib
import shutil
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
from tests.scenarios.results import FILE, Results

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

    def process(self, name: str) -> PeerProcess:
        """The process of a native or Jingle person."""
        person = self.people[name]
        assert isinstance(person, ProcessPerson)
        return person.process

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
    logs = FILE.parent / "three-worlds"  # kept, to read after a failure
    shutil.rmtree(logs, ignore_errors=True)
    async with running_stack(folder=logs, log_level="debug") as stack:
        play = Play(stack, results)
        async with play.clients:
            await _enter(play)
            try:
                yield play
            finally:
                print("\n" + results.table())
                results.write()


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


async def _is_in(play: Play, name: str, by: str = "dave") -> bool:
    people = await play.process(by).ask("people")
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
        process = play.process(name)
        play.people.pop(name)
        assert await _is_in(play, name)
        await process.kill()

        async def gone(name: str = name) -> bool:
            return not await _is_in(play, name)

        took = await until(limit_s + 5, gone)
        shown = f"{took:.1f} s" if took is not None else "never"
        play.results.add(act, f"{name} is gone", shown, took is not None and took <= limit_s)
    assert not play.results.bad(act)


async def _flowing(people: list[Person]) -> list[dict[str, tuple[int, int]]]:
    """Everybody's reception, without streams whose sender is silent or gone."""
    first = [await person.reception() for person in people]
    await asyncio.sleep(2)
    second = [await person.reception() for person in people]
    return [
        {key: now[key] for key in then if key in now and now[key][0] > then[key][0]}
        for then, now in zip(first, second, strict=True)
    ]


async def _missing(
    people: list[Person], before: list[dict[str, tuple[int, int]]]
) -> tuple[int, int, list[str]]:
    """(packets received since, sequence numbers missing since, streams that are gone)."""
    received = missing = 0
    gone: list[str] = []
    for person, then in zip(people, before, strict=True):
        now = await person.reception()
        for stream, (packets, lost) in then.items():
            if stream not in now:
                gone.append(f"{person.name}: {stream}")
                continue
            received += now[stream][0] - packets
            missing += now[stream][1] - lost
    return received, missing, gone


async def test_media_outlives_a_killed_control_plane(play: Play) -> None:
    """Receivers: Element Call, our page (both livekit-client) and a Jingle client.

    COMPAT: the native SDK (livekit 1.2.0) starts its whole connection anew when the signalling port refuses
    it once, so it is not among the receivers; it joins again by itself, which is asserted too.
    """
    act = "kill -9"
    stack, results = play.stack, play.results
    guest = await play.clients.enter_async_context(open_browser(ZOE, log=stack.folder / "zoe2.log"))
    await guestpage.join(guest, await stack.parley.invite("demo"), "Zoe")
    zoe = play.people["zoe"] = GuestPerson("zoe", ZOE, guest)
    ben = await play.jingle("ben", BOB)
    alice, dave = play.people["alice"], play.people["dave"]
    receivers: list[Person] = [alice, zoe, ben]
    await play.only(None)
    for who, whom in ((alice, ben), (zoe, ben), (alice, zoe), (zoe, alice), (dave, ben)):
        assert await until(20, lambda who=who, whom=whom: person_hears(who, whom)) is not None  # type: ignore[misc]
    await play.process("dave").kill()  # its own restart would take streams away from the others
    play.people.pop("dave")
    await asyncio.sleep(8)
    before = await _flowing(receivers)
    connections = [await guest.connections()]
    worker = stack.parley.worker_pid
    began = time.monotonic()
    await stack.parley.kill()
    heard = 0
    for _ in range(5):
        await asyncio.sleep(1)
        heard += await person_hears(zoe, alice) and await person_hears(alice, zoe)
    results.add(act, "alice and zoe hear each other while parley is down", f"{heard}/5", heard >= 4)
    ready = await stack.parley.start()
    results.add(act, "parley is healthy again", f"{ready:.1f} s", ready <= 20)
    results.add(act, "wall gap of the control plane", f"{time.monotonic() - began:.1f} s", True)
    same = stack.parley.worker_pid == worker
    results.add(act, "the worker is the same", str(worker), same)
    await asyncio.sleep(8)
    received, missing, gone = await _missing(receivers, before)
    results.add(
        act, f"missing of {received} RTP packets", str(missing), missing == 0 and received > 0
    )
    results.add(act, "streams that ended", ", ".join(gone) or "none", not gone)
    same = connections == [await guest.connections()]
    results.add(act, "the page kept its peer connection", "", same)

    async def has(person: Person, text: str) -> bool:
        return sum(text in line for line in await person.texts()) == 1

    members = await stack.alice.call_members(stack.room)
    ben_is_in = any("ben" in key for key in members)
    results.add(act, "roster: ben's ghost is in the call", str(len(members)), ben_is_in)
    await stack.alice.say(stack.room, "after the kill")
    took = await until(10, lambda: has(ben, "after the kill"))
    results.add(act, "text reaches the MUC", f"{took} s", took is not None)
    took = await until(20, lambda: has(zoe, "after the kill"))
    results.add(act, "text reaches the page", f"{took} s", took is not None)
    assert await until(10, lambda: person_hears(zoe, ben)) is not None
    await stack.alice.say(stack.room, "!conf mute ben@call.test")

    async def silent() -> bool:
        return not await person_hears(zoe, ben)

    took = await until(8, silent)
    results.add(act, "mute works", f"{took} s", took is not None)
    await stack.alice.say(stack.room, "!conf unmute ben@call.test")
    nina = await play.plain_native("nina", TOM)
    took = await until(20, lambda: person_sees(zoe, nina))
    results.add(act, "renegotiation: zoe sees a newcomer", f"{took} s", took is not None)
    await ben.process.ask("hang_up")

    async def ben_gone() -> bool:
        return not await _is_in(play, "ben", by="nina")

    took = await until(6, ben_gone)
    results.add(act, "a Jingle terminate works", f"{took} s", took is not None)
    assert not results.bad(act)


async def test_chat_servers_may_restart(play: Play) -> None:
    act = "restarts"
    stack, results = play.stack, play.results
    alice, zoe, nina = (play.people[name] for name in ("alice", "zoe", "nina"))
    receivers = [alice, zoe, nina]
    before = await _flowing(receivers)
    await asyncio.gather(stack.prosody.restart(down_s=2), stack.synapse.restart(down_s=2))
    took = await until(5, lambda: person_hears(nina, zoe))
    results.add(act, "media goes on", f"{took} s", took is not None)
    received, missing, gone = await _missing(receivers, before)
    results.add(act, f"missing of {received} RTP packets", str(missing), missing == 0 and not gone)
    await play.process("ben").leave()  # slixmpp's client does not come back by itself here
    again = await play.jingle("ben", BOB)
    await stack.alice.say(stack.room, "after the restarts")

    async def has(person: Person) -> bool:
        return sum("after the restarts" in line for line in await person.texts()) == 1

    took = await until(30, lambda: has(nina))
    results.add(act, "Matrix text reaches the call", f"{took} s", took is not None)
    took = await until(30, lambda: has(again))
    results.add(act, "and the MUC", f"{took} s", took is not None)
    await again.say("XMPP is back")

    async def back() -> bool:
        return sum("XMPP is back" in line for line in await alice.texts()) == 1

    took = await until(30, back)
    results.add(act, "and the way back", f"{took} s", took is not None)
    assert not results.bad(act)
