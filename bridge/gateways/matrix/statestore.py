"""mautrix' appservice state store over the gateway's durable key-value port.

It remembers what intents ask before they act: who is registered, who is joined where, power levels,
create events, encryption. Everything is state of a homeserver, so a lost row costs one request.
Not here: what parley itself decides by (`rooms` asks the homeserver and forgets on change).
"""

from collections.abc import Mapping
from typing import Any, Final

from mautrix.appservice.state_store import ASStateStore
from mautrix.types import (
    Member,
    Membership,
    MemberStateEventContent,
    PowerLevelStateEventContent,
    RoomEncryptionStateEventContent,
    RoomID,
    StateEvent,
    UserID,
)

from bridge.gateway import Store

NAME: Final = "matrix"


def _json(value: Mapping[str, object]) -> Any:
    """A plain dictionary, which is what mautrix' deserializers take."""
    return dict(value)


class KvStateStore(ASStateStore):
    """Keys: `registered:<user>`, `member:<room> <user>`, `levels:`, `create:`, `crypt:`, `full:<room>`."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    async def _get(self, key: str) -> Mapping[str, Any] | None:
        return await self._store.get(NAME, key)

    async def _put(self, key: str, value: Mapping[str, Any]) -> None:
        await self._store.put(NAME, key, dict(value))

    # --- registration -----------------------------------------------------------------------------------

    async def is_registered(self, user_id: UserID) -> bool:
        if await super().is_registered(user_id):
            return True
        if await self._get(f"registered:{user_id}") is None:
            return False
        await super().registered(user_id)
        return True

    async def registered(self, user_id: UserID) -> None:
        await self._put(f"registered:{user_id}", {"v": 1})
        await super().registered(user_id)

    # --- members ----------------------------------------------------------------------------------------

    async def get_member(self, room_id: RoomID, user_id: UserID) -> Member | None:
        value = await self._get(f"member:{room_id} {user_id}")
        return None if value is None else Member.deserialize(_json(value))

    async def set_member(
        self, room_id: RoomID, user_id: UserID, member: Member | MemberStateEventContent
    ) -> None:
        name, avatar = member.displayname, member.avatar_url
        value: dict[str, Any] = {"membership": member.membership.value}
        if name:
            value["displayname"] = name
        if avatar:
            value["avatar_url"] = avatar
        await self._put(f"member:{room_id} {user_id}", value)

    async def set_membership(
        self, room_id: RoomID, user_id: UserID, membership: Membership
    ) -> None:
        known = await self._get(f"member:{room_id} {user_id}") or {}
        if known.get("membership") != membership.value:
            await self._put(
                f"member:{room_id} {user_id}", {**known, "membership": membership.value}
            )

    async def get_member_profiles(
        self,
        room_id: RoomID,
        memberships: tuple[Membership, ...] = (Membership.JOIN, Membership.INVITE),
    ) -> dict[UserID, Member]:
        prefix = f"member:{room_id} "
        found = {
            UserID(key.removeprefix(prefix)): Member.deserialize(_json(value))
            for key, value in await self._store.items(NAME, prefix)
        }
        return {user: member for user, member in found.items() if member.membership in memberships}

    async def set_members(
        self,
        room_id: RoomID,
        members: dict[UserID, Member | MemberStateEventContent],
        only_membership: Membership | None = None,
    ) -> None:
        prefix = f"member:{room_id} "
        for key, value in await self._store.items(NAME, prefix):
            gone = UserID(key.removeprefix(prefix)) not in members
            if gone and only_membership in (None, Membership(value.get("membership", "leave"))):
                await self._store.delete(NAME, key)
        for user, member in members.items():
            await self.set_member(room_id, user, member)
        await self._put(f"full:{room_id}", {"v": 1})

    async def has_full_member_list(self, room_id: RoomID) -> bool:
        return await self._get(f"full:{room_id}") is not None

    # --- the room ---------------------------------------------------------------------------------------

    async def has_power_levels_cached(self, room_id: RoomID) -> bool:
        return await self._get(f"levels:{room_id}") is not None

    async def get_power_levels(self, room_id: RoomID) -> PowerLevelStateEventContent | None:
        value = await self._get(f"levels:{room_id}")
        return None if value is None else PowerLevelStateEventContent.deserialize(_json(value))

    async def set_power_levels(self, room_id: RoomID, content: PowerLevelStateEventContent) -> None:
        await self._put(f"levels:{room_id}", content.serialize())

    async def has_create_cached(self, room_id: RoomID) -> bool:
        return await self._get(f"create:{room_id}") is not None

    async def get_create(self, room_id: RoomID) -> StateEvent | None:
        value = await self._get(f"create:{room_id}")
        return None if value is None else StateEvent.deserialize(_json(value))

    async def set_create(self, event: StateEvent) -> None:
        await self._put(f"create:{event.room_id}", event.serialize())

    async def has_encryption_info_cached(self, room_id: RoomID) -> bool:
        return await self._get(f"crypt:{room_id}") is not None

    async def is_encrypted(self, room_id: RoomID) -> bool | None:
        value = await self._get(f"crypt:{room_id}")
        return None if value is None else bool(value.get("algorithm"))

    async def get_encryption_info(self, room_id: RoomID) -> RoomEncryptionStateEventContent | None:
        value = await self._get(f"crypt:{room_id}")
        if value is None or not value.get("algorithm"):
            return None
        return RoomEncryptionStateEventContent.deserialize(_json(value))

    async def set_encryption_info(
        self, room_id: RoomID, content: RoomEncryptionStateEventContent | dict[str, Any]
    ) -> None:
        value = content if isinstance(content, dict) else content.serialize()
        await self._put(f"crypt:{room_id}", value)
