"""Dino, a client that nobody here wrote, in a call of the conference: called by it, and calling it.

Sound both ways for 90 s (libnice sends no authenticated requests of its own: only our consent checks keep the
pair alive past 30 s), heard by and from a native LiveKit client with a Matrix account; its picture in Dino's
window. One retry with a fresh Dino; both tries are in the results.
Not here: how Dino is driven (`tests.peers.dino`).
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.peers import dino, prosody, xmppaccount
from tests.peers.browser import Look
from tests.peers.dinohome import Login
from tests.peers.process import PeerProcess
from tests.peers.stack import Stack, own_addresses, running_stack
from tests.scenarios.cast import ProcessPerson, jingle_arguments, native_arguments, person_hears
from tests.scenarios.results import FILE, Results

_REASON = (
    dino.why_not()
    or prosody.why_not()
    or ("" if len(own_addresses()) > 1 else "libnice needs an interface other than loopback")
)
pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(_REASON), reason=_REASON or "-"),
]

DINO_HZ, ALICE_HZ, OPERATOR_HZ = 440, 700, 1100
ALICE_RGB = (200, 30, 30)
CALL_S = 90.0
PAUSE_S = 2.0  # between two looks, which take a second themselves
SOUND_S = 30.0  # from the call to sound both ways, on two busy cores
ENOUGH = 0.9  # of the looks: a busy machine may swallow a moment, not the last ones
LAST = 3
TRIES = 2
PICTURE = 0.1  # of the screen; the call window covers a quarter


@dataclass(slots=True)
class Scene:
    """Everything that runs, but Dino."""

    stack: Stack
    alice: ProcessPerson
    operator: ProcessPerson
    results: Results = field(default_factory=Results)

    @contextlib.asynccontextmanager
    async def dino(self, log: Path) -> AsyncIterator[dino.Dino]:
        server = self.stack.prosody
        login = Login(f"bob@{server.domain}", "parley-demo", server.c2s_port, server.ca)
        async with dino.Dino(login, self.stack.focus, log, DINO_HZ) as one:
            yield one

    async def is_dino_heard(self) -> bool:
        return any(
            tones and abs(tones[0][0] - DINO_HZ) <= 10
            for tones in (heard["tones"] for heard in await self.alice.ask("peaks"))
        )

    async def is_bob_away(self) -> bool:
        return not any("bob" in who["identity"] for who in await self.alice.ask("people"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    logs = FILE.parent / "dino"  # kept, to read after a failure
    shutil.rmtree(logs, ignore_errors=True)
    async with (
        contextlib.AsyncExitStack() as clients,
        running_stack(folder=logs, log_level="debug", media_addresses=own_addresses()) as stack,
    ):
        server = stack.prosody
        for name in ("bob", "operator"):
            await server.register(name, "parley-demo")
        await xmppaccount.set_up(
            f"bob@{server.domain}",
            "parley-demo",
            server.c2s_port,
            server.ca,
            contacts=[stack.focus],
            rooms=[(stack.muc, "Bob")],
        )
        url, token = await stack.matrix_token(stack.alice)
        await stack.publish_membership(stack.alice)
        alice, operator = Look(ALICE_HZ, ALICE_RGB), Look(OPERATOR_HZ, (30, 30, 200))
        people: list[ProcessPerson] = []
        for name, look, module, arguments in (
            ("alice", alice, "tests.peers.native", native_arguments(url, token, alice)),
            (
                "operator",
                operator,
                "tests.peers.jingle",
                jingle_arguments(stack, "operator", operator),
            ),
        ):
            process = PeerProcess(module, arguments, logs / f"{name}.log")
            await clients.enter_async_context(process)
            people.append(ProcessPerson(name, look, process))
        acts = Scene(stack, people[0], people[1])
        try:
            yield acts
        finally:
            print("\n" + acts.results.table())
            acts.results.write()
            await clients.aclose()


async def until(check: Callable[[], Awaitable[bool]], limit_s: float) -> float | None:
    """Seconds until it held, or None."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        if await check():
            return time.monotonic() - began
        await asyncio.sleep(0.3)
    return None


def _told(took_s: float | None) -> str:
    return "never" if took_s is None else f"{took_s:.1f} s"


def is_steady(looks: list[bool]) -> bool:
    return len(looks) >= LAST and sum(looks) >= ENOUGH * len(looks) and all(looks[-LAST:])


async def is_alice_heard(client: dino.Dino) -> bool:
    tones = await client.tones()
    return bool(tones) and abs(tones[0][0] - ALICE_HZ) <= 10


async def watch(scene: Scene, client: dino.Dino, row: Callable[[str, str, bool], bool]) -> None:
    """Look at both ends every few seconds for as long as the call shall last."""

    async def both() -> bool:
        return await is_alice_heard(client) and await scene.is_dino_heard()

    took_s = await until(both, SOUND_S)
    row("sound both ways", _told(took_s), took_s is not None)
    if took_s is None:
        return
    in_dino: list[bool] = []
    from_dino: list[bool] = []
    seen: list[float] = []
    began = time.monotonic()
    while (now_s := time.monotonic() - began) < CALL_S:
        in_dino.append(await is_alice_heard(client))
        from_dino.append(await scene.is_dino_heard())
        if len(seen) < now_s / 15:
            seen.append(await client.share_of(ALICE_RGB))
        await asyncio.sleep(PAUSE_S)
    for what, looks in (
        (f"Dino hears {ALICE_HZ} Hz for {CALL_S:.0f} s", in_dino),
        (f"alice hears {DINO_HZ} Hz for {CALL_S:.0f} s", from_dino),
    ):
        row(what, f"{sum(looks)}/{len(looks)}", is_steady(looks))
    shown = sum(share >= PICTURE for share in seen)
    row(
        "Dino shows alice's picture",
        f"{shown}/{len(seen)}, {max(seen):.0%} of the screen",
        shown >= len(seen) - 1 and seen[-1] >= PICTURE,
    )
    counters = (await scene.alice.ask("statistics"))[-1]
    row(
        "packets from Dino",
        f"{counters['received']}, {counters['lost']} missing",
        counters["received"] > CALL_S * 40,
    )


async def play(
    scene: Scene, name: str, begin: Callable[[dino.Dino], Awaitable[None]], spoken: tuple[str, ...]
) -> None:
    """One call with a fresh Dino; once more if something was missing."""
    wrong: list[str] = []
    for number in range(1, TRIES + 1):
        act = f"{name} {number}"

        def row(what: str, value: str, good: bool, act: str = act) -> bool:
            return scene.results.add(act, what, value, good)

        log = scene.stack.folder / f"{name}-{number}"
        try:
            async with scene.dino(log) as client:
                await begin(client)
                await watch(scene, client, row)
                await client.screenshot(log / "screen.png")
                stanzas = client.stanzas()
                missing = [word for word in spoken if word not in stanzas]
                row("said in XMPP", f"without {missing}" if missing else "yes", not missing)
                await client.hang_up()
                took_s = await until(scene.is_bob_away, 5.0)
                row("gone when Dino hangs up", _told(took_s), took_s is not None)
        except RuntimeError as why:
            row("Dino could be driven", str(why).splitlines()[0], False)
        wrong = scene.results.bad(act)
        if not wrong:
            return
        print(f"{act}: {wrong}")
        await until(scene.is_bob_away, 45.0)
    assert not wrong


async def test_the_conference_calls_dino(scene: Scene) -> None:
    async def begin(client: dino.Dino) -> None:
        await scene.operator.say(f"!conf call bob@{scene.stack.prosody.domain}")
        await client.accept()

    await play(scene, "called", begin, ("proceed", "session-accept"))


async def test_dino_calls_the_conference(scene: Scene) -> None:
    await play(scene, "calls", lambda client: client.call(), ("propose", "session-initiate"))


async def test_a_client_that_hears_one_voice_hears_dino_when_dino_speaks(scene: Scene) -> None:
    """Dino tells no audio levels (RFC 6464); the operator's client hears the active speaker only."""
    act, listener = "speaker", scene.operator
    async with scene.dino(scene.stack.folder / act) as client:
        await client.call()
        assert await until(scene.is_dino_heard, SOUND_S) is not None
        await listener.ask("call", focus=scene.stack.focus, timeout_s=30)
        await listener.speak(False)
        for turn in range(2):
            await client.speak(False)
            await scene.alice.speak(True)
            took_s = await until(lambda: person_hears(listener, scene.alice), 10)
            scene.results.add(act, f"alice, turn {turn + 1}", _told(took_s), took_s is not None)
            await scene.alice.speak(False)
            await client.speak(True)

            async def dino_is_heard() -> bool:
                return any(abs(hz - DINO_HZ) <= 10 for hz, _ in await listener.peaks())

            took_s = await until(dino_is_heard, 10)
            scene.results.add(act, f"Dino, turn {turn + 1}", _told(took_s), took_s is not None)
        await scene.alice.speak(True)
        await listener.ask("hang_up")
        await client.hang_up()
    assert not scene.results.bad(act)
