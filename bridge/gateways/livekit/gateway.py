"""The livekit gateway: HTTP doors in front, devices behind.

LiveKit signalling `/rtc` and `/rtc/v1` with their `validate` twins (fact sheet section 2.1), and the
MatrixRTC authorization service. Refusals that can be known before the WebSocket opens are HTTP errors.
Not here: one leg's life (`device`), what is told to whom (`rooms`), tokens for Matrix users (`matrixrtc`).
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp import web
from livekit.protocol import rtc

from bridge.conference.commands import Join, Leave
from bridge.conference.errors import ConferenceError, Malformed, Refused, Unavailable
from bridge.conference.events import Event
from bridge.conference.ids import Identity, LeaveReason, LegId, LegState, Receives
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Ability, Context, Gateway, MediaSignal, OutboxRow, SavedLeg
from bridge.gateways.livekit import conferences, joins, requests, signalling, wire
from bridge.gateways.livekit.backoff import Backoff
from bridge.gateways.livekit.device import NAME, Device, Services
from bridge.gateways.livekit.grants import Claims
from bridge.gateways.livekit.joins import Ask
from bridge.gateways.livekit.matrixrtc import Authorization
from bridge.gateways.livekit.rooms import Rooms
from bridge.gateways.livekit.signalling import Connection
from bridge.gateways.livekit.state import WireState, from_json
from bridge.gateways.livekit.tokens import AccessTokens, keys_of
from bridge.http import Listener

log = logging.getLogger(__name__)

READY_S: Final = 3.0  # the native SDK gives up after 5 s, waiting in the backlog included
JOIN_TIMEOUT_S: Final = 10.0  # the client gives up on a socket after 15 s
OFFERS_SKIPPED: Final = 1000  # after a restart, so that ids and versions still grow
_ALLOW_ALL: Final = {"Access-Control-Allow-Origin": "*"}


def create(context: Context) -> Gateway:
    """Called by the app."""
    return LivekitGateway(context)


class LivekitGateway:
    """Keeps `bridge.gateway.Gateway`, and fills the port `Tokens`."""

    name = NAME
    abilities = frozenset(
        {
            Ability.TEXT,
            Ability.PRESENCE,
            Ability.AUDIO,
            Ability.VIDEO,
            Ability.LAYERS,
            Ability.SCREEN,
        }
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.config.livekit
        keys = keys_of(settings, context.config.state_dir)
        url = settings.url or _websocket_url(context.config.http.public_url)
        self.tokens = AccessTokens(keys, url, time.time)
        context.tokens = self.tokens
        self._rooms = Rooms(context)
        self._services = Services(context, self.tokens, self._rooms, secrets.token_bytes(16))
        self._backoff = Backoff()
        self._tasks: asyncio.TaskGroup | None = None
        self._runs = asyncio.Event()
        self._waiting: list[Device] = []  # re-adopted, not running yet
        self._lost: list[SavedLeg] = []
        self._authorization = Authorization(context, self.tokens)
        self._route()

    def _route(self) -> None:
        for path, is_single in (("/rtc", False), ("/rtc/v1", True)):
            serve = partial(self._serve, is_single=is_single)
            validate = partial(self._validate, is_single=is_single)
            self._context.http.route(Listener.PUBLIC, "GET", path, serve)
            self._context.http.route(Listener.PUBLIC, "GET", f"{path}/validate", validate)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for device in self._waiting:
                    tasks.create_task(device.run(), name=f"leg-{device.leg_id}")
                self._waiting.clear()
                self._tasks = tasks
                self._runs.set()
                await self._end_lost()
                await asyncio.Event().wait()  # forever: everything happens in devices and requests
        finally:
            self._tasks = None
            self._runs.clear()

    async def _end_lost(self) -> None:
        for saved in self._lost:
            leave = Leave(saved.leg.id, LeaveReason.LOST)
            try:
                await self._context.submit(saved.conference.id, leave, None)
                await self._context.legs.forget(saved.leg.id)
            except ConferenceError as why:
                log.warning("lost leg not ended", extra={"leg": saved.leg.id, "why": str(why)})
        self._lost.clear()

    async def readopt(self, legs: Sequence[SavedLeg]) -> None:
        for saved in legs:
            try:
                if not saved.alive:
                    raise Malformed("its sessions are gone")
                state = from_json(saved.wire_state)
            except Malformed as why:
                log.info("leg not taken up", extra={"leg": saved.leg.id, "why": str(why)})
                self._lost.append(saved)
                continue
            self._take_up(saved, state)

    def _take_up(self, saved: SavedLeg, state: WireState) -> None:
        state.offers += OFFERS_SKIPPED
        state.descriptions += OFFERS_SKIPPED
        state.has_publisher = f"{saved.leg.id}.pub" in saved.sessions
        device = Device(self._services, saved.conference, saved.leg.id, state)
        is_up = saved.leg.state is LegState.ACTIVE
        device.silence.readopted(saved.sessions, is_up=is_up, now_s=time.monotonic())
        self._rooms.add(device)
        self._waiting.append(device)

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        self._rooms.notify(conference, events)

    def signal(self, conference: ConferenceRecord, leg: LegId, signal: MediaSignal) -> None:
        device = self._rooms.get(leg)
        if device is not None:
            device.signal(signal)

    async def deliver(self, row: OutboxRow) -> str | None:
        raise Refused("LiveKit has no chat places: legs hear lines as they are said.")

    def status(self) -> str:
        return f"serving {len(self._rooms.all())} devices"

    async def _ready(self) -> None:
        """A listener that outlived a crash has people waiting before `run` has begun. Raises 503."""
        try:
            async with asyncio.timeout(READY_S):
                await self._runs.wait()
        except TimeoutError as why:
            raise web.HTTPServiceUnavailable(text="not ready", headers=_ALLOW_ALL) from why

    # --- doors ---------------------------------------------------------------------------------------

    async def _validate(self, request: web.Request, *, is_single: bool) -> web.Response:
        """What `_serve` would answer before the upgrade; clients read their error here."""
        try:
            self._claims(request)
            await self._ask(request, is_single=is_single)
        except web.HTTPException as why:
            return web.Response(status=why.status, text=why.text, headers=_ALLOW_ALL)
        return web.Response(text="success", headers=_ALLOW_ALL)

    async def _serve(self, request: web.Request, *, is_single: bool) -> web.StreamResponse:
        claims = self._claims(request)
        ask = await self._ask(request, is_single=is_single)
        await self._ready()
        device = self._resumed(claims, ask) if ask.reconnects else await self._enter(claims, ask)
        socket = signalling.upgrade()
        connection = Connection(socket)
        try:
            await socket.prepare(request)
            if device is None:
                connection.send(wire.start_over())
                connection.close()
                await connection.run(_ignore)
                return socket
            await device.ask(partial(self._attach, device, connection, ask))
            await connection.run(partial(self._requested, device, connection))
        except ConnectionResetError:
            log.info("the client went before it was answered")
        finally:
            if device is not None:
                device.detached(connection)
        return socket

    async def _attach(self, device: Device, connection: Connection, ask: Ask) -> None:
        if not ask.reconnects:
            await device.begin(connection, ask)
            return
        await device.resume(connection)
        if ask.sync_state is not None:
            await requests.sync_state(device, ask.sync_state)
        if ask.offer is not None:
            await device.negotiator.offer(ask.offer)

    async def _requested(
        self, device: Device, connection: Connection, request: rtc.SignalRequest
    ) -> None:
        await device.ask(partial(requests.handle, device, request))

    def _claims(self, request: web.Request) -> Claims:
        """Raises HTTP 401 for a token that is none or opens no room, 429 for guessing."""
        header = request.headers.get("Authorization", "")
        token = request.query.get("access_token") or header.removeprefix("Bearer ").strip()
        try:
            claims = self.tokens.verify(token)
        except Refused as why:
            raise self._refuse_guess(request, str(why)) from why
        if not claims.video.room_join or not claims.video.room:
            text = "The token does not allow joining a room."
            raise web.HTTPUnauthorized(text=text, headers=_ALLOW_ALL)
        return claims

    def _refuse_guess(self, request: web.Request, why: str) -> web.HTTPException:
        """Only bad tokens wait: otherwise one guesser would shut out all who share his address."""
        address = self._context.http.client_address(request)
        now_s = time.monotonic()
        if self._backoff.wait_s(address, now_s) > 0:
            return web.HTTPTooManyRequests(text="too many failures", headers=_ALLOW_ALL)
        self._backoff.failed(address, now_s)
        return web.HTTPUnauthorized(text=why, headers=_ALLOW_ALL)

    async def _ask(self, request: web.Request, *, is_single: bool) -> Ask:
        try:
            if is_single:
                return await joins.read_join_request(request.query.get("join_request", ""))
            return joins.read_query(request.query)
        except Malformed as why:
            raise web.HTTPBadRequest(text=str(why), headers=_ALLOW_ALL) from why

    def _resumed(self, claims: Claims, ask: Ask) -> Device | None:
        """The leg that this client had, if the token is of the same subject and room."""
        device = self._rooms.get(LegId(ask.participant_sid))
        if device is None or device.leg is None or device.state.is_single != ask.is_single:
            return None
        known = device.state.claims
        is_same = (known.subject, known.video.room, known.acts_as) == (
            claims.subject,
            claims.video.room,
            claims.acts_as,
        )
        return device if is_same else None

    async def _enter(self, claims: Claims, ask: Ask) -> Device:
        """Reserve the session, remember the leg, join. Raises HTTP errors."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                return await self._join(claims, ask)
        except Refused as why:
            raise web.HTTPForbidden(text=str(why), headers=_ALLOW_ALL) from why
        except Malformed as why:
            raise web.HTTPBadRequest(text=str(why), headers=_ALLOW_ALL) from why
        except (Unavailable, TimeoutError) as why:
            log.warning("join not possible now", extra={"why": str(why)})
            raise web.HTTPServiceUnavailable(text="try again", headers=_ALLOW_ALL) from why

    async def _join(self, claims: Claims, ask: Ask) -> Device:
        record = await conferences.of_room(self._context.directory, claims.video.room)
        await self._replace(record, claims)
        leg_id = LegId("PA_" + secrets.token_hex(8))
        state = WireState(
            claims=claims,
            is_single=ask.is_single,
            auto_subscribe=ask.auto_subscribe,
            metadata=ask.metadata or claims.metadata,
            attributes=dict(claims.attributes) | dict(ask.attributes),
        )
        device = Device(self._services, record, leg_id, state)
        assert self._tasks is not None
        self._rooms.add(device)
        self._tasks.create_task(device.run(), name=f"leg-{leg_id}")
        try:
            await device.negotiator.open()
            await device.save()
            await self._context.submit(record.id, _join_command(device), None)
        except BaseException:
            device.parted(LeaveReason.FAILED)  # its task closes the session and forgets the leg
            raise
        connections = 1 if ask.is_single else 2
        log.info("leg joined", extra={"leg": leg_id, "connections": connections})
        return device

    async def _replace(self, record: ConferenceRecord, claims: Claims) -> None:
        """A second join with one subject ends the first. Matrix identities are compared by the focus."""
        if claims.is_matrix:
            return
        for device in self._rooms.of(record.id):
            known = device.state.claims
            if (known.subject, known.acts_as) == (claims.subject, claims.acts_as):
                leave = Leave(device.leg_id, LeaveReason.REPLACED)
                await self._context.submit(record.id, leave, None)


def _join_command(device: Device) -> Join:
    claims = device.state.claims
    return Join(
        leg=device.leg_id,
        gateway=NAME,
        account=claims.acts_as,
        name=claims.name or claims.subject,
        role=claims.ranks_as,
        receives=Receives.EACH,
        identity=Identity(claims.subject) if claims.is_matrix else None,
        token_subject=claims.subject,
        can_publish=claims.video.can_publish,
        can_subscribe=claims.video.can_subscribe,
        hidden=claims.video.hidden,
    )


async def _ignore(_: rtc.SignalRequest) -> None:
    """A client that is being sent away may say what it likes."""


def _websocket_url(public_url: str) -> str:
    scheme, _, rest = public_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}"
