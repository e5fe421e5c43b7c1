"""Text between two chat rooms of one conference, through parley's real inbox and outbox, under kills.

Exactly once and in order (R14), while parley is killed at random moments and Prosody restarts once.
Not here: text between networks (the walking skeleton's scenario).
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers import prosody
from tests.peers.jingle import Client
from tests.peers.parley import Parley
from tests.peers.prosody import Prosody
from tests.scenarios.test_xmpp_call import eventually, migrate

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(prosody.why_not()), reason=prosody.why_not() or "-"),
]

LINES = 60
KILLS = 3


@contextlib.asynccontextmanager
async def person(server: Prosody, name: str, room: str) -> AsyncIterator[Client]:
    await server.register(name, "pw")
    client = Client(f"{name}@{server.domain}", "pw")
    await client.log_in("127.0.0.1", server.c2s_port)
    await client.join(room, name)
    try:
        yield client
    finally:
        with contextlib.suppress(TimeoutError):
            await client.leave()


def lines_of(client: Client, nick: str) -> list[str]:
    return [line["text"] for line in client.texts if line["from"] == nick]


async def test_lines_cross_once_and_in_order_while_parley_is_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with Prosody() as server:
        rooms = [f"one@{server.muc}", f"two@{server.muc}"]
        sections = {
            "xmpp": {
                "component": server.component,
                "secret": server.component_secret,
                "port": server.component_port,
            },
            "conferences": [{"slug": "demo", "xmpp": rooms}],
        }
        parley = Parley(tmp_path / "parley", sections)
        await migrate(parley)
        async with (
            parley,
            person(server, "bob", rooms[0]) as bob,
            person(server, "carol", rooms[1]) as carol,
        ):

            async def crossed() -> bool:
                return bool(lines_of(carol, "bob")) and bool(lines_of(bob, "carol"))

            bob.say("ready")
            carol.say("ready")
            await eventually("both rooms are connected", crossed)
            kills = sorted(chance.sample(range(5, LINES - 5), KILLS))
            for number in range(LINES):
                bob.say(f"b{number}")
                carol.say(f"c{number}")
                await asyncio.sleep(chance.uniform(0, 0.08))
                if number in kills:
                    await parley.kill()
                    await parley.start()

            async def all_there() -> bool:
                return (
                    lines_of(carol, "bob")[-1] == f"b{LINES - 1}"
                    and lines_of(bob, "carol")[-1] == f"c{LINES - 1}"
                )

            await eventually("the last lines", all_there, timeout_s=60)
            await asyncio.sleep(2)  # a doubled line would come now
            assert lines_of(carol, "bob") == ["ready", *(f"b{n}" for n in range(LINES))]
            assert lines_of(bob, "carol") == ["ready", *(f"c{n}" for n in range(LINES))]
