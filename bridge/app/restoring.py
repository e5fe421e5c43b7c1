"""After a restart: conferences from SQL, sessions from the worker, legs back to their gateways.

House.md section 7 ("Legs"). Commands that follow from what was found are returned, because nobody may act
before every gateway has its legs.
Not here: matching sessions (`bridge.media`), taking a leg up again (gateways).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.app.seeding import OPERATOR
from bridge.conference.commands import Command, Leave, Mute
from bridge.conference.errors import Refused
from bridge.conference.events import Leg
from bridge.conference.ids import ConferenceId, LeaveReason, LegId
from bridge.conference.ports import ConferenceRecord, Journal
from bridge.focus import Registry
from bridge.gateway import Gateway, SavedLeg
from bridge.media import Readopted, WorkerMedia

log = logging.getLogger(__name__)


class WireStates(Protocol):
    """The reading side of `gateway.Legs`. Kept by the store."""

    async def load(self, conference: ConferenceId) -> Mapping[LegId, Mapping[str, object]]: ...


@dataclass(frozen=True, slots=True)
class Consequence:
    conference: ConferenceId
    command: Command


async def restore(
    journal: Journal,
    wire_states: WireStates,
    registry: Registry,
    media: WorkerMedia,
    gateways: Mapping[str, Gateway],
) -> Sequence[Consequence]:
    """Raises `Unavailable`. Every gateway's `readopt` is called exactly once, also with nothing."""
    live: dict[ConferenceRecord, Sequence[Leg]] = {}
    for conference in await journal.live():
        try:
            legs = await registry.adopt(conference)
        except Refused:
            continue  # removed meanwhile
        record = registry.record(conference)
        if record is not None:
            live[record] = legs
    readopted = await media.readopt(live)
    saved: dict[str, list[SavedLeg]] = {name: [] for name in gateways}
    consequences: list[Consequence] = []
    for record, legs in live.items():
        states = await wire_states.load(record.id)
        for leg in legs:
            if leg.gateway in saved:
                saved[leg.gateway].append(_saved(record, leg, states, readopted))
            else:  # its gateway was switched off
                leave = Leave(leg.id, LeaveReason.LOST)
                consequences.append(Consequence(record.id, leave))
    for held in readopted.held:
        mute = Mute(OPERATOR, held.account, held.kind)
        consequences.append(Consequence(held.conference, mute))
    for name, gateway in gateways.items():
        await gateway.readopt(saved[name])
    log.info(
        "restored",
        extra={
            "conferences": len(live),
            "legs": sum(map(len, live.values())),
            "alive": len(readopted.alive),
            "held": len(readopted.held),
        },
    )
    return consequences


def _saved(
    record: ConferenceRecord,
    leg: Leg,
    states: Mapping[LegId, Mapping[str, object]],
    readopted: Readopted,
) -> SavedLeg:
    return SavedLeg(
        conference=record,
        leg=leg,
        wire_state=states.get(leg.id, {}),
        sessions=readopted.sessions.get(leg.id, ()),
        alive=leg.id in readopted.alive,
    )
