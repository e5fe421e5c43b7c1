"""coturn believes the passwords we hand out, for as long as they say, for so many relays, and to our port only (S16, S17).

Not here: a browser that sends its media through it (test_networks).
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from aioice import stun
from aioice import turn as client
from pydantic import SecretStr

from bridge.config import TurnSection
from bridge.gateways.livekit.relays import ice_servers
from tests.peers import networks
from tests.peers.networks import Turn

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not networks.has_turn(), reason="no coturn here (packages.txt)"),
]


class _Heard(asyncio.DatagramProtocol):
    pass


def credentials(turn: Turn, name: str, now_s: float) -> tuple[str, str]:
    section = TurnSection(
        urls=(f"turn:127.0.0.1:{turn.port}",), secret=SecretStr(turn.secret), ttl_s=30
    )
    (server,) = ice_servers(section, name, now_s)
    return server.username, server.credential


async def allocate(turn: Turn, username: str, password: str) -> Any:
    """A relay's transport. Raises stun.TransactionFailed when coturn says no."""
    async with asyncio.timeout(10):
        transport, _ = await client.create_turn_endpoint(
            _Heard, server_addr=("127.0.0.1", turn.port), username=username, password=password
        )
    return transport


async def test_a_password_is_good_until_its_time_and_for_its_name(tmp_path: Path) -> None:
    async with networks.turn(tmp_path) as turn:
        username, password = credentials(turn, "leg1", time.time())
        relay = await allocate(turn, username, password)
        assert relay.get_extra_info("sockname")[0] == "127.0.0.1"
        await _close(relay)
        for wrong in (
            credentials(turn, "leg1", time.time() - 31),  # over
            (username, password[::-1]),
            (username.replace("leg1", "leg2"), password),
            (f"{int(time.time()) + 86_400}:leg1", password),  # longer, said the client
        ):
            with pytest.raises(stun.TransactionFailed):
                await allocate(turn, *wrong)


async def test_a_name_has_twelve_relays(tmp_path: Path) -> None:
    """S17: also under passwords of different times."""
    async with networks.turn(tmp_path) as turn:
        relays, refused = [], 0
        for attempt in range(20):
            own = credentials(turn, "leg1", time.time() + attempt)
            try:
                relays.append(await allocate(turn, *own))
            except stun.TransactionFailed:
                refused += 1
        assert (len(relays), refused) == (12, 8)
        other = await allocate(turn, *credentials(turn, "leg2", time.time()))
        for relay in (*relays, other):
            await _close(relay)


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "192.0.2.1"]
)
async def test_a_relay_leads_to_our_port_and_nowhere_else(tmp_path: Path, peer: str) -> None:
    """S16, as far as the loopback goes: only the worker's address is allowed."""
    async with networks.turn(tmp_path) as turn:
        relay = await allocate(turn, *credentials(turn, "leg1", time.time()))
        protocol = relay._TurnTransport__inner_protocol
        with pytest.raises(stun.TransactionFailed) as caught:
            await protocol.channel_bind(0x4001, (peer, 9))
        assert caught.value.response.attributes["ERROR-CODE"][0] == 403
        await protocol.channel_bind(0x4002, ("127.0.0.1", 9))
        await _close(relay)


async def _close(relay: Any) -> None:
    relay.close()
    with contextlib.suppress(stun.TransactionFailed, TimeoutError):
        await asyncio.sleep(0.05)
