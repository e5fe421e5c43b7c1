"""Connection grades in virtual time: poor and lost within 5 s, back when it is good again."""

import pytest

from sfu import protocol
from sfu.answers import CommandKey
from sfu.description import Direction, MediaKind
from sfu.states import Life
from sfu.worker import QUALITY_EVERY_S, TICK_S, Worker
from tests.sfu.fakes import EACH, FakePlane, offer, section

LOST, POOR, GOOD, EXCELLENT = range(4)


class CountingPlane(FakePlane):
    """The counters of one link."""

    def __init__(self) -> None:
        super().__init__()
        self.link = {"packets_in": 0, "rtt_us": 20_000, "queue_us": 0}
        self.up = {"packets": 0, "lost": 0}

    def statistics(self) -> dict[str, list[tuple[int, dict[str, int]]]]:
        return {
            "transports": [(handle, dict(self.link)) for handle in self.transports],
            "publications": [(handle, dict(self.up)) for handle in self.publications],
        }


class Link:
    """One publisher on a link."""

    def __init__(self) -> None:
        self.plane, self.now = CountingPlane(), 100.0
        self.worker = Worker(self.plane, ("192.0.2.1",), clock=lambda: self.now)
        self.worker.adopt()
        self.plane_commands()
        self.grades: list[tuple[float, int]] = []

    def plane_commands(self) -> None:
        sections = offer(section("0", MediaKind.AUDIO, Direction.SENDONLY, track="cid"))
        for number, command in enumerate(
            (
                protocol.Open("s", "g", EACH),
                protocol.Expect("s", "mic", MediaKind.AUDIO, "microphone", match=("cid",)),
                protocol.Offer("s", sections),
            )
        ):
            self.worker.carry_out(CommandKey("me", 1, str(number)), command)
        session = self.worker._sessions["s"]
        (self.transport,) = session.transport_handles()
        session.life = Life.CONNECTED  # without a handshake

    def run(self, seconds: float, *, loss: float = 0.0, is_silent: bool = False) -> None:
        end = self.now + seconds - TICK_S / 2
        began = self.now
        while self.now < end:
            self.now += TICK_S
            if not is_silent:
                self.plane.link["packets_in"] += 5
                self.plane.up["packets"] += 5
                self.plane.up["lost"] = round(self.plane.up["lost"] + 5 * loss)
            self.worker.tick()
            while (frame := self.worker.outbox.pop()) is not None:
                assert isinstance(frame, protocol.Notice)
                if isinstance(frame.event, protocol.Quality):
                    self.grades.append((round(self.now - began, 1), frame.event.grade))

    def told(self) -> list[tuple[float, int]]:
        found, self.grades = self.grades, []
        return found


@pytest.fixture
async def link() -> Link:
    link = Link()
    link.run(2 * QUALITY_EVERY_S + 1)
    assert [grade for _, grade in link.told()] == [EXCELLENT]
    return link


@pytest.mark.parametrize(("loss", "grade"), [(0.3, POOR), (0.0, EXCELLENT)])
async def test_loss_is_poor_within_five_seconds(link: Link, loss: float, grade: int) -> None:
    link.run(5, loss=loss)
    assert [one for _, one in link.told()] == ([grade] if grade != EXCELLENT else [])
    link.run(5)
    assert [one for _, one in link.told()] == ([EXCELLENT] if grade != EXCELLENT else [])


async def test_a_cut_is_poor_then_lost_within_five_seconds(link: Link) -> None:
    link.run(5, is_silent=True)
    (poor_s, poor), (lost_s, lost) = link.told()
    assert (poor, lost) == (POOR, LOST)
    assert poor_s < lost_s <= 5
    link.run(5)
    assert [grade for _, grade in link.told()] == [EXCELLENT]


async def test_a_peer_that_only_listens_may_miss_a_turn(link: Link) -> None:
    for _ in range(5):
        link.plane.link["packets_in"] += 1
        link.run(QUALITY_EVERY_S * 2, is_silent=True)
    assert LOST not in [grade for _, grade in link.told()][2:]


@pytest.mark.parametrize(
    ("field", "value", "grade"),
    [
        ("rtt_us", 700_000, POOR),
        ("rtt_us", 400_000, GOOD),
        ("queue_us", 500_000, POOR),
        ("queue_us", 200_000, GOOD),
    ],
)
async def test_delay_and_queues_count(link: Link, field: str, value: int, grade: int) -> None:
    link.plane.link[field] = value
    link.run(3)
    assert [one for _, one in link.told()] == [grade]


async def test_delay_counts_that_only_rtcp_tells(link: Link) -> None:
    """Where no check of ours was answered, receiver reports are all there is."""
    link.plane.link |= {"rtt_us": 0, "report_rtt_us": 700_000}
    link.run(3)
    assert [one for _, one in link.told()] == [POOR]


async def test_the_truth_about_a_transport_is_said_at_once(link: Link) -> None:
    link.run(0.2)
    link.plane.happen("silent", link.transport)
    link.worker.take_engine_events()
    link.run(TICK_S)
    assert [one for _, one in link.told()] == [LOST]
