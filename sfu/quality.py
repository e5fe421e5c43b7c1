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


_NOTHING: Final = _Totals()


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
        measured = _measure(session, tables)
        before = self._totals.get(session.name, _NOTHING)
        now = self._totals[session.name] = measured.totals(before)
        if session.life is Life.DISCONNECTED or now.silent >= 2:
            return LOST
        packets = now.packets - before.packets
        loss = max((now.lost - before.lost) / packets, 0.0) if packets > 0 else 0.0
        loss = max(loss, measured.fraction_lost / 256)
        rtt_s, queue_s = measured.rtt_us / MICRO, measured.queue_us / MICRO
        if now.silent or measured.is_starved or loss > POOR_LOSS:
            return POOR
        if rtt_s > POOR_RTT_S or queue_s > POOR_QUEUE_S:
            return POOR
        is_good = loss > GOOD_LOSS or rtt_s > GOOD_RTT_S or queue_s > GOOD_QUEUE_S
        return GOOD if is_good else EXCELLENT


@dataclass(slots=True)
class _Measured:
    """One session in one read."""

    packets: int = 0
    lost: int = 0
    arrived: int = 0
    fraction_lost: int = 0  # of 256, the worst
    rtt_us: int = 0
    queue_us: int = 0
    is_starved: bool = False

    def totals(self, before: _Totals) -> _Totals:
        new = self.arrived - before.arrived
        return _Totals(
            packets=self.packets,
            lost=self.lost,
            arrived=self.arrived,
            steady=new >= STEADY if new else before.steady,
            silent=before.silent + 1 if not new and before.steady else 0,
        )


def _measure(session: Session, tables: dict[str, dict[int, Counters]]) -> _Measured:
    """Plain loops: this runs for every session of the worker."""
    found = _Measured()
    for handle in session.transport_handles():
        link = tables["transports"].get(handle)
        if link is not None:
            found.arrived += link.get("packets_in", 0)
            found.rtt_us = max(found.rtt_us, rtt_us(link))
            found.queue_us = max(found.queue_us, link.get("queue_us", 0))
    for track in session.up.tracks.values():
        row = tables["publications"].get(track.publication or 0)
        if row is not None:
            found.packets += row.get("packets", 0)
            found.lost += row.get("lost", 0)
    for _, _, stream in streams_of(session):
        found.is_starved |= stream.is_starved
        row = tables["subscriptions"].get(stream.subscription or 0)
        if row is not None:
            found.packets += row.get("packets", 0)
            found.lost += row.get("asked_again", 0)
            found.fraction_lost = max(found.fraction_lost, row.get("fraction_lost", 0))
    return found
