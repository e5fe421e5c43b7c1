"""The conferences of the configuration, and the places they are bound to, exist from the start.

What people bound with `!conf link` stays; a place that belongs to another conference is said, not taken.
Not here: conferences made on demand (gateways).
"""

import logging
from typing import Final

from bridge.conference.commands import Bind
from bridge.conference.errors import Refused
from bridge.conference.ids import Account, Actor, Network, Place, Role
from bridge.conference.ports import ConferenceRecord, Directory
from bridge.config import ConferenceSection
from bridge.gateway import Submit
from bridge.gateways.livekit.conferences import LEGACY_SLOT, room_alias

log = logging.getLogger(__name__)

OPERATOR: Final = Actor(Account(Network.TOKEN, "parley"), Role.OWNER, "the operator of Parley")


def room_of(section: ConferenceSection) -> str:
    """The LiveKit room name: what Element Call computes for the (first) Matrix room, else the slug."""
    return room_alias(section.matrix[0], LEGACY_SLOT) if section.matrix else section.slug


def places_of(section: ConferenceSection) -> tuple[Place, ...]:
    return (
        *(Place(Network.MATRIX, room) for room in section.matrix),
        *(Place(Network.XMPP, muc) for muc in section.xmpp),
    )


async def seed(section: ConferenceSection, directory: Directory, submit: Submit) -> None:
    """Raises `Unavailable`, and `Refused` when the slug is another conference's."""
    record = await _find(section, directory)
    for place in places_of(section):
        if place in record.places:
            continue
        try:
            await submit(record.id, Bind(OPERATOR, place), None)
        except Refused as why:
            log.error(
                "configured place not bound",
                extra={"conference": section.slug, "network": place.network.value, "why": str(why)},
            )


async def _find(section: ConferenceSection, directory: Directory) -> ConferenceRecord:
    """By slug: the room name follows the first Matrix room only when the conference is made."""
    known = await directory.by_slug(section.slug)
    if known is not None:
        return known
    room = room_of(section)
    return await directory.create(room=room, slug=section.slug, title=section.title)
