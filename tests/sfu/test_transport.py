"""A transport's timers and races, two of them joined by recording planes."""

# Waiting for a timer is polling.
# ruff: noqa: ASYNC110

import asyncio
from dataclasses import dataclass, field

import pytest

from sfu import transport as sfu_transport
from sfu.description import Setup
from sfu.dtls import Certificate
from sfu.transport import Transport
from tests.sfu.fakes import FakePlane

OURS, THEIRS = Certificate(), Certificate()


@dataclass
class Side:
    """One end: its plane, its transport, what it was told."""

    certificate: Certificate
    offered_by_us: bool
    plane: FakePlane = field(default_factory=FakePlane)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transport = Transport(
            self.plane, self.certificate, self, offered_by_us=self.offered_by_us
        )

    def hear(self, other: "Side") -> None:
        self.transport.set_remote(other.transport.describe(Setup.ACTPASS, (), ice_lite=False))

    def transport_up(self, transport: Transport) -> None:
        self.told.append("up")

    def transport_over(self, transport: Transport, reason: str) -> None:
        self.told.append(reason)
        transport.close()

    def channel_opened(self, channel: str) -> None: ...
    def channel_closed(self, channel: str) -> None: ...
    def message(self, channel: str, data: bytes, binary: bool) -> None: ...
    def backlog_bytes(self) -> int:
        return 0


def carry(one: Side, other: Side) -> None:
    for _ in range(8):
        for source, sink in ((one, other), (other, one)):
            sent, source.plane.sent = source.plane.sent, []
            for _, datagram in sent:
                sink.transport.datagram(datagram)


async def told(side: Side, word: str) -> None:
    async with asyncio.timeout(5):
        while word not in side.told:
            await asyncio.sleep(0.01)


async def test_keys_are_set_on_both_sides() -> None:
    client, server = Side(THEIRS, False), Side(OURS, True)
    client.hear(server)
    server.hear(client)
    client.transport.set_role(is_client=True)
    server.transport.set_role(is_client=False)
    assert not client.plane.sent, "nothing leaves before ICE validated a path"
    client.transport.validated()
    server.transport.validated()
    carry(client, server)
    assert client.told == server.told == ["up"]
    (ours,), (theirs,) = server.plane.keys.values(), client.plane.keys.values()
    assert ours[:2] == theirs[:2]
    assert (ours[2], theirs[2]) == (False, True)
    client.transport.close()
    carry(client, server)
    assert server.told == ["up", "close"]


async def test_a_hello_may_be_faster_than_the_answer() -> None:
    client, server = Side(THEIRS, False), Side(OURS, True)
    client.hear(server)
    client.transport.set_role(is_client=True)
    client.transport.validated()
    server.transport.validated()
    carry(client, server)
    assert server.told == []
    server.hear(client)
    server.transport.set_role(is_client=False)
    assert server.told == ["up"]
    for side in (client, server):
        side.transport.close()


async def test_a_lost_hello_is_repeated() -> None:
    client, server = Side(THEIRS, False), Side(OURS, True)
    client.hear(server)
    server.hear(client)
    client.transport.set_role(is_client=True)
    client.transport.validated()
    client.plane.sent.clear()
    async with asyncio.timeout(5):
        while not client.plane.sent:
            await asyncio.sleep(0.01)
    carry(client, server)
    assert server.told == ["up"]
    for side in (client, server):
        side.transport.close()


@pytest.mark.parametrize("stage", ["UNREACHED_S", "SILENT_PEER_S", "HANDSHAKE_S"])
async def test_every_stage_has_its_budget(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    monkeypatch.setattr(sfu_transport, stage, 0.05)
    client, server = Side(THEIRS, False), Side(OURS, True)
    client.hear(server)
    server.hear(client)
    if stage != "UNREACHED_S":
        server.transport.validated()
    if stage == "HANDSHAKE_S":
        client.transport.set_role(is_client=True)
        client.transport.validated()
        server.transport.datagram(client.plane.sent[0][1])
    await told(server, "failed")
    client.transport.close()


async def test_junk_does_not_start_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: what was no handshake is not held against the peer."""
    monkeypatch.setattr(sfu_transport, "HANDSHAKE_S", 0.05)
    client, server = Side(THEIRS, False), Side(OURS, True)
    client.hear(server)
    server.hear(client)
    server.transport.set_role(is_client=False)
    server.transport.validated()
    server.transport.datagram(b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28")
    await asyncio.sleep(0.1)
    assert server.told == []
    client.transport.set_role(is_client=True)
    client.transport.validated()
    carry(client, server)
    assert server.told == ["up"]
    for side in (client, server):
        side.transport.close()
