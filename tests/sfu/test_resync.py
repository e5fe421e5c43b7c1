"""Events of the engine that were lost are made good from its counters; and the cap on tracks (S10)."""

from typing import Any

import pytest

from sfu import protocol
from sfu.description import Direction, MediaKind
from sfu.upstream import MAX_TRACKS
from sfu.worker import RESYNC_AFTER_S
from tests.sfu.fakes import EACH, FakePlane, offer, section
from tests.sfu.test_negotiation import Bench

WAITING, HEARD, SILENT, EXPIRED = range(4)
AUDIO = MediaKind.AUDIO


class Missing:
    """A worker with one publisher; the plane's state is the test's, its events are lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = Bench()
        self.now = 100.0
        self.state = WAITING
        self.bench.worker._clock = lambda: self.now  # type: ignore[misc]
        self.bench.done(protocol.Open("s", "g", EACH))
        self.bench.done(protocol.Expect("s", "t", AUDIO, "microphone", match=("mic",)))
        described = offer(section("0", AUDIO, Direction.SENDONLY, track="mic"))
        self.bench.described(protocol.Offer("s", described))
        (self.handle,) = self.bench.plane.transports
        known = FakePlane.statistics

        def statistics(plane: FakePlane) -> dict[str, list[tuple[int, dict[str, int]]]]:
            return known(plane) | {"transports": [(self.handle, {"state": self.state})]}

        monkeypatch.setattr(FakePlane, "statistics", statistics)

    @property
    def session(self) -> Any:
        return self.bench.worker._sessions["s"]

    def lose(self, state: int) -> list[protocol.Event]:
        """What the worker tells after events were lost and the engine came to this state."""
        self.state = state
        self.bench.events()
        self.bench.plane.happen("overflow", 0, 7)
        self.bench.worker.take_engine_events()
        self.bench.worker.tick()
        assert not self.bench.events(), "the counters are old yet"
        self.now += RESYNC_AFTER_S
        self.bench.worker.tick()
        return self.bench.events()


@pytest.fixture
async def missing(monkeypatch: pytest.MonkeyPatch) -> Missing:
    return Missing(monkeypatch)


async def test_a_lost_first_check_and_first_packet_are_noticed(missing: Missing) -> None:
    transport = missing.session.transport(missing.handle)
    assert not transport.is_validated
    told = missing.lose(HEARD)
    assert transport.is_validated
    assert protocol.TrackLive("s", "t", "opus", (0,)) in told


async def test_lost_silence_and_return_are_noticed(missing: Missing) -> None:
    transport = missing.session.transport(missing.handle)
    missing.lose(SILENT)
    assert transport.is_silent
    missing.lose(HEARD)
    assert not transport.is_silent


async def test_a_lost_expiry_ends_the_session(missing: Missing) -> None:
    assert protocol.Closed("s", "lost") in missing.lose(EXPIRED)
    assert not missing.bench.plane.transports


async def test_nothing_known_is_told_again(missing: Missing) -> None:
    missing.lose(HEARD)
    assert not [e for e in missing.lose(HEARD) if not isinstance(e, protocol.Quality)]


async def test_a_ninth_track_is_refused_and_an_ended_one_makes_room() -> None:
    bench = Bench()
    bench.done(protocol.Open("s", "g", EACH))
    for number in range(MAX_TRACKS):
        bench.done(protocol.Expect("s", f"t{number}", AUDIO, "microphone"))
    reply = bench.do(protocol.Expect("s", "more", AUDIO, "microphone"))
    assert isinstance(reply, protocol.Failure)
    assert reply.code == "refused"
    bench.done(protocol.Expect("s", "t0", AUDIO, "microphone", match=("changed",)))
    bench.done(protocol.Unexpect("s", "t0"))
    bench.done(protocol.Expect("s", "more", AUDIO, "microphone"))
