"""A data-plane thread short of CPU: a line in the log when shedding of video starts and ends (R11).

Not here: when that is and what is shed (`engine/core`: `overload`, `media::shed`), what people are told (`sfu.group`),
what it counts (`sfu.stats`).
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from sfu import protocol

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watch:
    """Says in the log what changed since the last look."""

    _known: dict[int, protocol.LoadStatistics] = field(default_factory=dict)

    def look(self, now: Iterable[protocol.LoadStatistics]) -> None:
        for load in now:
            before = self._known.get(load.shard, protocol.LoadStatistics(shard=load.shard))
            self._known[load.shard] = load
            extra = {
                "shard": load.shard,
                "cpu_used": round(load.cpu_used, 3),
                "cpu_capacity": round(load.cpu_capacity, 3),
                "streams_paused": load.streams_paused,
                "streams_lowered": load.streams_lowered,
            }
            if load.is_shedding and not before.is_shedding:
                log.warning("short of CPU: video is shed", extra=extra)
            elif before.is_shedding and not load.is_shedding:
                log.warning("enough CPU again: no video is shed", extra=extra)
            elif load.shedding_count > before.shedding_count:
                log.warning("short of CPU for a moment: video was shed", extra=extra)
