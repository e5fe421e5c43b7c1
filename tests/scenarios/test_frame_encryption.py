"""SE1: encrypted frames pass untouched, and who lacks the key gets nothing of them. Parley never has a key.

Element Call in an encrypted Matrix room (keys of each participant, by Olm between their devices), and the LiveKit
SDKs, native and livekit-client with its own worker, with a shared key. All are proven with what their users see and hear; in the browser every frame's fingerprint
is compared between the sender's encryption and the receiver's decryption.
Not here: encrypted text (the bridge cannot read it), what people without keys are told (unit tests of the gateways).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.peers import elementcall, sdkpage
from tests.peers.browser import Browser, Look, hears, open_browser
from tests.peers.frames import TAP, Frame, frames
from tests.peers.parley import Parley
from tests.peers.process import PeerProcess
from tests.peers.stack import running_stack
from tests.scenarios.cast import ElementCallPerson, ProcessPerson, person_hears, person_sees
from tests.scenarios.test_livekit_loop import token

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

ALICE, BEA, EVE = Look(500, (210, 40, 40)), Look(900, (40, 60, 210)), Look(1300, (40, 190, 60))
IV_BYTES = 12  # of LiveKit's frame encryption


async def _within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> None:
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


def _assert_untouched(sent: list[Frame], received: list[Frame], kind: str, least: int) -> None:
    """Every frame that came is one that left the other's encryption, bit for bit."""
    left = {frame.hash for frame in sent if frame.is_sent and frame.kind == kind}
    came = [frame for frame in received if not frame.is_sent and frame.kind == kind]
    assert len(came) >= least, f"only {len(came)} {kind} frames"
    assert all(frame.iv_bytes == IV_BYTES for frame in came), f"{kind} frames without encryption"
    assert [frame for frame in came if frame.hash not in left] == []


async def test_element_call_in_an_encrypted_room(tmp_path: Path) -> None:
    async with running_stack(folder=tmp_path / "stack") as stack:
        bea_account = await stack.synapse.register("bea", display_name="Bea")
        room = await stack.alice.create_room(name="Secret", is_encrypted=True)
        await bea_account.join(room)
        alice_storage = elementcall.storage_script(stack.session(stack.alice)) + TAP
        bea_storage = elementcall.storage_script(stack.session(bea_account)) + TAP
        async with (
            open_browser(ALICE, storage=alice_storage, log=tmp_path / "alice.log") as a,
            open_browser(BEA, storage=bea_storage, log=tmp_path / "bea.log") as b,
        ):
            await elementcall.join(a, stack.element_call, room, stack.synapse.server_name)
            await elementcall.join(b, stack.element_call, room, stack.synapse.server_name)
            alice = ElementCallPerson("alice", ALICE, a, stack.alice, room)
            bea = ElementCallPerson("bea", BEA, b, bea_account, room)
            for one, other in ((alice, bea), (bea, alice)):
                await _within(40, lambda p=one, o=other: person_hears(p, o), f"{one.name} hears")
                await _within(40, lambda p=one, o=other: person_sees(p, o), f"{one.name} sees")
            await asyncio.sleep(5)
            # What had come by then left before.
            came_to_alice, came_to_bea = await frames(a), await frames(b)
            left_alice, left_bea = await frames(a), await frames(b)
            for kind, least in (("audio", 100), ("video", 30)):
                _assert_untouched(left_alice, came_to_bea, kind, least)
                _assert_untouched(left_bea, came_to_alice, kind, least)


@pytest.mark.parametrize("connections", [1, 2], ids=["single", "dual"])
async def test_sdk_clients_with_one_key_and_another(tmp_path: Path, connections: int) -> None:
    def client(parley: Parley, name: str, look: Look, key: str) -> PeerProcess:
        arguments = ["--url", parley.ws_url, "--token", token(parley, name)]
        arguments += ["--tone-hz", str(look.tone_hz), "--rgb", ",".join(map(str, look.rgb))]
        arguments += ["--connections", str(connections), "--frame-key", key]
        return PeerProcess("tests.peers.native", arguments, tmp_path / f"{name}.log")

    async with (
        Parley(tmp_path / "parley") as parley,
        client(parley, "alice", ALICE, "right") as a,
        client(parley, "bea", BEA, "right") as b,
        client(parley, "eve", EVE, "wrong") as e,
    ):
        alice, bea = ProcessPerson("alice", ALICE, a), ProcessPerson("bea", BEA, b)
        eve = ProcessPerson("eve", EVE, e)
        for one, other in ((alice, bea), (bea, alice)):
            await _within(20, lambda p=one, o=other: person_hears(p, o), f"{one.name} hears")
            await _within(20, lambda p=one, o=other: person_sees(p, o), f"{one.name} sees")

        async def is_fed() -> bool:
            packets = [received for received, _ in (await eve.reception()).values()]
            return len(packets) == 4 and min(packets) > 50

        await _within(20, is_fed, "everything reaches the one with a wrong key")
        for listener, speaker in ((eve, alice), (eve, bea), (alice, eve), (bea, eve)):
            assert not await person_hears(listener, speaker), f"{listener.name} without the key"
            assert not await person_sees(listener, speaker), f"{listener.name} without the key"
        assert [seen["frames"] for seen in await e.ask("colours")] in ([], [0, 0])


async def test_livekit_client_with_its_own_worker(tmp_path: Path) -> None:
    async with (
        Parley(tmp_path / "parley") as parley,
        sdkpage.served() as page,
        open_browser(ALICE, storage=TAP, log=tmp_path / "alice.log") as alice,
        open_browser(BEA, storage=TAP, log=tmp_path / "bea.log") as bea,
        open_browser(EVE, storage=TAP, log=tmp_path / "eve.log") as eve,
    ):
        for name, browser, key in (
            ("alice", alice, "right"),
            ("bea", bea, "right"),
            ("eve", eve, "wrong"),
        ):
            await sdkpage.join(browser, page, parley.ws_url, token(parley, name), key=key)
            await sdkpage.publish(browser, audio={}, video={})

        async def hears_and_sees(browser: Browser, other: Look) -> bool:
            return hears(await browser.peaks(), other.tone_hz) and await browser.sees(other.rgb)

        for browser, other in ((alice, BEA), (bea, ALICE)):
            await _within(40, lambda b=browser, o=other: hears_and_sees(b, o), "the other")
        await asyncio.sleep(3)
        came_to_alice, came_to_bea, came_to_eve = [await frames(b) for b in (alice, bea, eve)]
        left_alice, left_bea = await frames(alice), await frames(bea)
        # Eve's frames come to both; theirs to her.
        left_eve = await frames(eve)
        for kind, least in (("audio", 100), ("video", 30)):
            _assert_untouched(left_alice + left_eve, came_to_bea, kind, least)
            _assert_untouched(left_bea + left_eve, came_to_alice, kind, least)
            _assert_untouched(left_alice + left_bea, came_to_eve, kind, least)
        for browser, other in ((eve, ALICE), (eve, BEA), (alice, EVE), (bea, EVE)):
            assert not hears(await browser.peaks(), other.tone_hz), "without the key"
            assert not await browser.sees(other.rgb), "without the key"
        assert await sdkpage.encryption_errors(eve) != []
