"""R5 with native clients: parley is killed, started again at once as a supervisor does, and media goes on.

The native SDK resumes only if its first attempt to signal succeeds within 5 s; a refused connection makes it begin
its call anew. The worker holds the public port meanwhile, so the attempt waits.
Not here: browsers, which try again by themselves (test_livekit_browser); a longer outage.
"""

# Waiting for what clients see is polling.
# ruff: noqa: ASYNC110

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.peers.browser import Look
from tests.peers.parley import Parley
from tests.peers.process import PeerProcess
from tests.scenarios.cast import ProcessPerson, person_hears, person_sees
from tests.scenarios.test_livekit_loop import token

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

ALICE, BOB = Look(440, (200, 40, 40)), Look(880, (40, 60, 200))
DOWN_S = 0.2  # a supervisor needs a moment
# To resume, the SDK restarts ICE and leaves its port: what is on the way to that one may be lost. Mostly nothing is.
MOST_LOST = 4
PATIENCE_S = 4.0  # of the SDK, 5 s, less what an answer takes


async def _streams(person: ProcessPerson) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in await person.ask("statistics")}


@pytest.mark.parametrize("connections", [1, 2], ids=["single", "dual"])
async def test_native_clients_resume_when_parley_was_killed(
    tmp_path: Path, connections: int
) -> None:
    def client(parley: Parley, name: str, look: Look) -> PeerProcess:
        arguments = ["--url", parley.ws_url, "--token", token(parley, name)]
        arguments += ["--tone-hz", str(look.tone_hz), "--rgb", ",".join(map(str, look.rgb))]
        arguments += ["--connections", str(connections)]
        return PeerProcess("tests.peers.native", arguments, tmp_path / f"{name}.log")

    async with (
        Parley(tmp_path / "parley") as parley,
        client(parley, "alice", ALICE) as a,
        client(parley, "bob", BOB) as b,
    ):
        alice, bob = ProcessPerson("alice", ALICE, a), ProcessPerson("bob", BOB, b)
        async with asyncio.timeout(20):
            while not (await person_sees(alice, bob) and await person_hears(bob, alice)):
                await asyncio.sleep(0.25)
        before = {person.name: await _streams(person) for person in (alice, bob)}
        began = time.monotonic()
        await parley.kill()
        await asyncio.sleep(DOWN_S)
        await parley.start()
        down_s = time.monotonic() - began
        print(f"down for {down_s:.1f} s")
        if down_s > PATIENCE_S:
            pytest.skip(f"this machine took {down_s:.1f} s to start parley; the SDK waits for 5 s")
        await asyncio.sleep(8)
        for person in (alice, bob):
            happened = [note["what"] for note in await person.ask("happened")]
            assert "reconnected" in happened
            assert "participant_disconnected" not in happened, "began anew"
            after = await _streams(person)
            for kind, row in before[person.name].items():
                more = after[kind]["received"] - row["received"]
                assert more > 60, f"{person.name}, {kind}: {more} packets in the meantime"
                lost = after[kind]["lost"] - row["lost"]
                assert lost <= MOST_LOST, f"{person.name} misses {lost} packets of {kind}"
        await alice.say("still here")
        async with asyncio.timeout(5):
            while "still here" not in await bob.texts():
                await asyncio.sleep(0.2)
