"""How good a session's connection is, from what the engine counts: lost, poor, good, excellent.

Loss and round trip of one interval, queues, video that had to be paused, and whether anything comes at all: whoever
sent steadily and stopped is graded poor after one interval and lost after two, long before consent ends.
Not here: who asks how often (`sfu.worker`), the counters' names (`sfu.stats`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sfu import protocol
from sfu.session import Session
from sfu.states import Life
from sfu.stats import MICRO, Counters, EngineStatistics, rtt_us, streams_of, tables_of

POOR_LOSS, GOOD_LOSS = 0.08, 0.03  # of the packets of one interval
POOR_RTT_S, GOOD_RTT_S = 0.6, 0.3
POOR_QUEUE_S, GOOD_QUEUE_S = 0.4, 0.15
STEADY: Final = 8  # packets of an interval; fewer are checks and reports that may miss a turn
LOST, POOR, GOOD, EXCELLENT = range(4)


@dataclass(frozen=True, slots=True)
class _Totals:
    """Packets a session sent and received, what of it got lost or was asked for again, how long nothing came."""

    packets: int = 0
    lost: int = 0
    arrived: int = 0  # of any kind
    steady: bool = False  # in the last interval in which anything came
    silent: int = 0  # intervals


class Grades:
    """Turns counters into a grade per session; remembers the last totals and the last grade."""

    def __init__(self) -> None:
        self._totals: dict[str, _Totals] = {}
        self._grades: dict[str, int] = {}

    def changes(
        self, read: EngineStatistics, sessions: Iterable[Session]
    ) -> list[protocol.Quality]:
        """The grades that are news since the last call."""
        tables = tables_of(read)
        news: list[protocol.Quality] = []
        seen: set[str] = set()
        for session in sessions:
            if session.life not in (Life.CONNECTED, Life.DISCONNECTED):
                continue
            seen.add(session.name)
            grade = self._grade(session, tables)
            if grade != self._grades.get(session.name):
                self._grades[session.name] = grade
                news.append(protocol.Quality(session=session.name, grade=grade))
        for gone in self._grades.keys() - seen:
            del self._grades[gone]
            self._totals.pop(gone, None)
        return news

    def _grade(self, session: Session, tables: dict[str, dict[int, Counters]]) -> int:
        up = [
            tables["publications"].get(t.publication or 0, {}) for t in session.up.tracks.values()
        ]
        streams = [stream for _, _, stream in streams_of(session)]
        down = [tables["subscriptions"].get(s.subscription or 0, {}) for s in streams]
        links = [tables["transports"].get(h, {}) for h in session.transport_handles()]
        before = self._totals.get(session.name, _Totals())
        now = self._totals[session.name] = _totals(before, up, down, links)
        if session.life is Life.DISCONNECTED or now.silent >= 2:
            return LOST
        packets = max(now.packets - before.packets, 0)
        loss = max(now.lost - before.lost, 0) / packets if packets else 0.0
        reported = max((row.get("fraction_lost", 0) for row in down), default=0) / 256
        worst = (
            max(loss, reported),
            max(map(rtt_us, links), default=0) / MICRO,
            max((row.get("queue_us", 0) for row in links), default=0) / MICRO,
        )
        if now.silent or any(stream.is_starved for stream in streams):
            return POOR
        if _any_above(worst, (POOR_LOSS, POOR_RTT_S, POOR_QUEUE_S)):
            return POOR
        return GOOD if _any_above(worst, (GOOD_LOSS, GOOD_RTT_S, GOOD_QUEUE_S)) else EXCELLENT


def _totals(
    before: _Totals, up: list[Counters], down: list[Counters], links: list[Counters]
) -> _Totals:
    arrived = sum(row.get("packets_in", 0) for row in links)
    new = arrived - before.arrived
    return _Totals(
        packets=sum(row.get("packets", 0) for row in (*up, *down)),
        lost=sum(row.get("lost", 0) for row in up) + sum(row.get("nacks", 0) for row in down),
        arrived=arrived,
        steady=new >= STEADY if new else before.steady,
        silent=before.silent + 1 if not new and before.steady else 0,
    )


def _any_above(measured: Iterable[float], limits: Iterable[float]) -> bool:
    return any(one > limit for one, limit in zip(measured, limits, strict=True))
