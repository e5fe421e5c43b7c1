"""Parley whole, with Synapse: text, ghosts and commands through every layer, over kills and outages.

Not here: the XMPP side (tests/gateways/xmpp), media (tests/scenarios/test_three_worlds).
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.peers import synapse
from tests.peers.parley import ROOT, Parley
from tests.peers.synapse import Synapse, User

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(bool(synapse.why_not()), reason=synapse.why_not()),
    pytest.mark.timeout(240),
]


@contextlib.asynccontextmanager
async def two_rooms(folder: Path) -> AsyncIterator[tuple[Synapse, Parley, User, str, str]]:
    """One conference bound to two Matrix rooms: a line in one must be said in the other."""
    parley = Parley(folder)
    async with Synapse(appservice_url=parley.internal_url, service_url=parley.url) as server:
        alice = await server.register("alice", display_name="Alice")
        one, two = await alice.create_room(name="One"), await alice.create_room(name="Two")
        parley.sections = {
            "matrix": {
                "homeserver": server.url,
                "server_name": server.server_name,
                "as_token": server.as_token,
                "hs_token": server.hs_token,
                "livekit_service_url": parley.url,
            },
            "conferences": [{"slug": "demo", "title": "Demo", "matrix": [one, two]}],
        }
        await migrate(parley)
        async with parley:
            for room in (one, two):
                await eventually(lambda room=room: has_bot(alice, room, server.bot_mxid), parley)
            yield server, parley, alice, one, two


async def migrate(parley: Parley) -> None:
    """As an operator does before the first start."""
    parley.folder.mkdir(parents=True, exist_ok=True)
    parley.config_path.write_text(yaml.safe_dump(parley.configuration()))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "migrate", "-c", str(parley.config_path), cwd=ROOT
    )
    assert await process.wait() == 0


async def eventually(
    claim: Callable[[], Awaitable[Any]], parley: Parley, wait_s: float = 20.0
) -> Any:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if found := await claim():
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"did not happen in {wait_s:.0f} s:\n{parley.last_words()}")


async def has_bot(user: User, room: str, bot: str) -> bool:
    return any(
        e["type"] == "m.room.member"
        and e["state_key"] == bot
        and e["content"]["membership"] == "join"
        for e in await user.state(room)
    )


async def bodies(user: User, room: str) -> list[str]:
    return [
        e["content"].get("body", "")
        for e in await user.history(room, 200)
        if e["type"] == "m.room.message"
    ]


async def test_text_commands_and_tokens_through_every_layer(tmp_path: Path) -> None:
    async with two_rooms(tmp_path) as (server, parley, alice, one, two):
        await alice.say(one, "hello")

        async def arrived() -> bool:
            return "Alice: hello" in await bodies(alice, two)

        await eventually(arrived, parley)

        await alice.say(one, "!conf status")

        async def answered() -> bool:
            return any("Nobody is in the call" in body for body in await bodies(alice, one))

        await eventually(answered, parley)
        assert not any("!conf" in body for body in await bodies(alice, two)), (
            "a command was relayed"
        )

        body = {"room": one, "openid_token": await alice.openid(), "device_id": alice.device}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{parley.url}/sfu/get", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()
        carol = await server.register("carol")
        body = {"room": one, "openid_token": await carol.openid(), "device_id": carol.device}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{parley.url}/sfu/get", json=body) as answer,
        ):
            assert answer.status == 403, "a token for somebody who is not in the room"


async def test_every_line_once_over_kills_of_parley_and_of_the_homeserver(tmp_path: Path) -> None:
    async with two_rooms(tmp_path) as (server, parley, alice, one, two):
        lines = [f"line {number}" for number in range(24)]
        for number, line in enumerate(lines):
            await alice.say(one, line)
            if number in (6, 12):
                await parley.kill()
                await parley.start()
            if number == 18:
                await server.restart()

        async def said() -> list[str]:
            return [body for body in await bodies(alice, two) if body.startswith("Alice: ")]

        async def all_there() -> bool:
            return len(await said()) >= len(lines)

        with contextlib.suppress(AssertionError):  # what is missing says more than that it is
            await eventually(all_there, parley, 90)
        await asyncio.sleep(2)  # a doubled line would come late
        assert await said() == [f"Alice: {line}" for line in lines], parley.last_words()
