"""The adapter against the real worker process: plan, crash, re-adoption."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.conference import commands as c
from bridge.conference.conference import Conference
from bridge.conference.events import Leg
from bridge.conference.ids import ConferenceId, LegId, TrackId, TrackKind, TrackSource
from bridge.conference.ports import ConferenceRecord
from bridge.conference.steering import parse
from bridge.gateway import MediaSignal
from bridge.media import Readopted, WorkerMedia
from sfu import client, protocol
from sfu.description import Codec, Profile
from tests.conference.plays import ANN, BOB, RECORD, actor, conference, join, publish
from tests.fakes import MemoryStore

pytestmark = pytest.mark.peers

OPUS = Profile("test", (Codec(111, "opus", 48_000, 2),), ())


@asynccontextmanager
async def parley(
    options: client.WorkerOptions, store: MemoryStore, stage: Conference, epoch: int
) -> AsyncIterator[tuple[WorkerMedia, client.Client, Readopted]]:
    async def submit(conference_id: ConferenceId, command: c.Command) -> None:
        media.notify(stage.record, stage.apply(command, 0))

    def deliver(record: ConferenceRecord, leg: Leg, signal: MediaSignal) -> None:
        pass

    async with asyncio.TaskGroup() as tasks:
        link = client.Client(options.socket, owner="test", epoch=epoch)
        connection = tasks.create_task(link.run())
        media = WorkerMedia(link, store, tasks, deliver, submit, leave_after_s=0.1)
        readopted = await media.readopt({stage.record: stage.legs})
        running = tasks.create_task(media.run())
        yield media, link, readopted
        link.close()
        running.cancel()
        connection.cancel()


async def snapshot(link: client.Client) -> protocol.Snapshot:
    reply = await link.request(protocol.TakeSnapshot())
    assert isinstance(reply, protocol.Snapshot)
    return reply


async def test_a_call_survives_its_control_plane(tmp_path: Path) -> None:
    options = client.WorkerOptions(
        socket=tmp_path / "sfu.sock", lock=tmp_path / "sfu.lock", log=tmp_path / "sfu.log"
    )
    store, stage = MemoryStore(), conference()
    process = await client.spawn(options)
    assert process is not None
    try:
        async with parley(options, store, stage, 1) as (media, link, _):
            for leg, account in (("PA_a", ANN), ("PA_b", BOB)):
                media.notify(RECORD, stage.apply(join(leg, account), 0))
                await media.open(RECORD.id, LegId(leg), leg, OPUS, receives=True)
                track = f"TR{leg}"
                await media.expect(leg, TrackId(track), TrackKind.AUDIO, TrackSource.MICROPHONE)
                media.notify(RECORD, stage.apply(publish(leg, track), 0))
            media.notify(RECORD, stage.apply(c.Mute(actor(), BOB), 0))
            async with asyncio.timeout(5):
                while len((await snapshot(link)).subscriptions) < 2:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
            before = await snapshot(link)
        gates = {track.track: track.gate_open for track in before.tracks}
        assert gates == {"TRPA_a": True, "TRPA_b": False}
        async with parley(options, store, stage, 2) as (media, link, readopted):
            assert readopted.alive == {"PA_a", "PA_b"}
            await asyncio.sleep(0.1)
            after = await snapshot(link)
            assert (after.tracks, after.subscriptions) == (before.tracks, before.subscriptions)
            media.notify(RECORD, stage.apply(c.Leave(LegId("PA_b")), 0))
            async with asyncio.timeout(5):
                while len((await snapshot(link)).sessions) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert len((await snapshot(link)).subscriptions) == 0
    finally:
        process.terminate()
        process.wait(10)


async def test_what_moderators_choose_survives_the_control_plane(tmp_path: Path) -> None:
    options = client.WorkerOptions(
        socket=tmp_path / "sfu.sock", lock=tmp_path / "sfu.lock", log=tmp_path / "sfu.log"
    )
    store, stage = MemoryStore(), conference()
    process = await client.spawn(options)
    assert process is not None

    async def told(link: client.Client, words: tuple[int, float, tuple[str, ...]]) -> None:
        async with asyncio.timeout(5):
            while True:
                found = (await snapshot(link)).policies
                if [(p.last_n, p.quiet_video_s, p.audience) for p in found] == [words]:
                    return
                await asyncio.sleep(0.01)

    try:
        async with parley(options, store, stage, 1) as (media, link, _):
            media.notify(RECORD, stage.apply(join("PA_a", ANN), 0))
            await media.open(RECORD.id, LegId("PA_a"), "PA_a", OPUS, receives=True)
            for words in ("last-n 5", "audience on", "quiet-video 20"):
                events = stage.apply(parse(actor(), words), 0)
                media.notify(stage.record, events)
            await told(link, (5, 20, ("PA_a",)))
        async with parley(options, store, stage, 2) as (media, link, readopted):
            assert readopted.alive == {"PA_a"}
            await told(link, (5, 20, ("PA_a",)))
            events = stage.apply(parse(actor(), "audience default"), 0)
            media.notify(stage.record, events)
            await told(link, (5, 20, ()))
    finally:
        process.terminate()
        process.wait(10)
