"""Counters of the engine as `protocol.Statistics`, and the connection grade of a session.

Names follow W3C webrtc-stats. Not here: who asks how often (`sfu.worker`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sfu import protocol
from sfu.description import MediaKind
from sfu.session import Session
from sfu.states import Life
from sfu.tracks import Stream

Counters = dict[str, int]
EngineStatistics = dict[str, list[tuple[int, Counters]]]

_AUDIO_HZ, _VIDEO_HZ = 48_000, 90_000  # RTP clocks of everything we accept
POOR_LOSS, GOOD_LOSS = 0.08, 0.03  # of the packets a peer sent in one interval
POOR_RTT_S, GOOD_RTT_S = 0.6, 0.3
_LOST, _POOR, _GOOD, _EXCELLENT = range(4)


def statistics(read: EngineStatistics, sessions: Iterable[Session]) -> protocol.Statistics:
    """Everything the engine counts, under our names."""
    publications = dict(read.get("publications", []))
    subscriptions = dict(read.get("subscriptions", []))
    tracks: list[protocol.TrackStatistics] = []
    sent: list[protocol.SubscriptionStatistics] = []
    for session in sessions:
        for track in session.up.tracks.values():
            counters = publications.get(track.publication or 0)
            if counters is not None:
                clock_hz = _AUDIO_HZ if track.kind is MediaKind.AUDIO else _VIDEO_HZ
                tracks.append(_track(track.id, counters, clock_hz))
        for name, stream in _streams(session):
            counters = subscriptions.get(stream.subscription or 0)
            if counters is not None:
                sent.append(_subscription(session.name, name, counters))
    drops = read.get("drops", [])
    return protocol.Statistics(
        tracks=tuple(tracks),
        subscriptions=tuple(sent),
        dropped=dict(drops[0][1]) if drops else {},
    )


def _streams(session: Session) -> Iterable[tuple[str, Stream]]:
    for _, stream in session.down.compact_streams():
        yield stream.carried, stream
    if not session.down.is_compact:
        for subscription in session.down.subscriptions.values():
            yield subscription.track.id, subscription.stream


def _track(name: str, counters: Counters, clock_hz: int) -> protocol.TrackStatistics:
    return protocol.TrackStatistics(
        track=name,
        packets_received=counters.get("packets", 0),
        bytes_received=counters.get("bytes", 0),
        packets_lost=counters.get("lost", 0),
        nack_count=counters.get("nacks_sent", 0),
        pli_count=counters.get("plis_sent", 0),
        jitter_s=counters.get("jitter", 0) / clock_hz,
    )


def _subscription(session: str, track: str, counters: Counters) -> protocol.SubscriptionStatistics:
    return protocol.SubscriptionStatistics(
        session=session,
        track=track,
        packets_sent=counters.get("packets", 0),
        bytes_sent=counters.get("bytes", 0),
        nack_count=counters.get("nacks", 0),
        pli_count=counters.get("plis", 0),
        retransmitted_packets_sent=counters.get("retransmitted", 0),
        first_sequence=counters.get("first_sequence", 0),
        last_sequence=counters.get("last_sequence", 0),
    )


@dataclass(frozen=True, slots=True)
class _Totals:
    """Packets a session sent and received, and what of it got lost or had to be sent again."""

    packets: int = 0
    lost: int = 0


class Grades:
    """Turns counters into a grade per session; remembers the last totals and the last grade."""

    def __init__(self) -> None:
        self._totals: dict[str, _Totals] = {}
        self._grades: dict[str, int] = {}

    def changes(
        self, read: EngineStatistics, sessions: Iterable[Session]
    ) -> list[protocol.Quality]:
        """The grades that are news since the last call."""
        tables = {
            key: dict(read.get(key, [])) for key in ("transports", "publications", "subscriptions")
        }
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
        down = [tables["subscriptions"].get(s.subscription or 0, {}) for _, s in _streams(session)]
        now = _Totals(
            packets=sum(c.get("packets", 0) for c in (*up, *down)),
            lost=sum(c.get("lost", 0) for c in up) + sum(c.get("nacks", 0) for c in down),
        )
        before = self._totals.get(session.name, _Totals())
        self._totals[session.name] = now
        if session.life is Life.DISCONNECTED:
            return _LOST
        packets = max(now.packets - before.packets, 0)
        loss = max(now.lost - before.lost, 0) / packets if packets else 0.0
        rtt_s = (
            max(
                (
                    tables["transports"].get(h, {}).get("rtt_us", 0)
                    for h in session.transport_handles()
                ),
                default=0,
            )
            / 1_000_000
        )
        if loss > POOR_LOSS or rtt_s > POOR_RTT_S:
            return _POOR
        return _GOOD if loss > GOOD_LOSS or rtt_s > GOOD_RTT_S else _EXCELLENT
