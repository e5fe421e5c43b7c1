"""The trail of who did what: one row per act worth asking about later, in the commit of the act.

No message text and no media detail: the trail is kept long and read by administrators.
Not here: logs (`bridge.ops`).
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, insert

from bridge.conference.events import (
    Bound,
    Ended,
    Event,
    Joined,
    Left,
    MuteRuled,
    StreamsRuled,
    TrackMuted,
    Unbound,
)
from bridge.conference.ids import ConferenceId
from bridge.store.database import now_ms
from bridge.store.tables import audit
from bridge.store.values import dumps

_INSERT: Final = insert(audit)


def record(db: Connection, conference: ConferenceId, events: Sequence[Event]) -> None:
    """Write the events' rows, where they have one."""
    rows = [row for event in events if (row := _row(conference, event)) is not None]
    if rows:
        db.execute(_INSERT, rows)


def _row(conference: ConferenceId, event: Event) -> dict[str, object] | None:
    if isinstance(event, TrackMuted) and event.by is None:
        return None  # people mute themselves all day
    target: str | None
    detail: dict[str, object]
    match event:
        case Joined(leg=leg):
            target, detail = str(leg.account), {"leg": leg.id, "gateway": leg.gateway}
        case Left(leg=leg, reason=reason):
            target, detail = str(leg.account), {"leg": leg.id, "reason": reason.value}
        case TrackMuted(leg=leg, track=track):
            target = str(leg.account)
            detail = {"track": track.id, "forced": track.forced, "muted": track.muted}
        case MuteRuled(target=account, kind=kind, muted=muted):
            target, detail = str(account), {"kind": kind.value if kind else "all", "muted": muted}
        case Bound(place=place) | Unbound(place=place):
            target, detail = f"{place.network.value}:{place.address}", {}
        case StreamsRuled(rule=rule, value=value):
            target, detail = rule.value if rule else "all", {"value": value}
        case Ended():
            target, detail = None, {}
        case _:
            return None
    by = getattr(event, "by", None)
    return {
        "at_ms": now_ms(),
        "conference": conference,
        "event": type(event).__name__,
        "by": None if by is None else str(by.account),
        "target": target,
        "detail": dumps(detail),
    }
