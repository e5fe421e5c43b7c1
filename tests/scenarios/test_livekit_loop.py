"""G2: two native LiveKit SDK clients hear and see each other through parley, its worker and its engine.

Plain tokens, as any LiveKit back end mints them; over one connection (`/rtc/v1`), over two (`/rtc`), mixed.
Not here: other networks (test_three_worlds).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from livekit import api

from tests.peers.browser import hears, near
from tests.peers.parley import Parley
from tests.peers.process import PeerProcess

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

ALICE_HZ, BOB_HZ = 440, 880
ALICE_RGB, BOB_RGB = (200, 40, 40), (40, 60, 200)


def token(parley: Parley, identity: str) -> str:
    return (
        api.AccessToken(parley.api_key, parley.api_secret)
        .with_identity(identity)
        .with_name(identity.title())
        .with_grants(api.VideoGrants(room_join=True, room="loop"))
        .to_jwt()
    )


def _client(
    parley: Parley,
    folder: Path,
    name: str,
    hz: int,
    rgb: tuple[int, int, int],
    connections: int = 1,
) -> PeerProcess:
    colour = ",".join(map(str, rgb))
    url, allowed = parley.ws_url, token(parley, name)
    arguments = ["--url", url, "--token", allowed, "--tone-hz", str(hz), "--rgb", colour]
    arguments += ["--connections", str(connections)]
    return PeerProcess("tests.peers.native", arguments, folder / f"{name}.log")


@pytest.fixture
async def parley(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Parley]:
    """The parameter, if any: data-plane threads of the worker."""
    media = {"listen": ["127.0.0.1"], "port": 0, "shards": getattr(request, "param", 1)}
    async with Parley(tmp_path / "parley", {"media": media}) as server:
        yield server


async def _within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> float:
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return time.monotonic() - began
        await asyncio.sleep(0.2)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


async def _hears(peer: PeerProcess, hz: int) -> bool:
    tones = [tone for heard in await peer.ask("peaks") for tone in heard["tones"]]
    return hears(tones, hz)


async def _sees(peer: PeerProcess, rgb: tuple[int, int, int]) -> bool:
    return any(near(seen["rgb"], rgb) for seen in await peer.ask("colours") if seen["rgb"])


async def _has_data(peer: PeerProcess, text: str) -> bool:
    return any(packet["text"] == text for packet in await peer.ask("data"))


@pytest.mark.parametrize(
    ("parley", "connections"),
    [(1, (1, 1)), (1, (2, 2)), (1, (1, 2)), (2, (2, 2))],
    ids=["single", "dual", "mixed", "dual over two shards"],
    indirect=["parley"],
)
async def test_two_sdk_clients_hear_and_see_each_other(
    parley: Parley, tmp_path: Path, connections: tuple[int, int]
) -> None:
    async with (
        _client(parley, tmp_path, "alice", ALICE_HZ, ALICE_RGB, connections[0]) as alice,
        _client(parley, tmp_path, "bob", BOB_HZ, BOB_RGB, connections[1]) as bob,
    ):
        assert alice.ready["ready"] == "alice"  # its own name for itself
        for peer, hz, rgb in ((alice, BOB_HZ, BOB_RGB), (bob, ALICE_HZ, ALICE_RGB)):
            await _within(15, lambda p=peer, f=hz: _hears(p, f), "the other's tone")
            await _within(15, lambda p=peer, c=rgb: _sees(p, c), "the other's colour")
        assert not await _hears(alice, ALICE_HZ)  # nobody hears himself

        await alice.ask("say", text="grüß dich")

        async def read() -> bool:
            lines = await bob.ask("texts")
            return [line["text"] for line in lines] == ["grüß dich"]

        await _within(5, read, "the line of text")

        for reliable in (True, False):
            text = "sure" if reliable else "perhaps"  # lossy, yet on the loopback nothing is lost
            await alice.ask("send_data", text=text, topic="game", reliable=reliable)
            await _within(5, lambda p=bob, t=text: _has_data(p, t), f"{text} as data")
        assert await bob.ask("data") == [
            {"from": "alice", "text": "sure", "topic": "game", "reliable": True},
            {"from": "alice", "text": "perhaps", "topic": "game", "reliable": False},
        ]
        assert await alice.ask("data") == []  # not to who sent it

        await bob.ask("mute")
        await _within(5, lambda: _not(_hears(alice, BOB_HZ)), "silence after a mute")
        happened = [note["what"] for note in await alice.ask("happened")]
        assert "track_muted" in happened

        await bob.leave()

        async def gone() -> bool:
            return await alice.ask("people") == []

        took_s = await _within(5, gone, "the other is gone")
        assert took_s <= 2.0


async def test_a_killed_client_is_gone(parley: Parley, tmp_path: Path) -> None:
    async with _client(parley, tmp_path, "alice", ALICE_HZ, ALICE_RGB) as alice:
        bob = _client(parley, tmp_path, "bob", BOB_HZ, BOB_RGB)
        await bob.start()
        await _within(15, lambda: _hears(alice, BOB_HZ), "the other's tone")
        await bob.kill()

        async def gone() -> bool:
            return await alice.ask("people") == []

        await _within(20, gone, "the killed client is gone")


async def test_after_a_kill_of_parley_the_sdk_finds_everybody_again(
    parley: Parley, tmp_path: Path
) -> None:
    """COMPAT: livekit 1.2.0 (Rust) tries to resume once, at once; refused, it joins afresh with a new connection.

    So this client cannot show that media flows on (a browser resumes); it shows that nobody is left twice.
    """
    async with (
        _client(parley, tmp_path, "alice", ALICE_HZ, ALICE_RGB) as alice,
        _client(parley, tmp_path, "bob", BOB_HZ, BOB_RGB) as bob,
    ):
        await _within(15, lambda: _hears(alice, BOB_HZ), "the other's tone")
        await _within(15, lambda: _hears(bob, ALICE_HZ), "the other's tone")
        worker = parley.worker_pid
        assert worker is not None
        await parley.kill()
        await parley.start()
        assert parley.worker_pid == worker

        async def together() -> bool:
            people = [await peer.ask("people") for peer in (alice, bob)]
            return [len(others) for others in people] == [1, 1]

        await _within(30, together, "each sees exactly one other")
        await _within(15, lambda: _hears(alice, BOB_HZ), "the other's tone")
        await _within(15, lambda: _hears(bob, ALICE_HZ), "the other's tone")
        await alice.ask("say", text="back again")

        async def read() -> bool:
            return [line["text"] for line in await bob.ask("texts")] == ["back again"]

        await _within(10, read, "text after the restart")


async def _not(claim: Awaitable[bool]) -> bool:
    return not await claim
