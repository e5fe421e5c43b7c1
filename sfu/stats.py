"""Counters of the engine as `protocol.Statistics`. Names follow W3C webrtc-stats.

Not here: who asks how often (`sfu.worker`), connection grades (`sfu.quality`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sfu import protocol
from sfu.description import MediaKind
from sfu.session import Session
from sfu.tracks import Stream, Track

Counters = dict[str, int]
EngineStatistics = dict[str, list[tuple[int, Counters]]]

PART_ROWS: Final = 600  # of each table; a track with three layers is 1 KB
MICRO: Final = 1_000_000
_PERMILLE: Final = 1_000
_AUDIO_HZ, _VIDEO_HZ = 48_000, 90_000  # RTP clocks of everything we accept


def statistics(
    read: EngineStatistics, sessions: Iterable[Session]
) -> tuple[protocol.Statistics, ...]:
    """Everything the engine counts, under our names, in parts that fit into frames."""
    tables = tables_of(read)
    layers: dict[int, list[Counters]] = {}
    for handle, row in read.get("layers", []):
        layers.setdefault(handle, []).append(row)
    tracks: list[protocol.TrackStatistics] = []
    sent: list[protocol.SubscriptionStatistics] = []
    whole: list[protocol.SessionStatistics] = []
    for session in sessions:
        whole.append(_session(session, tables["transports"]))
        for track in session.up.tracks.values():
            counters = tables["publications"].get(track.publication or 0)
            if counters is not None:
                tracks.append(_track(track, counters, layers.get(track.publication or 0, [])))
        for name, kind, stream in streams_of(session):
            counters = tables["subscriptions"].get(stream.subscription or 0)
            if counters is not None:
                sent.append(_subscription(session.name, name, kind, stream, counters))
    drops = read.get("drops", [])
    dropped = dict(drops[0][1]) if drops else {}
    return tuple(_parts(whole, tracks, sent, dropped, loads(read.get("loads", []))))


def _parts(
    sessions: Sequence[protocol.SessionStatistics],
    tracks: Sequence[protocol.TrackStatistics],
    sent: Sequence[protocol.SubscriptionStatistics],
    dropped: dict[str, int],
    threads: tuple[protocol.LoadStatistics, ...],
) -> Iterator[protocol.Statistics]:
    most = max(len(sessions), len(tracks), len(sent), 1)
    parts = -(-most // PART_ROWS)
    for part in range(parts):
        rows = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        yield protocol.Statistics(
            tracks=tuple(tracks[rows]),
            subscriptions=tuple(sent[rows]),
            dropped=dropped,
            sessions=tuple(sessions[rows]),
            part=part,
            parts=parts,
            loads=threads,
        )


def tables_of(read: EngineStatistics) -> dict[str, dict[int, Counters]]:
    return {key: dict(read.get(key, [])) for key in ("transports", "publications", "subscriptions")}


def streams_of(session: Session) -> Iterator[tuple[str, MediaKind, Stream]]:
    for kind, stream in session.down.compact_streams():
        yield stream.carried, kind, stream
    if not session.down.is_compact:
        for subscription in session.down.subscriptions.values():
            yield subscription.track.id, subscription.track.kind, subscription.stream


def _session(session: Session, transports: dict[int, Counters]) -> protocol.SessionStatistics:
    rows = [transports[h] for h in session.transport_handles() if h in transports]
    known = [bps for row in rows if (bps := row.get("estimate_bps", 0))]
    return protocol.SessionStatistics(
        session=session.name,
        group=session.group.name,
        packets_sent=sum(row.get("packets_out", 0) for row in rows),
        bytes_sent=sum(row.get("bytes_out", 0) for row in rows),
        packets_received=sum(row.get("packets_in", 0) for row in rows),
        bytes_received=sum(row.get("bytes_in", 0) for row in rows),
        current_round_trip_time_s=max(map(rtt_us, rows), default=0) / MICRO,
        available_outgoing_bitrate_bps=sum(known),
        queue_delay_s=max((row.get("queue_us", 0) for row in rows), default=0) / MICRO,
        packet_send_delay_s=max((row.get("paced_us", 0) for row in rows), default=0) / MICRO,
        packets_expired_on_send=sum(row.get("paced_dropped", 0) for row in rows),
    )


def rtt_us(transport: Counters) -> int:
    """By ICE consent checks, else by RTCP."""
    return transport.get("rtt_us", 0) or transport.get("report_rtt_us", 0)


def _track(track: Track, counters: Counters, layers: list[Counters]) -> protocol.TrackStatistics:
    clock_hz = _clock_hz(track.kind)
    return protocol.TrackStatistics(
        track=track.id,
        session=track.session,
        packets_received=counters.get("packets", 0),
        bytes_received=counters.get("octets", 0),
        packets_lost=counters.get("lost", 0),
        nack_count=counters.get("nacks_sent", 0),
        pli_count=counters.get("plis_sent", 0) - counters.get("firs_sent", 0),
        fir_count=counters.get("firs_sent", 0),
        jitter_s=counters.get("jitter", 0) / clock_hz,
        packets_off_stage=counters.get("off_stage", 0),
        layers=tuple(_layer(layer, clock_hz) for layer in layers),
    )


def _layer(counters: Counters, clock_hz: int) -> protocol.LayerStatistics:
    return protocol.LayerStatistics(
        layer=counters.get("layer", 0),
        packets_received=counters.get("packets", 0),
        bytes_received=counters.get("octets", 0),
        packets_lost=counters.get("lost", 0),
        jitter_s=counters.get("jitter", 0) / clock_hz,
        bitrate_bps=counters.get("bps", 0),
        frames_received=counters.get("frames", 0),
        key_frames_received=counters.get("key_frames", 0),
        freeze_count=counters.get("freezes", 0),
        total_freezes_duration_s=counters.get("frozen_us", 0) / MICRO,
        is_live=bool(counters.get("live", 0)),
    )


def _subscription(
    session: str, track: str, kind: MediaKind, stream: Stream, counters: Counters
) -> protocol.SubscriptionStatistics:
    again, octets_again = (
        counters.get(name, 0) for name in ("retransmitted", "retransmitted_octets")
    )
    reason = "bandwidth" if counters.get("limited", 0) else "none"
    if counters.get("shed", 0):
        reason = "cpu"
    return protocol.SubscriptionStatistics(
        session=session,
        track=track,
        packets_sent=counters.get("packets", 0) + again,
        bytes_sent=counters.get("octets", 0) + octets_again,
        nack_count=counters.get("nacks", 0),
        pli_count=counters.get("plis", 0) - counters.get("firs", 0),
        fir_count=counters.get("firs", 0),
        retransmitted_packets_sent=again,
        retransmitted_bytes_sent=octets_again,
        first_sequence=counters.get("first_sequence", 0),
        last_sequence=counters.get("last_sequence", 0),
        layer=counters.get("layer", 0) - 1,
        target_bitrate_bps=counters.get("target_bps", 0),
        quality_limitation_reason="other" if stream.is_held_back else reason,
        packets_lost=counters.get("lost", 0),
        fraction_lost=counters.get("fraction_lost", 0) / 256,
        jitter_s=counters.get("jitter", 0) / _clock_hz(kind),
        round_trip_time_s=counters.get("rtt_us", 0) / MICRO,
    )


def loads(rows: Iterable[tuple[int, Counters]]) -> tuple[protocol.LoadStatistics, ...]:
    """The engine's rows under our names, one per thread."""
    return tuple(
        protocol.LoadStatistics(
            shard=shard,
            is_shedding=bool(row.get("shedding", 0)),
            cpu_used=row.get("used_permille", 0) / _PERMILLE,
            cpu_capacity=row.get("capacity_permille", 0) / _PERMILLE,
            video_budget_bps=row.get("budget_bps", 0),
            streams_paused=row.get("paused", 0),
            streams_lowered=row.get("lowered", 0),
            shedding_count=row.get("episodes", 0),
            brake_count=row.get("brakes", 0),
            late_count=row.get("late", 0),
            longest_wait_s=row.get("longest_wait_us", 0) / MICRO,
        )
        for shard, row in rows
    )


def _clock_hz(kind: MediaKind) -> int:
    return _AUDIO_HZ if kind is MediaKind.AUDIO else _VIDEO_HZ
