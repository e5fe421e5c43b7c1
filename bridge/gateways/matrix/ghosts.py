"""Ghosts: the accounts by which people of other networks are seen in Matrix rooms.

Keeps `conference.ports.Ghosts`: the identity is computed, never asked, so it works while the homeserver is
away. Registration, name and presence in a room follow when something is to be shown there.
Not here: call memberships (`memberships`), the spelling of ids (`names`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.ids import Account, Identity, LegId, Network
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Store
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.names import Namespace, clean_name, skeleton
from bridge.gateways.matrix.rooms import Rooms

NAME: Final = "matrix"
KICK_S: Final = (
    3_600.0  # a ghost that a moderator put out is not brought back by a line of text before
)
_LABELS: Final = {
    Network.XMPP: "XMPP",
    Network.WEB: "guest",
    Network.TOKEN: "call",
    Network.MATRIX: "Matrix",
}


@dataclass(frozen=True, slots=True)
class Ghost:
    """An account of ours and whom it stands for."""

    mxid: str
    account: Account


class GhostBook:
    """Who is whose ghost, and the work of making one visible."""

    def __init__(
        self,
        link: Link,
        own: Namespace,
        rooms: Rooms,
        store: Store,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._link, self._own, self._rooms, self._store = link, own, rooms, store
        self._wall_clock = wall_clock
        self._shown: dict[str, tuple[str, str]] = {}  # ghost -> (name, avatar) as last set

    # --- the port `Ghosts` ------------------------------------------------------------------------------

    async def ensure(
        self, conference: ConferenceRecord, account: Account, name: str, leg: LegId
    ) -> Identity:
        return self._own.identity(account, leg)

    # --- for this gateway -------------------------------------------------------------------------------

    def of(self, account: Account) -> Ghost:
        return Ghost(self._own.ghost(account), account)

    async def account(self, mxid: str) -> Account | None:
        """Whose ghost this is; hashed ones are looked up."""
        told = self._own.account(mxid)
        if told is not None:
            return told
        saved = await self._store.get(NAME, f"ghost:{mxid}")
        if saved is None:
            return None
        try:
            return Account(Network(str(saved["network"])), str(saved["address"]))
        except (KeyError, ValueError):
            return None

    async def show(self, account: Account, name: str, avatar: str, room: str) -> Ghost:
        """Registered, named and joined to the room. Raises `Unavailable`, `Refused` (put out, no invitation)."""
        ghost = self.of(account)
        if await self._is_kicked(room, ghost.mxid):
            raise Refused(f"{name or account.address} was removed from this room.")
        if ghost.mxid not in self._shown:
            await self._recall(ghost)
        await self._link.register(ghost.mxid)
        await self._dress(ghost, name, avatar, room)
        await self._link.join(room, ghost.mxid)
        return ghost

    async def _recall(self, ghost: Ghost) -> None:
        saved = await self._store.get(NAME, f"ghost:{ghost.mxid}")
        if saved is not None:
            self._shown[ghost.mxid] = (str(saved.get("name", "")), str(saved.get("avatar", "")))

    async def _dress(self, ghost: Ghost, name: str, avatar: str, room: str) -> None:
        """Name and avatar, set only when they changed."""
        shown, picture = self._shown.get(ghost.mxid, ("", ""))
        wanted = await self._name(ghost, name, room)
        if not avatar.startswith("mxc://"):
            avatar = picture
        if (wanted, avatar) == (shown, picture):
            return
        try:
            if wanted != shown:
                await self._link.set_name(ghost.mxid, wanted)
            if avatar != picture:
                await self._link.set_avatar(ghost.mxid, avatar)
        except Denied:
            pass  # a homeserver may forbid names; the localpart still tells who it is
        self._shown[ghost.mxid] = (wanted, avatar)
        await self._store.put(
            NAME,
            f"ghost:{ghost.mxid}",
            {
                "network": ghost.account.network.value,
                "address": ghost.account.address,
                "name": wanted,
                "avatar": avatar,
            },
        )

    async def _name(self, ghost: Ghost, name: str, room: str) -> str:
        """The person's own name; with the network behind it only where somebody else looks the same (S38)."""
        plain = clean_name(name) or clean_name(ghost.account.address.partition("@")[0]) or "?"
        marked = f"{plain} ({_LABELS[ghost.account.network]})"
        try:
            others = await self._rooms.members(room)
        except (Denied, Unavailable):
            return plain
        alike = skeleton(plain)
        for other in others:
            if other.mxid != ghost.mxid and skeleton(other.name) == alike:
                return marked
        return marked if alike == skeleton(self._own.bot) else plain

    # --- moderation -------------------------------------------------------------------------------------

    async def kicked(self, room: str, mxid: str) -> None:
        """A moderator put the ghost out: respected for `KICK_S`, even over a restart."""
        await self._link.forget_join(room, mxid)
        until = self._wall_clock() + KICK_S
        await self._store.put(NAME, f"kicked:{room} {mxid}", {"until_s": until})

    async def welcomed(self, room: str, mxid: str) -> None:
        """Somebody invited the ghost again."""
        await self._store.delete(NAME, f"kicked:{room} {mxid}")

    async def _is_kicked(self, room: str, mxid: str) -> bool:
        saved = await self._store.get(NAME, f"kicked:{room} {mxid}")
        until = saved.get("until_s") if saved is not None else None
        return isinstance(until, int | float) and until > self._wall_clock()
