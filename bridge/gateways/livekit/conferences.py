"""Which conference a LiveKit room name or a Matrix room means.

house.md section 7, "Whose room it is"; MSC4195 (2026-07) for the alias.
Not here: who may enter (`matrixrtc`, tokens), the conferences themselves (the store).
"""

import base64
import hashlib
import json
from typing import Final

from bridge.conference.ids import Network, Place
from bridge.conference.ports import ConferenceRecord, Directory

LEGACY_SLOT: Final = "m.call#ROOM"


def digest(parts: list[str]) -> str:
    """Unpadded base64 of SHA-256 over the canonical JSON of these strings (MSC4195)."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def room_alias(room_id: str, slot_id: str) -> str:
    return digest([room_id, slot_id])


def rtc_identity(user_id: str, device_id: str, member_id: str) -> str:
    return digest([user_id, device_id, member_id])


def legacy_identity(user_id: str, device_id: str) -> str:
    return f"{user_id}:{device_id}"


async def of_matrix_room(directory: Directory, room_id: str, slot_id: str) -> ConferenceRecord:
    """The bound conference, else the one of this room alone, made if need be.

    A slot other than the room's usual one is a call of its own and never the bound conference.
    """
    alias = room_alias(room_id, slot_id)
    bound = None
    if slot_id == LEGACY_SLOT:
        bound = await directory.by_place(Place(Network.MATRIX, room_id))
    return bound or await directory.by_room(alias) or await directory.create(room=alias, auto=True)


async def of_room(directory: Directory, room: str) -> ConferenceRecord:
    """The conference that a token's room names; a slug will do, too."""
    return (
        await directory.by_room(room)
        or await directory.by_slug(room)
        or await directory.create(room=room, auto=True)
    )
