"""The matrix gateway, put together: an appservice behind a durable inbox.

Not here: each part's own work; see `docs/gateways/matrix.md` for what of Matrix is spoken.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Sequence
from typing import Final

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import Event
from bridge.conference.ids import LegId
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Ability, Context, MediaSignal, OutboxRow, SavedLeg
from bridge.gateways.matrix.catchup import CatchUp
from bridge.gateways.matrix.ghosts import GhostBook
from bridge.gateways.matrix.inbound import Inbound
from bridge.gateways.matrix.intake import Intake
from bridge.gateways.matrix.link import Link
from bridge.gateways.matrix.memberships import Memberships
from bridge.gateways.matrix.names import Namespace
from bridge.gateways.matrix.outbound import Outbound, rooms_of
from bridge.gateways.matrix.proof import Proof
from bridge.gateways.matrix.rooms import Fresh, Rooms
from bridge.gateways.matrix.statestore import KvStateStore

log = logging.getLogger(__name__)

BOT_NAME: Final = "Parley"
TELL_AGAIN_S: Final = 3_600.0  # how often a room hears that it lacks a permission
REFUSED_S: Final = 60.0
WATCH_S: Final = 60.0  # a proxy in front may hide a restart: look at least so often
RECENT_WATCH_S: Final = (
    5.0  # Synapse pauses up to minutes before it tries us again: fetch meanwhile
)
RECENT_S: Final = 180.0
SETTLE_S: Final = 0.5  # after a watch: at most two looks a second at a server that hangs up at once
UNHEARD_PINGS: Final = 2  # in a row: a single one says little
AWAY_S: Final = (0.5, 1.0, 2.0, 4.0)  # a homeserver that is back is noticed <= 5 s later (R1)


class MatrixGateway:
    """Keeps `bridge.gateway.Gateway`, and the ports `IdentityProof` and `Ghosts` in the context."""

    name = "matrix"
    abilities = frozenset({Ability.TEXT, Ability.PRESENCE, Ability.COMMANDS})

    def __init__(self, context: Context) -> None:
        settings = context.config.matrix
        if settings is None:
            raise ValueError("the matrix gateway needs the section `matrix`")
        self._context, self._settings = context, settings
        self._told: Fresh[str, bool] = Fresh(TELL_AGAIN_S, time.monotonic)
        own = Namespace(settings.server_name, settings.ghost_prefix, settings.bot)
        self._own = own
        self._link = Link(
            homeserver=settings.homeserver,
            bot=own.bot_mxid,
            as_token=settings.as_token.get_secret_value(),
            state=KvStateStore(context.store),
        )
        self._rooms = Rooms(self._link, own, settings.admins)
        self._ghosts = GhostBook(self._link, own, self._rooms, context.store)
        self._memberships = Memberships(
            self._link,
            self._ghosts,
            context.store,
            settings.livekit_service_url or context.config.http.public_url,
            on_refused=self._cannot_show,
        )
        self._outbound = Outbound(context, self._link, own, self._ghosts, self._memberships)
        self._catchup = CatchUp(context, self._link, own)
        self._is_settled = False
        self._unheard = 0  # pings in a row without a good answer
        self._proof = Proof(
            context.fetch,
            self._rooms,
            server_name=settings.server_name,
            homeserver=settings.homeserver,
            overrides=settings.federation_overrides,
            allowed=context.config.livekit.full_access_homeservers,
            allow_private=settings.allow_private_federation,
        )
        self._inbound = Inbound(
            context,
            self._link,
            own,
            self._rooms,
            self._ghosts,
            self._memberships,
            self._outbound,
            self._proof,
        )
        context.proof, context.ghosts = self._proof, self._ghosts
        hs_token = settings.hs_token.get_secret_value()
        Intake(context.inbox, hs_token, self._catchup.before_more).mount(context.http)

    # --- the Gateway protocol ---------------------------------------------------------------------------

    async def run(self) -> None:
        async with self._link, asyncio.TaskGroup() as tasks:
            await self._take_over(tasks)
            tasks.create_task(self._outbound.run(), name="matrix outbound")
            tasks.create_task(self._inbound.run(), name="matrix inbound")
            tasks.create_task(self._stay_in_touch(), name="matrix presence")

    async def _take_over(self, tasks: asyncio.TaskGroup) -> None:
        """Ghost memberships of before the restart; waits for the store if it must."""
        while True:
            try:
                await self._memberships.start(tasks)
                await self._outbound.reconcile()
            except Unavailable as why:
                log.warning("matrix gateway waits to start", extra={"why": str(why)})
                await asyncio.sleep(AWAY_S[0])
            else:
                return

    async def readopt(self, legs: Sequence[SavedLeg]) -> None:
        """No media legs of its own; ghost memberships are taken over in `run` from the gateway's own rows."""

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        self._outbound.notify(conference, events)

    def signal(self, conference: ConferenceRecord, leg: LegId, signal: MediaSignal) -> None:
        """Never: no session is ours."""

    async def deliver(self, row: OutboxRow) -> str | None:
        return await self._outbound.deliver(row)

    def status(self) -> str:
        if self._link.problem:
            return self._link.problem
        if self._unheard >= UNHEARD_PINGS:
            return "the homeserver cannot reach us"
        return "connected" if self._memberships.has_delays else "connected, without delayed events"

    # --- being there ------------------------------------------------------------------------------------

    async def _stay_in_touch(self) -> None:
        """Come to the homeserver, watch for the moment it goes, come back."""
        away, back_s = 0, time.monotonic()
        while True:
            pause_s = 0.0
            try:
                await self._arrive()
                away = 0
                is_recent = time.monotonic() - back_s < RECENT_S
                if await self._link.watch(RECENT_WATCH_S if is_recent else WATCH_S):
                    back_s = time.monotonic()
                    self._catchup.interrupted()
            except Unavailable as why:
                if not away:
                    log.warning("homeserver away", extra={"why": str(why)})
                pause_s = AWAY_S[min(away, len(AWAY_S) - 1)]
                away += 1
            except Refused as why:
                log.warning("homeserver refuses us", extra={"why": str(why)})
                pause_s = REFUSED_S
            await asyncio.sleep((pause_s or SETTLE_S) * random.uniform(0.9, 1.1))

    async def _arrive(self) -> None:
        if not self._is_settled:
            await self._settle()
            self._is_settled = True
        # COMPAT: Synapse 1.163.2 answers 502 while it hands over what waits for us (re-check 2027-06): the catch-up
        # must not wait for a ping that succeeds, for what is handed over waits for the catch-up.
        unheard = await self._ping()
        try:
            await self._catchup.run()
        except Unavailable:
            self._catchup.interrupted()
            raise
        self._unheard = self._unheard + 1 if unheard else 0
        if self._unheard == UNHEARD_PINGS:
            log.warning("homeserver cannot reach us", extra={"why": unheard})

    async def _ping(self) -> str:
        """Why the homeserver did not come back to us; empty when it did."""
        try:
            await self._link.ping(self._settings.id, secrets.token_hex(8))
        except (Refused, Unavailable) as why:
            return str(why)
        return ""

    async def _settle(self) -> None:
        await self._link.register(self._own.bot_mxid)
        try:
            await self._link.set_name(self._own.bot_mxid, BOT_NAME)
        except Refused as why:
            log.info("bot keeps its name", extra={"why": str(why)})
        for conference in await self._context.directory.all():
            for room in rooms_of(conference):
                try:
                    await self._link.join(room, self._own.bot_mxid)
                except Refused as why:
                    log.warning("bot not in a bound room: invite it", extra={"why": str(why)})

    def _cannot_show(self, room: str) -> None:
        if self._told.get(room):
            return
        self._told.put(room, True)
        self._outbound.notice(
            room,
            "Somebody from another network is in the call, but this room does not let me show them. "
            "A moderator can write: !conf fix-permissions",
        )


def create(context: Context) -> MatrixGateway:
    """Called by the app, before any I/O."""
    return MatrixGateway(context)
