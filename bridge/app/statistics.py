"""What the ops listener tells of media: `/metrics` for Prometheus, `/stats` as JSON, one read of the worker each second.

Conferences are named by their slug; sessions and tracks by their opaque ids, never by people (S42).
Not here: adding up (`bridge.media.statistics`), the text format (`bridge.ops.metrics`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import msgspec
from aiohttp import web

from bridge.conference.ids import ConferenceId
from bridge.http import Http, Listener
from bridge.media.statistics import Gatherer, Load
from bridge.ops.health import Health
from bridge.ops.metrics import CONTENT_TYPE, Metric, render
from sfu import protocol

# field of `Load`, meaning; all may fall when somebody leaves, so none is a counter
_METRICS: Final = (
    ("sessions", "Media sessions."),
    ("tracks", "Published tracks."),
    ("streams", "Tracks times those who receive them."),
    ("limited_streams", "Streams that get less than wished for want of bandwidth."),
    ("shed_streams", "Streams that get less than wished for want of CPU."),
    ("received_bps", "Bits per second from peers."),
    ("sent_bps", "Bits per second to peers."),
    ("worst_fraction_lost", "Largest share of packets that a receiver reports lost."),
    ("worst_round_trip_time_s", "Longest round trip of a session, seconds."),
    ("worst_queue_delay_s", "Longest queue on the link to a peer, seconds."),
    ("packets_received", "Packets from the peers that are in."),
    ("packets_sent", "Packets to the peers that are in."),
    ("packets_lost", "Packets that never came from the peers that are in."),
    ("retransmitted_packets_sent", "Packets sent again."),
    ("nack_count", "NACK packets, ours and those of peers."),
    ("pli_count", "Key frames asked for by PLI, by us and by peers."),
    ("fir_count", "Key frames asked for by FIR, likewise."),
    ("freeze_count", "Pauses of pictures that were too long."),
)
# field of `protocol.LoadStatistics`, meaning
_OF_THREADS: Final = (
    ("is_shedding", "Whether video is shed for want of CPU."),
    ("cpu_used", "Share of one CPU that a data-plane thread uses."),
    ("cpu_capacity", "Share of one CPU that it can have; 0 = enough."),
    ("streams_paused", "Video streams that are paused for want of CPU."),
    ("streams_lowered", "Video streams that are lower than wished for want of CPU."),
)
# counts of the same
_COUNTS_OF_THREADS: Final = (
    ("shedding_count", "Times that shedding began."),
    ("late_count", "Backlogs of datagrams that were read 15 ms late or later."),
)


class Statistics:
    """Hands its routes to `http`. `slug_of`: how a live conference is called."""

    def __init__(
        self,
        http: Http,
        health: Health,
        gathered: Gatherer,
        slug_of: Callable[[ConferenceId], str],
    ) -> None:
        self._health = health
        self._gathered = gathered
        self._slug_of = slug_of
        http.route(Listener.OPS, "GET", "/metrics", self._metrics)
        http.route(Listener.OPS, "GET", "/stats", self._stats)

    async def _metrics(self, _request: web.Request) -> web.Response:
        report = await self._health.report()
        up = tuple(({"part": part.name}, float(part.is_well)) for part in report.parts)
        metrics = [Metric("parley_part_up", "gauge", "Whether a part is well.", up)]
        metrics += self._of_media()
        return web.Response(text=render(metrics), headers={"Content-Type": CONTENT_TYPE})

    def _of_media(self) -> Iterator[Metric]:
        loads = {self._name(load): load for load in self._gathered.loads.values()}
        for field, meaning in _METRICS:
            samples = tuple(
                ({"conference": name}, float(getattr(load, field))) for name, load in loads.items()
            )
            yield Metric(f"parley_media_{field}", "gauge", meaning, samples)
        read = self._gathered.read
        dropped = {} if read is None else read.dropped
        yield Metric(
            "parley_media_dropped_total",
            "counter",
            "Datagrams that went nowhere, by reason.",
            tuple(({"reason": reason}, float(count)) for reason, count in dropped.items()),
        )
        threads = () if read is None else read.loads
        for field, meaning in _OF_THREADS:
            yield Metric(f"parley_media_thread_{field}", "gauge", meaning, _each(threads, field))
        for field, meaning in _COUNTS_OF_THREADS:
            name = f"parley_media_thread_{field.removesuffix('_count')}_total"
            yield Metric(name, "counter", meaning, _each(threads, field))

    async def _stats(self, request: web.Request) -> web.Response:
        """`?detail=1`: every session, track and layer as well."""
        read = self._gathered.read
        document: dict[str, object] = {
            "conferences": [self._told(load) for load in self._gathered.loads.values()],
            "dropped": {} if read is None else read.dropped,
            "threads": [] if read is None else [_plain(one) for one in read.loads],
        }
        if read is not None and request.query.get("detail") == "1":
            for table in ("sessions", "tracks", "subscriptions"):
                document[table] = [_plain(row) for row in getattr(read, table)]
        return web.json_response(document)

    def _told(self, load: Load) -> Mapping[str, object]:
        return {"slug": self._name(load), **asdict(load)}

    def _name(self, load: Load) -> str:
        return self._slug_of(ConferenceId(load.conference)) or load.conference


def _each(
    threads: Sequence[protocol.LoadStatistics], field: str
) -> tuple[tuple[dict[str, str], float], ...]:
    return tuple(({"shard": str(one.shard)}, float(getattr(one, field))) for one in threads)


def _plain(value: object) -> object:
    """With every field: what is left out on the seam because it is a default is said here."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
