"""Events out: puppets for people in the call, one short line for what a chat room should know.

Not here: lines of text (`puppets.deliver`, through the outbox), sessions (`calls`).
"""

import logging
import time
from collections.abc import Mapping
from typing import Final

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import (
    Event,
    Joined,
    Left,
    MuteRuled,
    StreamsRuled,
    TrackPublished,
    TrackUnpublished,
)
from bridge.conference.ids import Network
from bridge.conference.ports import ConferenceRecord
from bridge.conference.secrecy import Divisions
from bridge.conference.steering import news
from bridge.gateway import Context
from bridge.gateways.xmpp.names import clean_name
from bridge.gateways.xmpp.puppets import Puppets
from bridge.gateways.xmpp.rooms import Room

log = logging.getLogger(__name__)

NOTICES: Final = 5  # in one room within `NOTICES_S`; a busy call must not flood a chat
NOTICES_S: Final = 60.0

Places = Mapping[str, tuple[Room, Puppets]]


class Outbound:
    def __init__(self, context: Context, places: Places) -> None:
        self._context = context
        self._places = places
        self._said_s: dict[str, list[float]] = {}
        self._divisions = Divisions()

    async def event(self, conference: ConferenceRecord, event: Event) -> None:
        divided = ""
        if isinstance(event, TrackPublished | TrackUnpublished | Left):
            divided = self._divisions.news(conference.id, self._context.view(conference.id))
        for place in conference.places:
            found = self._places.get(place.address) if place.network is Network.XMPP else None
            if found is None:
                continue
            try:
                await self._to(*found, conference, event)
                if divided:
                    self._notice(found[0], divided)
            except (Refused, Unavailable) as why:
                log.info("notice not given", extra={"why": str(why)})

    async def _to(
        self, room: Room, puppets: Puppets, conference: ConferenceRecord, event: Event
    ) -> None:
        match event:
            case Joined(leg=leg, first=True) if not leg.hidden:
                self._notice(room, f"{clean_name(leg.name) or 'Somebody'} joined the call.")
                if leg.account.network is not Network.XMPP and room.is_joined:
                    await puppets.enter(leg.account, leg.name, in_call=True)
            case Left(leg=leg, last=True):
                puppets.call_ended(leg.account)
            case MuteRuled(target=target, muted=muted, by=by):
                legs = self._context.view(conference.id)
                name = next((leg.name for leg in legs if leg.account == target), target.address)
                word = "muted" if muted else "unmuted"
                self._notice(
                    room,
                    f"{clean_name(name)} was {word} by {clean_name(by.name) or 'a moderator'}.",
                )
            case StreamsRuled(by=by):
                text = news(event, self._context.streams(conference))
                # Whoever asked has no other answer, so it is never held back.
                room.say(f"{clean_name(by.name) or 'A moderator'} {text}")
            case _:
                pass

    def _notice(self, room: Room, text: str) -> None:
        now_s = time.monotonic()
        recent = [at_s for at_s in self._said_s.get(room.address, []) if now_s - at_s < NOTICES_S]
        if len(recent) < NOTICES:
            recent.append(now_s)
            room.say(text)
        self._said_s[room.address] = recent
