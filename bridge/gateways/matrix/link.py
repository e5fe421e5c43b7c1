"""The client-server API as parley uses it: mautrix intents underneath, our errors on top.

Client-server API v1.15; MSC4140 (delayed events) of 2026-07; application service API v1.15 (masquerading).
Every call ends within `CALL_S`. Raises `Unavailable` (try again), `Denied` (the homeserver's rules say no).
Not here: events that come in (`intake`), who is a ghost (`ghosts`), federation (`proof`).
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from mautrix.api import Method, Path, PathBuilder
from mautrix.appservice import IntentAPI
from mautrix.appservice.api.appservice import AppServiceAPI
from mautrix.appservice.state_store import ASStateStore
from mautrix.errors import MatrixError, MatrixRequestError
from mautrix.types import RoomID, UserID
from yarl import URL

from bridge.conference.errors import Refused, Unavailable

CALL_S: Final = 10.0  # a homeserver that needs longer is as good as away
CONNECTIONS: Final = 32
_DELAYED: Final = "org.matrix.msc4140"


class Denied(Refused):
    """The homeserver said no: `status` and `errcode` are its own."""

    def __init__(self, status: int, errcode: str, text: str) -> None:
        super().__init__(text or errcode or f"The homeserver answered {status}.")
        self.status = status
        self.errcode = errcode

    @property
    def is_forbidden(self) -> bool:
        return self.status == 403

    @property
    def is_absent(self) -> bool:
        return self.status == 404


def translate(error: Exception) -> Unavailable | Denied:
    """One of our errors for one of the library's. 5xx, 429 and a refused token of ours pass by themselves."""
    if isinstance(error, MatrixRequestError):
        errcode = str(getattr(error, "errcode", "") or "")
        text = str(getattr(error, "message", "") or "")
        if error.http_status >= 500 or error.http_status == 429 or errcode == "M_LIMIT_EXCEEDED":
            return Unavailable(f"homeserver: {error.http_status} {errcode}".rstrip())
        if error.http_status == 401:
            return Unavailable(f"homeserver refuses our as_token ({errcode})")
        return Denied(error.http_status, errcode, text)
    if isinstance(error, TimeoutError):
        return Unavailable("homeserver: no answer in time")
    return Unavailable(f"homeserver: {type(error).__name__}")


def _quiet() -> logging.Logger:
    """mautrix writes whole requests at debug level, texts and names included (S42): never."""
    quiet = logging.getLogger("mau.parley")
    quiet.setLevel(logging.WARNING)
    return quiet


class Link:
    """`async with Link(...)`; one HTTP session for bot and ghosts. Without retries: callers know their haste."""

    def __init__(self, *, homeserver: str, bot: str, as_token: str, state: ASStateStore) -> None:
        self._homeserver = homeserver
        self._bot = UserID(bot)
        self._as_token = as_token
        self._state = state
        self._session: aiohttp.ClientSession | None = None
        self._api: AppServiceAPI | None = None
        self._problem = "not connected yet"

    @property
    def problem(self) -> str:
        """Empty while the last call reached the homeserver."""
        return self._problem

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=CALL_S),
        )
        self._api = AppServiceAPI(
            base_url=self._homeserver,
            bot_mxid=self._bot,
            token=self._as_token,
            log=_quiet(),  # type: ignore[arg-type]  # any logger does
            state_store=self._state,
            client_session=self._session,
            default_retry_count=0,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, self._session, self._api = self._session, None, None
        if session is not None:
            await session.close()

    def _intent(self, mxid: str) -> IntentAPI:
        if self._api is None:
            raise Unavailable("matrix gateway is not running")
        api = self._api
        intent: IntentAPI = api.bot_intent() if mxid == self._bot else api.intent(UserID(mxid))
        return intent

    async def _call(
        self,
        method: Method,
        path: PathBuilder,
        content: Mapping[str, Any] | None = None,
        *,
        user: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        intent = self._intent(user or self._bot)
        try:
            async with asyncio.timeout(CALL_S):
                answer = await intent.api.request(
                    method, path, dict(content or {}), query_params=dict(query or {})
                )
        except (MatrixError, TimeoutError, aiohttp.ClientError, ValueError) as why:
            raise self._note(why) from None  # the library's text may hold the request's URL
        self._problem = ""
        return answer if isinstance(answer, Mapping) else {}

    def _note(self, why: Exception) -> Unavailable | Denied:
        error = translate(why)
        self._problem = str(error) if isinstance(error, Unavailable) else ""
        return error

    # --- accounts ---------------------------------------------------------------------------------------

    async def register(self, mxid: str) -> None:
        """Make sure the account exists (asked once, remembered)."""
        try:
            async with asyncio.timeout(CALL_S):
                await self._intent(mxid).ensure_registered()
        except (MatrixError, TimeoutError, aiohttp.ClientError, ValueError) as why:
            raise self._note(why) from None

    async def set_name(self, mxid: str, name: str) -> None:
        await self._call(
            Method.PUT, Path.v3.profile[mxid].displayname, {"displayname": name}, user=mxid
        )

    async def set_avatar(self, mxid: str, url: str) -> None:
        await self._call(
            Method.PUT, Path.v3.profile[mxid].avatar_url, {"avatar_url": url}, user=mxid
        )

    async def profile(self, mxid: str) -> Mapping[str, Any]:
        return await self._call(Method.GET, Path.v3.profile[mxid])

    async def ping(self, appservice: str, transaction: str) -> None:
        """Ask the homeserver to call us back (MSC2659): wakes its queue after an absence of ours."""
        await self._call(
            Method.POST, Path.v1.appservice[appservice].ping, {"transaction_id": transaction}
        )

    async def watch(self, watch_s: float) -> bool:
        """True when an idle connection to the homeserver broke, False when it held for `watch_s`.

        A held sync would say more, but Synapse 1.163.2 answers 500 to an appservice that has no device.
        """
        url = URL(self._homeserver)
        try:
            async with asyncio.timeout(CALL_S):
                reader, writer = await asyncio.open_connection(
                    url.host, url.port, ssl=True if url.scheme == "https" else None
                )
        except (OSError, TimeoutError) as why:
            raise self._note(why) from None
        try:
            async with asyncio.timeout(watch_s):
                await reader.read(1)
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            writer.close()
        return True

    # --- rooms ------------------------------------------------------------------------------------------

    async def join(self, room: str, mxid: str, *, again: bool = False) -> None:
        """Be in the room; a ghost that may not enter by itself is invited by the bot first.

        `again` does not believe what is remembered. Nobody is ever unbanned by us.
        """
        where, who = RoomID(room), UserID(mxid)
        if not again and await self._state.is_joined(where, who):
            return
        await self.register(mxid)
        try:
            await self._call(Method.POST, Path.v3.rooms[room].join, user=mxid)
        except Denied as why:
            if mxid == self._bot or not why.is_forbidden:
                raise
            await self._call(Method.POST, Path.v3.rooms[room].invite, {"user_id": mxid})
            await self._call(Method.POST, Path.v3.rooms[room].join, user=mxid)
        await self._state.joined(where, who)

    async def forget_join(self, room: str, mxid: str) -> None:
        """The account is no longer in the room, as an event has told."""
        await self._state.left(RoomID(room), UserID(mxid))

    async def leave(self, room: str, mxid: str) -> None:
        await self._call(Method.POST, Path.v3.rooms[room].leave, user=mxid)

    async def joined_rooms(self) -> tuple[str, ...]:
        answer = await self._call(Method.GET, Path.v3.joined_rooms)
        rooms = answer.get("joined_rooms")
        return tuple(str(room) for room in rooms) if isinstance(rooms, list) else ()

    async def joined_members(self, room: str) -> Mapping[str, Mapping[str, Any]]:
        answer = await self._call(Method.GET, Path.v3.rooms[room].joined_members)
        joined = answer.get("joined")
        return joined if isinstance(joined, Mapping) else {}

    async def state(
        self, room: str, kind: str, key: str = "", *, whole: bool = False
    ) -> Mapping[str, Any]:
        """Content of a state event, or the `whole` event. `Denied` 404 when there is none, 403 when not inside."""
        return await self._call(
            Method.GET,
            Path.v3.rooms[room].state[kind][key],
            query={"format": "event"} if whole else None,
        )

    async def put_state(
        self, room: str, kind: str, key: str, content: Mapping[str, Any], *, user: str = ""
    ) -> str:
        answer = await self._call(
            Method.PUT, Path.v3.rooms[room].state[kind][key], content, user=user
        )
        return str(answer.get("event_id", ""))

    async def send(
        self, room: str, kind: str, content: Mapping[str, Any], *, key: str, user: str = ""
    ) -> str:
        """Send an event under a transaction id of our choice; the same id again gives the same event."""
        answer = await self._call(
            Method.PUT, Path.v3.rooms[room].send[kind][key], content, user=user
        )
        return str(answer.get("event_id", ""))

    async def recent(self, room: str, *, sender: str, limit: int) -> tuple[Mapping[str, Any], ...]:
        """Newest events of one sender, newest first."""
        answer = await self._call(
            Method.GET,
            Path.v3.rooms[room].messages,
            user=sender,
            query={
                "dir": "b",
                "limit": str(limit),
                "filter": json.dumps({"senders": [sender]}),
            },
        )
        chunk = answer.get("chunk")
        return tuple(e for e in chunk if isinstance(e, Mapping)) if isinstance(chunk, list) else ()

    async def page_back(
        self, room: str, token: str, *, limit: int
    ) -> tuple[tuple[Mapping[str, Any], ...], str]:
        """Events of everybody, newest first, and the token of the next page (empty: no more)."""
        query = {"dir": "b", "limit": str(limit), **({"from": token} if token else {})}
        answer = await self._call(Method.GET, Path.v3.rooms[room].messages, query=query)
        chunk = answer.get("chunk")
        events = chunk if isinstance(chunk, list) else []
        after = answer.get("end")
        return tuple(e for e in events if isinstance(e, Mapping)), str(after) if after else ""

    # --- delayed events (MSC4140) -----------------------------------------------------------------------

    async def put_state_later(
        self,
        room: str,
        kind: str,
        key: str,
        content: Mapping[str, Any],
        *,
        user: str,
        delay_ms: int,
    ) -> str:
        """Schedule a state event; returns the delay id, or nothing where MSC4140 is unknown or switched off.

        A homeserver that ignores the parameter has sent the event at once: harmless for a leave before a join.
        Synapse 1.163 answers 403 when `max_event_delay_duration` is not set; the join tells what 403 meant.
        """
        try:
            answer = await self._call(
                Method.PUT,
                Path.v3.rooms[room].state[kind][key],
                content,
                user=user,
                query={f"{_DELAYED}.delay": str(delay_ms)},
            )
        except Denied as why:
            if why.status not in (400, 403, 404):
                raise
            return ""
        return str(answer.get("delay_id", ""))

    async def restart_later(self, delay_id: str, *, user: str) -> bool:
        """Start its clock anew. False: it has fired, or nobody knows it."""
        return await self._delayed(delay_id, "restart", user)

    async def cancel_later(self, delay_id: str, *, user: str) -> bool:
        return await self._delayed(delay_id, "cancel", user)

    async def _delayed(self, delay_id: str, action: str, user: str) -> bool:
        path = Path.unstable[_DELAYED].delayed_events[delay_id]
        try:
            try:
                await self._call(Method.POST, path[action], user=user)
            except Denied as why:
                if why.errcode != "M_UNRECOGNIZED":
                    raise
                # COMPAT: MSC4140 of 2025 had one path with the action in the body (re-check 2027-06).
                await self._call(Method.POST, path, {"action": action}, user=user)
        except Denied as why:
            if why.is_absent or why.status in (400, 409):
                return False
            raise
        return True
