"""A homeserver of 200 lines: rooms, members, power, delayed events, and an appservice to push to.

Enough of the client-server API for the gateway, with faults on demand (`failing`, `limited`). It checks what
Synapse checks: registration, membership, power levels, transaction ids.
Not here: anything federated, sync, auth rules in full (tests.peers.synapse is the real thing).
"""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

CALL_MEMBER = "org.matrix.msc3401.call.member"


@dataclass(slots=True)
class Room:
    public: bool = True
    state: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def content(self, kind: str, key: str = "") -> dict[str, Any]:
        event = self.state.get((kind, key))
        return {} if event is None else dict(event["content"])

    def membership(self, mxid: str) -> str:
        return str(self.content("m.room.member", mxid).get("membership", "leave"))

    def level(self, mxid: str) -> int:
        levels = self.content("m.room.power_levels")
        return int(levels.get("users", {}).get(mxid, 0))

    def messages(self) -> list[tuple[str, str]]:
        return [
            (event["sender"], event["content"].get("body", ""))
            for event in self.timeline
            if event["type"] == "m.room.message"
        ]

    def calls(self) -> dict[str, dict[str, Any]]:
        return {
            key: event["content"]
            for (kind, key), event in self.state.items()
            if kind == CALL_MEMBER and event["content"]
        }


class Fault(Exception):
    def __init__(self, status: int, errcode: str) -> None:
        super().__init__(errcode)
        self.status, self.errcode = status, errcode


class FakeHomeserver:
    """`async with FakeHomeserver() as server:`; `push` sends an event to the appservice at `hears`."""

    def __init__(self, server_name: str = "hs.test", bot: str = "parley") -> None:
        self.server_name = server_name
        self.bot = f"@{bot}:{server_name}"
        self.rooms: dict[str, Room] = {}
        self.users: dict[str, dict[str, str]] = {self.bot: {}}
        self.delayed: dict[str, Callable[[], None]] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, user
        self.failing = 0  # so many requests answer 503
        self.limited = 0  # so many requests answer 429
        self.has_delays = True
        self.can_reach_us = True  # what a ping says
        self.hears = ""
        self.hs_token = "h" * 32
        self.url = ""
        self._ids = itertools.count(1)
        self._transactions: dict[str, str] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self._listen(0)
        return self

    async def _listen(self, port: int) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._any)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- for tests --------------------------------------------------------------------------------------

    def room(self, *members: str, public: bool = True, levels: dict[str, int] | None = None) -> str:
        """A room with these members and everybody allowed to publish call memberships."""
        room_id = f"!room{next(self._ids)}:{self.server_name}"
        self.rooms[room_id] = Room(public)
        creator = members[0] if members else f"@creator:{self.server_name}"
        self._put(room_id, "m.room.create", "", creator, {"room_version": "11"})
        self._put(
            room_id,
            "m.room.power_levels",
            "",
            creator,
            {"users": {creator: 100, **(levels or {})}, "events": {CALL_MEMBER: 0}},
        )
        for mxid in members:
            self.users.setdefault(mxid, {})
            self.member(room_id, mxid, "join")
        return room_id

    def member(self, room: str, mxid: str, membership: str, sender: str = "") -> dict[str, Any]:
        content = {"membership": membership, **self._profile(mxid)}
        return self._put(room, "m.room.member", mxid, sender or mxid, content)

    def message(self, room: str, sender: str, body: str, **content: Any) -> dict[str, Any]:
        return self._append(
            room, "m.room.message", None, sender, {"msgtype": "m.text", "body": body, **content}
        )

    async def push(self, *events: Any, txn: str = "") -> int:
        """Send a transaction to the appservice; returns its status."""
        async with (
            aiohttp.ClientSession() as http,
            http.put(
                f"{self.hears}/_matrix/app/v1/transactions/{txn or next(self._ids)}",
                json={"events": list(events)},
                headers={"Authorization": f"Bearer {self.hs_token}"},
            ) as response,
        ):
            return response.status

    async def says(self, room: str, sender: str, body: str, **content: Any) -> str:
        event = self.message(room, sender, body, **content)
        assert await self.push(event) == 200
        return str(event["event_id"])

    async def hang_up(self) -> None:
        """Close every connection and listen again at the same place, as after a short restart."""
        assert self._runner is not None
        port = self._runner.addresses[0][1]
        await self._runner.cleanup()
        await self._listen(port)

    # --- the API ----------------------------------------------------------------------------------------

    async def _any(self, request: web.Request) -> web.Response:
        user = request.query.get("user_id", self.bot)
        path = "/" + request.match_info["path"]
        self.requests.append((request.method, path, user))
        try:
            if self.failing:
                self.failing -= 1
                raise Fault(503, "M_UNKNOWN")
            if self.limited:
                self.limited -= 1
                raise Fault(429, "M_LIMIT_EXCEEDED")
            body = await request.json() if request.can_read_body else {}
            answer = self._answer(request, path.removeprefix("/_matrix/client/"), user, body)
        except Fault as why:
            return web.json_response(
                {"errcode": why.errcode, "error": why.errcode}, status=why.status
            )
        return web.json_response(answer)

    def _answer(self, request: web.Request, path: str, user: str, body: Any) -> Any:  # noqa: C901  one row per endpoint
        parts = path.split("/")
        if path == "v3/register":
            mxid = f"@{body['username']}:{self.server_name}"
            if mxid in self.users:
                raise Fault(400, "M_USER_IN_USE")
            self.users[mxid] = {}
            return {"user_id": mxid}
        if user not in self.users:
            raise Fault(403, "M_FORBIDDEN")
        match parts:
            case ["v1", "appservice", _, "ping"]:
                if not self.can_reach_us:
                    raise Fault(502, "M_CONNECTION_FAILED")
                return {"duration_ms": 1}
            case ["v3", "profile", mxid]:
                if mxid not in self.users:
                    raise Fault(404, "M_NOT_FOUND")
                return self._profile(mxid)
            case ["v3", "profile", mxid, what]:
                self.users[mxid][what] = body[what]
                for room_id, room in self.rooms.items():
                    if room.membership(mxid) == "join":
                        self.member(room_id, mxid, "join")
                return {}
            case ["v3", "rooms", room_id, *rest]:
                return self._in_room(request, room_id, rest, user, body)
            case ["unstable", "org.matrix.msc4140", "delayed_events", delay_id, action]:
                if delay_id not in self.delayed:
                    raise Fault(404, "M_NOT_FOUND")
                if action == "cancel":
                    del self.delayed[delay_id]
                return {}
        raise Fault(404, "M_UNRECOGNIZED")

    def _in_room(  # noqa: C901
        self, request: web.Request, room_id: str, rest: list[str], user: str, body: Any
    ) -> Any:
        room = self.rooms.get(room_id)
        if room is None:
            raise Fault(403, "M_FORBIDDEN")
        if rest == ["join"]:
            if room.membership(user) == "ban" or not (
                room.public or room.membership(user) in ("invite", "join")
            ):
                raise Fault(403, "M_FORBIDDEN")
            self.member(room_id, user, "join")
            return {"room_id": room_id}
        if room.membership(user) != "join":
            raise Fault(403, "M_FORBIDDEN")
        match rest:
            case ["invite"]:
                if room.membership(body["user_id"]) == "ban":
                    raise Fault(403, "M_FORBIDDEN")
                self.member(room_id, body["user_id"], "invite", user)
                return {}
            case ["leave"]:
                self.member(room_id, user, "leave")
                return {}
            case ["joined_members"]:
                return {
                    "joined": {
                        key: {"display_name": event["content"].get("displayname")}
                        for (kind, key), event in room.state.items()
                        if kind == "m.room.member" and event["content"]["membership"] == "join"
                    }
                }
            case ["messages"]:
                wanted = json.loads(request.query.get("filter", "{}")).get("senders")
                return {
                    "chunk": [
                        e for e in reversed(room.timeline) if not wanted or e["sender"] in wanted
                    ]
                }
            case ["send", kind, txn]:
                if txn not in self._transactions:
                    event = self._append(room_id, kind, None, user, body)
                    self._transactions[txn] = event["event_id"]
                return {"event_id": self._transactions[txn]}
            case ["state", kind, *key]:
                return self._state(request, room_id, kind, "/".join(key), user, body)
        raise Fault(404, "M_UNRECOGNIZED")

    def _state(
        self, request: web.Request, room_id: str, kind: str, key: str, user: str, body: Any
    ) -> Any:
        room = self.rooms[room_id]
        if request.method == "GET":
            event = room.state.get((kind, key))
            if event is None:
                raise Fault(404, "M_NOT_FOUND")
            return event if request.query.get("format") == "event" else event["content"]
        needed = room.content("m.room.power_levels").get("events", {}).get(kind, 50)
        delay = request.query.get("org.matrix.msc4140.delay")
        if delay is not None:
            if not self.has_delays:
                raise Fault(403, "M_FORBIDDEN")
            delay_id = f"delay{next(self._ids)}"
            self.delayed[delay_id] = lambda: void(self._put(room_id, kind, key, user, body))
            return {"delay_id": delay_id}
        if room.level(user) < needed:
            raise Fault(403, "M_FORBIDDEN")
        return {"event_id": self._put(room_id, kind, key, user, body)["event_id"]}

    # --- storage ----------------------------------------------------------------------------------------

    def _profile(self, mxid: str) -> dict[str, str]:
        return dict(self.users.get(mxid, {}))

    def _put(
        self, room: str, kind: str, key: str, sender: str, content: dict[str, Any]
    ) -> dict[str, Any]:
        event = self._append(room, kind, key, sender, content)
        self.rooms[room].state[kind, key] = event
        return event

    def _append(
        self, room: str, kind: str, key: str | None, sender: str, content: dict[str, Any]
    ) -> dict[str, Any]:
        event = {
            "type": kind,
            "event_id": f"$event{next(self._ids)}",
            "room_id": room,
            "sender": sender,
            "origin_server_ts": int(time.time() * 1000),
            "content": content,
        }
        if key is not None:
            event["state_key"] = key
        self.rooms[room].timeline.append(event)
        return event


def void(_: object) -> None:
    """Drop a value where none is wanted."""
