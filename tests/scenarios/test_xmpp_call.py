"""Gate G4: two XMPP people in one conference hear and see each other, through parley, its worker and Prosody.

One client groups its contents as libwebrtc does, the other is plain as Dino is. A compact leg hears the
active speaker, so each is made to speak in turn.
Not here: other networks (the walking skeleton's scenario).
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.peers import prosody
from tests.peers.parley import ROOT, Parley
from tests.peers.process import PeerProcess
from tests.peers.prosody import Prosody

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(prosody.why_not()), reason=prosody.why_not() or "-"),
]

TONE_HZ = {"bob": 600, "carol": 1100}
RGB = {"bob": "200,30,30", "carol": "30,30,200"}


@dataclass
class Stage:
    """Everything that runs."""

    server: Prosody
    parley: Parley
    folder: Path

    @property
    def focus(self) -> str:
        return f"demo@{self.server.component}"

    @property
    def muc(self) -> str:
        return f"demo@{self.server.muc}"

    @contextlib.asynccontextmanager
    async def person(self, name: str, *manner: str) -> AsyncIterator[PeerProcess]:
        await self.server.register(name, "pw")
        arguments = [
            *("--jid", f"{name}@{self.server.domain}", "--password", "pw"),
            *("--port", str(self.server.c2s_port), "--ca", str(self.server.ca)),
            *("--muc", self.muc, "--nick", name),
            *("--tone-hz", str(TONE_HZ[name]), "--rgb", RGB[name]),
            *manner,
        ]
        log = self.folder / f"{name}.log"
        async with PeerProcess("tests.peers.jingle", arguments, log) as peer:
            yield peer


@contextlib.asynccontextmanager
async def stage(folder: Path, *, admins: Sequence[str] = ()) -> AsyncIterator[Stage]:
    async with Prosody() as server:
        sections = {
            "xmpp": {
                "component": server.component,
                "secret": server.component_secret,
                "port": server.component_port,
                "admins": list(admins),
            },
            "conferences": [{"slug": "demo", "title": "Demo", "xmpp": [f"demo@{server.muc}"]}],
        }
        parley = Parley(folder / "parley", sections, log_level="debug")
        await migrate(parley)
        async with parley:
            try:
                yield Stage(server, parley, folder)
            except BaseException:
                print(parley.last_words(80))
                raise


async def migrate(parley: Parley) -> None:
    parley.folder.mkdir(parents=True)
    parley.config_path.write_text(yaml.safe_dump(parley.configuration()))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "migrate", "-c", str(parley.config_path), cwd=ROOT
    )
    assert await process.wait() == 0


async def eventually(what: str, look: Any, *, timeout_s: float = 15.0) -> Any:
    """Ask again until the answer is true; says what was last seen."""
    end, seen = time.monotonic() + timeout_s, None
    while time.monotonic() < end:
        seen = await look()
        if seen:
            return seen
        await asyncio.sleep(0.3)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s")


def hears(peer: PeerProcess, hz: float) -> Any:
    async def look() -> bool:
        (heard,) = await peer.ask("peaks")
        return any(abs(tone[0] - hz) <= 10 for tone in heard["tones"])

    return look


def sees(peer: PeerProcess, rgb: str) -> Any:
    wanted = [int(value) for value in rgb.split(",")]

    async def look() -> bool:
        (seen,) = await peer.ask("colours")
        return bool(seen["rgb"]) and all(
            abs(got - want) <= 60 for got, want in zip(seen["rgb"], wanted, strict=True)
        )

    return look


def both_kinds(peer: PeerProcess) -> Any:
    async def look() -> bool:
        counters = await peer.ask("statistics")
        return {c["kind"] for c in counters if c["received"] > 20} == {"audio", "video"}

    return look


async def test_two_people_hear_and_see_each_other(tmp_path: Path) -> None:
    async with (
        stage(tmp_path) as scene,
        scene.person("bob") as bob,
        scene.person("carol", "--plain") as carol,
    ):
        await bob.ask("call", focus=scene.focus, timeout_s=30)
        await carol.ask("call", focus=scene.focus, by_message=False, timeout_s=30)
        for speaker, name, listener in ((bob, "bob", carol), (carol, "carol", bob)):
            await listener.ask("speak", on=False)
            await speaker.ask("speak", on=True)
            await eventually(f"{name} is heard", hears(listener, TONE_HZ[name]))
            await eventually(f"{name} is seen", sees(listener, RGB[name]))
        for peer in (bob, carol):
            await peer.ask("speak", on=True)
        for peer in (bob, carol):
            await eventually("packets of both kinds", both_kinds(peer))


async def moderator_says(peer: PeerProcess, text: str, answer: str) -> None:
    await peer.ask("say", text=text)

    async def look() -> bool:
        return any(answer in line["text"] for line in await peer.ask("texts"))

    await eventually(f"answer to {text}", look)


def happened(peer: PeerProcess, what: str) -> Any:
    async def look() -> list[dict[str, Any]]:
        return [item for item in await peer.ask("happened") if item["what"] == what]

    return look


def no_longer(claim: Any) -> Any:
    async def look() -> bool:
        return not await claim()

    return look


async def lost(peer: PeerProcess) -> int:
    """RTP sequence numbers that never came."""
    return sum(c["lost"] for c in await peer.ask("statistics") if c["type"] == "inbound-rtp")


async def received(peer: PeerProcess) -> int:
    return sum(c["received"] for c in await peer.ask("statistics") if c["kind"] == "audio")


async def test_mute_by_a_moderator_calling_out_and_leaving(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, admins=["bob@call.test"]) as scene,
        scene.person("bob") as bob,
        scene.person("carol", "--plain") as carol,
    ):
        await bob.ask("call", focus=scene.focus, timeout_s=30)
        await bob.ask("speak", on=False)
        await moderator_says(bob, "!conf call carol@call.test", "Calling carol@call.test.")
        await eventually("carol is called", happened(carol, "session-initiate"))
        await eventually("carol is heard", hears(bob, TONE_HZ["carol"]))
        await eventually("carol is seen", sees(bob, RGB["carol"]))

        await moderator_says(bob, "!conf mute carol", "carol is muted.")
        await eventually("carol is silent", no_longer(hears(bob, TONE_HZ["carol"])), timeout_s=3)
        await eventually("carol is told", happened(carol, "session-info"))
        await moderator_says(bob, "!conf unmute carol", "carol may speak again")
        await moderator_says(bob, "!conf status", "2 in the call")

        await carol.ask("hang_up")
        await moderator_says(bob, "!conf status", "1 in the call")
        await moderator_says(bob, "!conf end", "The call has ended.")
        await eventually("bob is told", happened(bob, "session-terminate"))


async def test_a_killed_client_is_gone_in_time(tmp_path: Path) -> None:
    async with (
        stage(tmp_path) as scene,
        scene.person("bob") as bob,
        scene.person("carol", "--plain") as carol,
    ):
        await bob.ask("call", focus=scene.focus, timeout_s=30)
        await carol.ask("call", focus=scene.focus, timeout_s=30)
        await bob.ask("speak", on=False)
        await eventually("carol is heard", hears(bob, TONE_HZ["carol"]))
        await carol.kill()

        async def alone() -> bool:
            await bob.ask("say", text="!conf status")
            await asyncio.sleep(1)
            return any("1 in the call" in line["text"] for line in await bob.ask("texts"))

        # Prosody's smacks keeps her presence for minutes: only the silence of her media counts.
        await eventually("carol is gone", alone, timeout_s=36)


async def test_parley_and_prosody_may_die_without_costing_a_packet(tmp_path: Path) -> None:
    async with (
        stage(tmp_path) as scene,
        scene.person("bob") as bob,
        scene.person("carol", "--plain") as carol,
    ):
        await bob.ask("call", focus=scene.focus, timeout_s=30)
        await carol.ask("call", focus=scene.focus, timeout_s=30)
        await bob.ask("speak", on=False)
        await eventually("carol is heard", hears(bob, TONE_HZ["carol"]))
        before = await received(bob)

        await scene.parley.kill()
        await asyncio.sleep(5)
        assert await received(bob) - before > 200  # 50 packets a second went on
        await scene.parley.start()
        await moderator_says(bob, "!conf status", "2 in the call")

        await scene.server.restart(down_s=2)
        await asyncio.sleep(3)
        assert await hears(bob, TONE_HZ["carol"])()
        assert await lost(bob) == 0
        assert await bob.ask("state") == await carol.ask("state") == "connected"


async def test_a_readopted_call_ends_when_its_client_hangs_up(tmp_path: Path) -> None:
    async with stage(tmp_path) as scene, scene.person("bob") as bob:
        await bob.ask("call", focus=scene.focus, timeout_s=30)
        await scene.parley.kill()
        await scene.parley.start()
        await moderator_says(bob, "!conf status", "1 in the call")
        await bob.ask("mute")
        await bob.ask("unmute")
        await bob.ask("hang_up")
        await moderator_says(bob, "!conf status", "Nobody is in the call")
