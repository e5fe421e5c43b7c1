"""The worker behind a real Unix socket, with a recording data plane: every rule of `sfu.protocol`."""

# Waiting for the other process' doing is polling, and looking at a socket file is instant.
# ruff: noqa: ASYNC110, ASYNC240

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sfu import client as sfu_client
from sfu import framing, protocol
from sfu.client import Adopted, Client, Happening, Lost
from sfu.description import ChannelSpec, Direction, MediaKind
from sfu.outbox import Outbox
from sfu.process import serve
from tests.sfu.fakes import EACH, FakePlane, offer, section

AUDIO = MediaKind.AUDIO
OFFER = offer(section("0", AUDIO, Direction.SENDONLY, track="cid"))


@asynccontextmanager
async def running(socket: Path, orphan_s: float = 60.0) -> AsyncIterator[FakePlane]:
    plane = FakePlane()
    async with asyncio.TaskGroup() as tasks:
        server = tasks.create_task(
            serve(plane, socket, ("127.0.0.1",), orphan_s=orphan_s, handle_signals=False)
        )
        async with asyncio.timeout(5):
            while not socket.exists():
                await asyncio.sleep(0.005)
        try:
            yield plane
        finally:
            server.cancel()


class Owner:
    """A client with its events collected."""

    def __init__(self, socket: Path, epoch: int, name: str = "parley") -> None:
        self.client = Client(socket, owner=name, epoch=epoch)
        self.seen: list[Happening] = []
        self.fault: Exception | None = None

    async def __aenter__(self) -> "Owner":
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._tasks.create_task(self._run())
        self._tasks.create_task(self._collect())
        await self.client.connected(5)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()
        await self._tasks.__aexit__(None, None, None)

    async def _run(self) -> None:
        try:
            await self.client.run()
        except sfu_client.Fenced as why:
            self.fault = why

    async def _collect(self) -> None:
        async for happening in self.client.events():
            self.seen.append(happening)

    async def see(self, wanted: Callable[[Happening], bool]) -> Happening:
        async with asyncio.timeout(5):
            while True:
                found = next((h for h in self.seen if wanted(h)), None)
                if found is not None:
                    return found
                await asyncio.sleep(0.005)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "sfu.sock"


class Raw:
    """A connection that says exactly what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = framing.ServerFrames()

    @classmethod
    async def connect(cls, socket: Path, epoch: int = 1, owner: str = "raw") -> "Raw":
        raw = cls(*await asyncio.open_unix_connection(socket))
        raw.say(protocol.Hello(low=1, high=protocol.VERSION, owner=owner, epoch=epoch))
        return raw

    def say(self, frame: protocol.ClientFrame) -> None:
        self.writer.write(framing.encode(frame))

    async def hear(self) -> protocol.ServerFrame | None:
        async with asyncio.timeout(5):
            return await self._frames.read(self.reader)

    async def answer(self, name: str) -> protocol.Reply:
        while True:
            frame = await self.hear()
            assert frame is not None
            if isinstance(frame, protocol.Response) and frame.id == name:
                return frame.reply

    async def close(self) -> None:
        self.writer.close()


async def test_a_command_is_answered_and_the_socket_is_private(socket: Path) -> None:
    async with running(socket) as plane, Owner(socket, 1) as owner:
        assert socket.stat().st_mode & 0o077 == 0
        assert await owner.client.request(protocol.Open("s", "g", EACH)) == protocol.Done()
        reply = await owner.client.request(protocol.Offer("s", OFFER))
        assert isinstance(reply, protocol.Described)
        with pytest.raises(sfu_client.Refused):
            await owner.client.request(protocol.Open("s", "g", EACH))
        with pytest.raises(sfu_client.UnknownSession):
            await owner.client.request(protocol.Close("other"))
        with pytest.raises(sfu_client.UnknownTrack):
            await owner.client.request(protocol.Subscribe("s", "nothing"))
        with pytest.raises(sfu_client.ChannelGone):
            await owner.client.request(protocol.Send("s", "c", b""))
        adopted = owner.seen[0]
        assert isinstance(adopted, Adopted)
        assert adopted.port == plane.port


async def test_a_higher_epoch_fences_the_owner_before(socket: Path) -> None:
    async with running(socket), Owner(socket, 1) as old:
        async with Owner(socket, 2) as new:
            async with asyncio.timeout(5):
                while old.fault is None:
                    await asyncio.sleep(0.005)
            await new.client.request(protocol.Open("s", "g", EACH))
            with pytest.raises(sfu_client.Fenced):
                await old.client.request(protocol.Close("s"))
        raw = await Raw.connect(socket, epoch=1)
        assert await raw.hear() == protocol.Goodbye("fenced")
        await raw.close()


async def test_two_owners_of_one_epoch_cannot_be(socket: Path) -> None:
    async with running(socket):
        first = await Raw.connect(socket, epoch=5, owner="a")
        assert isinstance(await first.hear(), protocol.Welcome)
        second = await Raw.connect(socket, epoch=5, owner="b")
        assert await second.hear() == protocol.Goodbye("fenced")
        await first.close()
        await second.close()


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(2, 9, None), (protocol.VERSION + 1, 99, "version"), (0, 0, "version")],
)
async def test_versions_must_overlap(socket: Path, low: int, high: int, reason: str | None) -> None:
    if reason is None:
        low = protocol.VERSION
    async with running(socket):
        raw = Raw(*await asyncio.open_unix_connection(socket))
        raw.say(protocol.Hello(low=low, high=high, owner="o", epoch=1))
        first = await raw.hear()
        if reason is None:
            assert isinstance(first, protocol.Welcome)
            assert first.version == protocol.VERSION
        else:
            assert first == protocol.Goodbye(reason)
        await raw.close()


@pytest.mark.parametrize(
    "junk", [b"\x00\x00\x00\x03\xc1\xc1\xc1", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n"]
)
async def test_junk_is_answered_with_goodbye(socket: Path, junk: bytes) -> None:
    async with running(socket):
        raw = Raw(*await asyncio.open_unix_connection(socket))
        raw.writer.write(junk)
        assert await raw.hear() == protocol.Goodbye("malformed")
        await raw.close()
        later = await Raw.connect(socket)
        assert isinstance(await later.hear(), protocol.Welcome)
        later.writer.write(junk)
        async with asyncio.timeout(5):
            while (frame := await later.hear()) is not None:
                assert frame == protocol.Goodbye("malformed")
        await later.close()


async def test_a_resend_returns_the_first_answer_and_does_nothing_twice(socket: Path) -> None:
    async with running(socket) as plane:
        first = await Raw.connect(socket)
        first.say(protocol.Request("1", protocol.Open("s", "g", EACH)))
        first.say(protocol.Request("2", protocol.Offer("s", OFFER)))
        answer = await first.answer("2")
        await first.close()
        second = await Raw.connect(socket)
        second.say(protocol.Request("1", protocol.Open("s", "g", EACH)))
        second.say(protocol.Request("2", protocol.Offer("s", OFFER)))
        assert await second.answer("1") == protocol.Done()
        assert await second.answer("2") == answer
        assert len(plane.transports) == 1
        await second.close()


async def test_a_snapshot_holds_everything_and_its_seq(socket: Path) -> None:
    async with running(socket) as plane:
        async with Owner(socket, 1) as owner:
            ask = owner.client.request
            await ask(protocol.Open("ann", "g", EACH))
            await ask(protocol.Expect("ann", "mic", AUDIO, "microphone", match=("cid",)))
            await ask(protocol.Offer("ann", OFFER))
            await ask(protocol.Gate("mic", open=False))
            await ask(protocol.Open("bob", "g", EACH))
            await ask(protocol.Subscribe("bob", "mic"))
            (publication,) = plane.publications
            plane.happen("first_packet", publication, (0, 111))
            await owner.see(lambda e: isinstance(e, protocol.TrackLive))
        raw = await Raw.connect(socket, epoch=2)
        raw.say(protocol.Request("x", protocol.TakeSnapshot()))
        notices = 0
        while not isinstance(frame := await raw.hear(), protocol.Response):
            if isinstance(frame, protocol.Notice):
                notices += 1
                assert frame.seq == notices
        snapshot = frame.reply
        assert isinstance(snapshot, protocol.Snapshot)
        assert snapshot.seq == notices
        assert {s.session: s.state for s in snapshot.sessions} == {
            "ann": "connecting",
            "bob": "new",
        }
        assert snapshot.tracks == (
            protocol.TrackState(
                "mic", "ann", AUDIO, "microphone", live=True, gate_open=False, codec="opus", mid="0"
            ),
        )
        assert snapshot.subscriptions == (protocol.SubscriptionState("bob", "mic"),)
        await raw.close()


async def test_who_ended_unheard_is_a_tombstone_until_forgotten(socket: Path) -> None:
    async with running(socket) as plane:
        async with Owner(socket, 1) as owner:
            await owner.client.request(protocol.Open("s", "g", EACH))
            await owner.client.request(protocol.Offer("s", OFFER))
        (handle,) = plane.transports
        await asyncio.sleep(0.05)
        plane.happen("expired", handle)
        await asyncio.sleep(0.05)
        for expected in (("closed", "lost"), None):
            async with Owner(socket, 2) as owner:
                adopted = owner.seen[0]
                assert isinstance(adopted, Adopted)
                states = [(s.state, s.reason) for s in adopted.snapshot.sessions]
                assert states == ([expected] if expected else [])
                await owner.client.request(protocol.Forget(("s",)))


async def test_liveness_of_a_session(socket: Path) -> None:
    async with running(socket) as plane, Owner(socket, 1) as owner:
        await owner.client.request(protocol.Open("s", "g", EACH))
        await owner.client.request(protocol.Offer("s", OFFER))
        (handle,) = plane.transports
        plane.happen("expired", handle)
        assert await owner.see(lambda e: isinstance(e, protocol.Closed)) == protocol.Closed(
            "s", "lost"
        )
        adopted = await owner.client.request(protocol.TakeSnapshot())
        assert isinstance(adopted, protocol.Snapshot)
        assert adopted.sessions == ()


async def test_the_client_comes_back_and_resends(socket: Path, tmp_path: Path) -> None:
    """A relay that cuts the line after the command went through, before its answer comes."""
    front = tmp_path / "front.sock"
    cuts = 1

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        up_reader, up_writer = await asyncio.open_unix_connection(socket)

        is_cut = False

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, up: bool) -> None:
            nonlocal cuts, is_cut
            while data := await source.read(65_536):
                if up and b"cut-me" in data and cuts:
                    cuts, is_cut = cuts - 1, True
                    sink.write(data)
                    await asyncio.sleep(0.05)
                    break
                if not is_cut:
                    sink.write(data)
            writer.close()
            up_writer.close()

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pump(reader, up_writer, True))
                tasks.create_task(pump(up_reader, writer, False))
        except* ConnectionError:
            pass

    async with running(socket) as plane:
        server = await asyncio.start_unix_server(relay, front)
        async with Owner(front, 1) as owner:
            await owner.client.request(protocol.Open("cut-me", "g", EACH))
            await owner.see(lambda e: isinstance(e, Lost))
            async with asyncio.timeout(5):
                while sum(isinstance(e, Adopted) for e in owner.seen) < 2:
                    await asyncio.sleep(0.005)
            await owner.client.request(protocol.Open("s2", "g", EACH))
        server.close()
        assert not plane.is_closed


async def test_an_orphan_ends(socket: Path) -> None:
    async with asyncio.timeout(5):
        plane = FakePlane()
        await serve(plane, socket, ("127.0.0.1",), orphan_s=0.1, handle_signals=False)
    assert plane.is_closed
    assert not socket.exists()


async def test_drain_tells_everybody_and_ends(socket: Path) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        plane = FakePlane()
        server = tasks.create_task(
            serve(plane, socket, ("127.0.0.1",), orphan_s=60, handle_signals=False)
        )
        while not socket.exists():
            await asyncio.sleep(0.005)
        raw = await Raw.connect(socket)
        raw.say(protocol.Request("1", protocol.Open("s", "g", EACH)))
        raw.say(protocol.Request("2", protocol.Drain()))
        frames = []
        while (frame := await raw.hear()) is not None:
            frames.append(frame)
        assert protocol.Notice(1, protocol.Closed("s", "drained")) in frames
        assert protocol.Response("2", protocol.Done()) in frames
        await server
        await raw.close()


async def test_a_stuck_owner_does_not_stop_the_worker(socket: Path) -> None:
    """It reads nothing while events pour in; the engine's events are still handled."""
    async with running(socket) as plane:
        raw = await Raw.connect(socket)
        raw.say(protocol.Request("1", protocol.Open("s", "g", EACH)))
        raw.say(protocol.Request("2", protocol.Expect("s", "mic", AUDIO, "m", match=("cid",))))
        raw.say(protocol.Request("3", protocol.Offer("s", OFFER)))
        await raw.answer("3")
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (publication,) = plane.publications
        for _ in range(3_000):
            plane.happen("first_packet", publication, (0, 111))
            plane.happen("bye", publication)
        async with asyncio.timeout(5):
            while plane.events:
                await asyncio.sleep(0.01)
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        raw.say(protocol.Request("9", protocol.TakeSnapshot()))
        assert isinstance(await raw.answer("9"), protocol.Snapshot)
        await raw.close()


async def test_statistics_are_an_event_while_somebody_asks(socket: Path) -> None:
    async with running(socket), Owner(socket, 1) as owner:
        await owner.client.request(protocol.Open("s", "g", EACH))
        await owner.client.request(protocol.Expect("s", "mic", AUDIO, "m", match=("cid",)))
        await owner.client.request(protocol.Offer("s", OFFER))
        reply = await owner.client.request(protocol.ReadStatistics())
        assert isinstance(reply, protocol.Statistics)
        assert [t.packets_received for t in reply.tracks] == [50]
        assert reply.dropped == {"unvalidated": 3}
        await owner.see(lambda e: isinstance(e, protocol.Statistics))


def test_states_coalesce_and_truth_does_not() -> None:
    outbox = Outbox()
    outbox.add_event(protocol.Quality("s", 1))
    outbox.add_event(protocol.Connected("s"))
    outbox.add_event(protocol.Quality("s", 3))
    outbox.add_event(protocol.Connected("s"))
    outbox.add_response(
        protocol.Response("x", protocol.Snapshot(seq=0, sessions=(), tracks=(), subscriptions=()))
    )
    outbox.add_event(protocol.Message("s", "c", b"12345"))
    assert outbox.backlog("s") == 5
    popped = []
    while (frame := outbox.pop()) is not None:
        popped.append(frame)
    assert popped == [
        protocol.Notice(1, protocol.Connected("s")),
        protocol.Notice(2, protocol.Quality("s", 3)),
        protocol.Notice(3, protocol.Connected("s")),
        protocol.Response("x", protocol.Snapshot(seq=3, sessions=(), tracks=(), subscriptions=())),
        protocol.Notice(4, protocol.Message("s", "c", b"12345")),
    ]
    assert outbox.backlog("s") == 0


async def test_only_one_worker_per_lock(tmp_path: Path) -> None:
    from sfu.lock import Locked, LockFile, holder, is_free

    path = tmp_path / "lock"
    assert is_free(path)
    held = LockFile(path)
    assert not is_free(path)
    with pytest.raises(Locked):
        LockFile(path)
    assert holder(path) is not None
    held.release()
    assert is_free(path)


async def test_the_profile_survives_the_wire(socket: Path) -> None:
    profile = replace(EACH, channels=(ChannelSpec("_lossy", False, 0),))
    async with running(socket), Owner(socket, 1) as owner:
        await owner.client.request(protocol.Open("s", "g", profile))
        reply = await owner.client.request(protocol.MakeOffer("s"))
        assert isinstance(reply, protocol.Described)
        assert [s.kind for s in reply.description.sections] == [MediaKind.APPLICATION]
