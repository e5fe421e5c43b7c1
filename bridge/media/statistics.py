"""The worker's statistics, added up per conference, with rates. Pure: `now_s` is an argument.

Not here: asking the worker (`media.media`), how they are shown (`bridge.ops.metrics`, `bridge.app.statistics`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sfu import protocol


@dataclass(frozen=True, slots=True)
class Load:
    """One conference. Counters since its sessions began; they may fall when somebody leaves."""

    conference: str
    sessions: int = 0
    tracks: int = 0
    streams: int = 0  # sent to somebody
    bytes_received: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    packets_lost: int = 0  # on the way to us
    retransmitted_packets_sent: int = 0
    nack_count: int = 0  # of both directions, as the next two
    pli_count: int = 0
    fir_count: int = 0
    freeze_count: int = 0
    limited_streams: int = 0  # less than wished, for want of bandwidth
    shed_streams: int = 0  # the same, for want of CPU
    worst_fraction_lost: float = 0.0
    worst_round_trip_time_s: float = 0.0
    worst_queue_delay_s: float = 0.0
    received_bps: int = 0
    sent_bps: int = 0


@dataclass(slots=True)
class Gatherer:
    """Parts of a read become one picture; two pictures become rates."""

    read: protocol.Statistics | None = None  # the last complete one
    loads: Mapping[str, Load] = field(default_factory=dict)
    _parts: list[protocol.Statistics] = field(default_factory=list)
    _at_s: float = 0.0

    def take(self, event: protocol.Statistics, now_s: float) -> bool:
        """True when a read is complete."""
        if event.part != len(self._parts):
            self._parts.clear()  # one was coalesced away: wait for the next read
            if event.part:
                return False
        self._parts.append(event)
        if len(self._parts) < event.parts:
            return False
        parts, self._parts = self._parts, []
        self.read = protocol.Statistics(
            tracks=tuple(row for part in parts for row in part.tracks),
            subscriptions=tuple(row for part in parts for row in part.subscriptions),
            dropped=event.dropped,
            loads=event.loads,
            sessions=tuple(row for part in parts for row in part.sessions),
        )
        elapsed_s = now_s - self._at_s if self.loads else 0.0
        self._at_s = now_s
        self.loads = _with_rates(_added_up(self.read), self.loads, elapsed_s)
        return True


def _added_up(read: protocol.Statistics) -> dict[str, Load]:
    group_of = {row.session: row.group for row in read.sessions}
    sums: dict[str, dict[str, int]] = {group: {} for group in group_of.values()}
    worst: dict[str, dict[str, float]] = {group: {} for group in sums}

    def add(session: str, **counters: int) -> None:
        into = sums.get(group_of.get(session, ""), {})
        for name, value in counters.items():
            into[name] = into.get(name, 0) + value

    def note(session: str, **measured: float) -> None:
        into = worst.get(group_of.get(session, ""), {})
        for name, value in measured.items():
            into[name] = max(into.get(name, 0.0), value)

    for row in read.sessions:
        add(
            row.session,
            sessions=1,
            bytes_received=row.bytes_received,
            bytes_sent=row.bytes_sent,
            packets_received=row.packets_received,
            packets_sent=row.packets_sent,
        )
        note(
            row.session,
            worst_round_trip_time_s=row.current_round_trip_time_s,
            worst_queue_delay_s=row.queue_delay_s,
        )
    for track in read.tracks:
        add(
            track.session,
            tracks=1,
            packets_lost=track.packets_lost,
            nack_count=track.nack_count,
            pli_count=track.pli_count,
            fir_count=track.fir_count,
            freeze_count=sum(layer.freeze_count for layer in track.layers),
        )
    for sent in read.subscriptions:
        add(
            sent.session,
            streams=1,
            retransmitted_packets_sent=sent.retransmitted_packets_sent,
            nack_count=sent.nack_count,
            pli_count=sent.pli_count,
            fir_count=sent.fir_count,
            limited_streams=int(sent.quality_limitation_reason == "bandwidth"),
            shed_streams=int(sent.quality_limitation_reason == "cpu"),
        )
        note(sent.session, worst_fraction_lost=sent.fraction_lost)
    return {group: Load(group, **sums[group], **worst[group]) for group in sums}  # type: ignore[arg-type]


def _with_rates(
    now: Mapping[str, Load], before: Mapping[str, Load], elapsed_s: float
) -> Mapping[str, Load]:
    if elapsed_s <= 0:
        return now
    rated: dict[str, Load] = {}
    for group, load in now.items():
        old = before.get(group)
        if old is None:
            rated[group] = load
            continue
        received = max(load.bytes_received - old.bytes_received, 0) * 8 / elapsed_s
        sent = max(load.bytes_sent - old.bytes_sent, 0) * 8 / elapsed_s
        rated[group] = replace(load, received_bps=round(received), sent_bps=round(sent))
    return rated


def summary(load: Load | None) -> str:
    """One line for people, empty when nothing is known."""
    if load is None or not load.sessions:
        return ""
    parts = [f"media: {_rate(load.received_bps)} in, {_rate(load.sent_bps)} out"]
    if load.worst_round_trip_time_s:
        parts.append(f"round trip up to {load.worst_round_trip_time_s * 1000:.0f} ms")
    if load.worst_fraction_lost >= 0.01:
        parts.append(f"loss up to {load.worst_fraction_lost:.0%}")
    if load.limited_streams:
        parts.append(f"{load.limited_streams} of {load.streams} streams limited by bandwidth")
    if load.shed_streams:
        parts.append(f"{load.shed_streams} limited by the server's CPU")
    return ", ".join(parts)


def _rate(bps: int) -> str:
    return f"{bps / 1_000_000:.1f} Mbit/s" if bps >= 1_000_000 else f"{bps / 1_000:.0f} kbit/s"
