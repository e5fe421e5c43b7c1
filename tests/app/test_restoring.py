"""A restart: every leg goes back to its gateway, with what is known of it; the rest is ended or ruled again."""

import asyncio
from collections.abc import Mapping

from bridge.app.ghosts import ComputedGhosts
from bridge.app.restoring import Consequence, restore
from bridge.app.seeding import OPERATOR
from bridge.conference import commands as c
from bridge.conference.ids import (
    Account,
    ConferenceId,
    LeaveReason,
    LegId,
    Network,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.focus import Registry
from bridge.gateway import MediaSignal
from bridge.media import WorkerMedia
from sfu import protocol
from tests.app.fakes import FakeGateway
from tests.conference.plays import ANN, BOB, RECORD, join, publish
from tests.fakes import MemoryJournal, MemoryStore
from tests.media.worker import EACH, FakeWorker


class WireStates:
    async def load(self, conference: ConferenceId) -> Mapping[LegId, Mapping[str, object]]:
        return {LegId("PA_a"): {"sid": "1"}}


def make(
    tasks: asyncio.TaskGroup, worker: FakeWorker, store: MemoryStore, journal: MemoryJournal
) -> tuple[Registry, WorkerMedia]:
    async def submit(conference: ConferenceId, command: c.Command) -> object:
        return await registry.submit(conference, command)

    def deliver(record: object, leg: object, signal: MediaSignal) -> None:
        pass

    media = WorkerMedia(worker, store, tasks, deliver, submit)
    registry = Registry(tasks, journal, ComputedGhosts(), (media,))
    return registry, media


async def run_and_crash(worker: FakeWorker, store: MemoryStore, journal: MemoryJournal) -> None:
    async with asyncio.TaskGroup() as tasks:
        registry, media = make(tasks, worker, store, journal)
        await media.readopt({})
        running = tasks.create_task(media.run())
        for leg, account, gateway in (("PA_a", ANN, "livekit"), ("x_b", BOB, "xmpp")):
            await registry.submit(RECORD.id, join(leg, account, gateway=gateway))
            await media.open(RECORD.id, LegId(leg), leg, EACH, receives=True)
        await media.expect("x_b", TrackId("TR_b"), TrackKind.AUDIO, TrackSource.MICROPHONE)
        await registry.submit(RECORD.id, publish("x_b", "TR_b"))
        await registry.submit(RECORD.id, join("old_1", ANN, gateway="sip"))
        await registry.flush()
        async with asyncio.timeout(5):
            while not worker.subscriptions:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        running.cancel()
        for task in asyncio.all_tasks():
            if task.get_name().startswith("focus-"):
                task.cancel()


async def test_legs_go_back_to_their_gateways() -> None:
    worker, store, journal = FakeWorker(), MemoryStore(), MemoryJournal(RECORD)
    await run_and_crash(worker, store, journal)
    worker.carry_out(protocol.Gate("TR_b", open=False))
    del worker.sessions["PA_a"]
    gateways = {name: FakeGateway(name) for name in ("livekit", "xmpp", "web")}
    async with asyncio.TaskGroup() as tasks:
        registry, media = make(tasks, worker, store, journal)
        consequences = await restore(journal, WireStates(), registry, media, gateways)
        for task in asyncio.all_tasks():
            if task.get_name().startswith("focus-"):
                task.cancel()
    ((livekit,), (xmpp,), web) = (gateways[n].readopted or [] for n in ("livekit", "xmpp", "web"))
    assert web == []
    assert gateways["web"].readopted == []
    assert (livekit.leg.id, livekit.alive, livekit.wire_state) == ("PA_a", False, {"sid": "1"})
    assert (xmpp.leg.id, xmpp.alive, xmpp.sessions) == ("x_b", True, ("x_b",))
    assert [track.id for track in xmpp.leg.tracks] == ["TR_b"]
    assert list(consequences) == [
        Consequence(RECORD.id, c.Leave(LegId("old_1"), LeaveReason.LOST)),
        Consequence(RECORD.id, c.Mute(OPERATOR, BOB, TrackKind.AUDIO)),
    ]


async def test_identities_without_a_matrix_gateway() -> None:
    ghosts = ComputedGhosts()

    async def of(network: Network, leg: str) -> str:
        return await ghosts.ensure(RECORD, Account(network, "ann@a"), "Ann", LegId(leg))

    assert await of(Network.TOKEN, "1") == await of(Network.TOKEN, "2") == "ann@a"
    assert await of(Network.XMPP, "1") != await of(Network.XMPP, "2")
