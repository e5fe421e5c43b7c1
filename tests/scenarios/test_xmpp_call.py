"""Gate G4: two XMPP people in one conference hear and see each other, through parley, its worker and Prosody.

One client groups its contents as libwebrtc does, the other is plain as Dino is. A compact leg hears the
active speaker, so each is made to speak in turn.
Not here: other networks (the walking skeleton's scenario).
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
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
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with Prosody() as server:
        sections = {
            "xmpp": {
                "component": server.component,
                "secret": server.component_secret,
                "port": server.component_port,
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
            counters = await peer.ask("statistics")
            assert {c["kind"] for c in counters if c["received"] > 20} == {"audio", "video"}
