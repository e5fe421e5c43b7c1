"""Debian's Janus with one room of its videoroom plugin, under the same sender and the same receivers as ours.

Joins go through its WebSocket API; it runs ICE-lite on an address of this machine, because libnice skips loopback.
It answers DTLS as the client, so that our side picks AES-128-GCM, as the worker does.
Not here: what is compared (`bench.scenarios.j_janus`).
"""

import asyncio
import contextlib
import ipaddress
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench import machine
from bench.cast import Media
from bench.handshake import JoinFailed, connect, new_socket, new_transport
from bench.load import Keyed, Load, Sending, build, load
from bench.peer import CODECS, extensions
from bench.stage import in_turn
from sfu import sdp
from sfu.description import (
    Candidate,
    Description,
    DescriptionType,
    Direction,
    MediaKind,
    Section,
    Setup,
    Source,
    SourceGroup,
    Transport,
)
from sfu.dtls import Certificate
from sfu.native import local_addresses
from sfu.sdp_print import print_description

BINARY: Final = "janus"
PLUGINS: Final = Path("/usr/lib/x86_64-linux-gnu/janus")
ANSWER_S: Final = 15.0
START_S: Final = 15.0
END_S: Final = 10.0
ROOM, FEED = 1, 1


class Absent(Exception):
    """Janus cannot be measured here; the message says why."""


def own_address() -> str:
    """An IPv4 address of ours that is not loopback. Raises `Absent`."""
    if shutil.which(BINARY) is None:
        raise Absent("the Debian package janus is not installed")
    for _, text in local_addresses():
        address = ipaddress.ip_address(text)
        if address.version == 4 and not address.is_loopback:
            return text
    raise Absent("this machine has no IPv4 address besides loopback, and libnice skips that")


class Api:
    """The WebSocket: requests with their answers, events by handle."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._session = 0

    async def read(self) -> None:
        async for frame in self._ws:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                continue
            message = frame.json()
            if message["janus"] == "ack":
                continue  # the event follows
            waiting = self._waiting.get(message.get("transaction", ""))
            if waiting is not None and not waiting.done():
                waiting.set_result(message)

    async def ask(self, kind: str, handle: int = 0, **words: Any) -> dict[str, Any]:
        """Raises `JoinFailed` with Janus' own words."""
        transaction = secrets.token_hex(8)
        request = {"janus": kind, "transaction": transaction, **words}
        if self._session:
            request["session_id"] = self._session
        if handle:
            request["handle_id"] = handle
        answer = self._waiting[transaction] = asyncio.get_running_loop().create_future()
        await self._ws.send_json(request)
        async with asyncio.timeout(ANSWER_S):
            message: dict[str, Any] = await answer
        del self._waiting[transaction]
        data: dict[str, Any] = message.get("plugindata", {}).get("data", {})
        fault: str | None = message.get("error", {}).get("reason") or data.get("error")
        if fault:
            raise JoinFailed(f"janus: {fault}")
        return message

    async def begin(self) -> None:
        self._session = (await self.ask("create"))["data"]["id"]

    async def attach(self) -> int:
        message = await self.ask("attach", plugin="janus.plugin.videoroom")
        return int(message["data"]["id"])

    async def say(self, handle: int, jsep: dict[str, str] | None = None, **body: Any) -> Any:
        words: dict[str, Any] = {"body": body}
        if jsep is not None:
            words["jsep"] = jsep
        return await self.ask("message", handle, **words)


@dataclass(slots=True)
class JanusStage:
    """A running Janus with its room; nobody has joined yet."""

    api: Api
    pid: int
    tool: Load
    sockets: list[socket.socket]
    certificate: Certificate = field(default_factory=Certificate)
    version: str = ""

    async def join(self, media: Media, at_once: int) -> None:
        """The publisher on the first socket, a viewer on each of the others."""
        stream = Sending.new(0, 0, 0, "0", media)
        self.tool.add(0, await self._publish(stream, media))
        self.tool.send(stream)

        async def arrive(number: int) -> None:
            self.tool.add(number, await self._watch(self.sockets[number]))

        await in_turn(list(range(1, len(self.sockets))), at_once, arrive)

    def _transport(self, own: socket.socket, setup: Setup) -> Transport:
        address, port = own.getsockname()
        made = new_transport(self.certificate, setup)
        candidate = Candidate("1", 1, "udp", 2_130_706_431, address, port)
        return Transport(made.ufrag, made.pwd, made.fingerprints, setup, (candidate,))

    async def _publish(self, stream: Sending, media: Media) -> Keyed:
        handle = await self.api.attach()
        await self.api.say(
            handle, request="create", room=ROOM, publishers=1, bitrate=0, videocodec="vp8"
        )
        await self.api.say(handle, request="join", ptype="publisher", room=ROOM, id=FEED)
        own = self.sockets[0]
        ours = self._transport(own, Setup.PASSIVE)
        section = Section(
            mid="0",
            kind=MediaKind.VIDEO,
            direction=Direction.SENDONLY,
            transport=ours,
            codecs=CODECS[MediaKind.VIDEO],
            extensions=extensions(MediaKind.VIDEO),
            sources=tuple(Source(ssrc, (("cname", "bench"),)) for ssrc in stream.ssrcs),
            source_groups=(SourceGroup("FID", stream.ssrcs),),
            stream="bench",
            track="camera",
        )
        offer = print_description(Description(DescriptionType.OFFER, (section,), bundle=("0",)))
        message = await self.api.say(
            handle, {"type": "offer", "sdp": offer}, request="configure", video=True, audio=False
        )
        theirs = sdp.parse(message["jsep"]["sdp"], DescriptionType.ANSWER).sections[0].transport
        is_client = theirs.setup is Setup.PASSIVE
        return await connect(own, self.certificate, ours, theirs, is_client=is_client)

    async def _subscribe(self, handle: int) -> Any:
        """A feed exists for others a moment after its own handshake."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    return await self.api.say(
                        handle,
                        request="join",
                        ptype="subscriber",
                        room=ROOM,
                        streams=[{"feed": FEED}],
                    )
                except JoinFailed as why:
                    if "feed" not in str(why):
                        raise
                await asyncio.sleep(0.1)

    async def _watch(self, own: socket.socket) -> Keyed:
        handle = await self.api.attach()
        message = await self._subscribe(handle)
        offered = sdp.parse(message["jsep"]["sdp"], DescriptionType.OFFER)
        ours = self._transport(own, Setup.PASSIVE)
        sections = tuple(
            Section(
                mid=section.mid,
                kind=section.kind,
                direction=section.direction.reversed,
                transport=ours,
                codecs=section.codecs,
                extensions=section.extensions,
                rejected=section.rejected,
            )
            for section in offered.sections
        )
        answer = Description(DescriptionType.ANSWER, sections, bundle=offered.bundle)
        spelled = {"type": "answer", "sdp": print_description(answer)}
        await self.api.say(handle, spelled, request="start", room=ROOM)
        theirs = offered.sections[0].transport
        return await connect(own, self.certificate, ours, theirs, is_client=False)


def _configure(folder: Path, address: str, port: int) -> None:
    (folder / "janus.jcfg").write_text(
        f"""general: {{
    configs_folder = "{folder}"
    plugins_folder = "{PLUGINS}/plugins"
    transports_folder = "{PLUGINS}/transports"
    events_folder = "{PLUGINS}/events"
    loggers_folder = "{PLUGINS}/loggers"
    debug_level = 2
    session_timeout = 0
}}
nat: {{
    ice_lite = true
    ice_enforce_list = "{address}"
    ignore_mdns = true
}}
plugins: {{
    disable = "{",".join(_others("plugins", "videoroom"))}"
}}
transports: {{
    disable = "{",".join(_others("transports", "websockets"))}"
}}
"""
    )
    (folder / "janus.transport.websockets.jcfg").write_text(
        f'general: {{\n    ws = true\n    ws_port = {port}\n    ws_ip = "127.0.0.1"\n'
        f"    wss = false\n}}\nadmin: {{ admin_ws = false }}\n"
    )
    (folder / "janus.plugin.videoroom.jcfg").write_text("general: { }\n")


def _others(kind: str, wanted: str) -> list[str]:
    return [path.name for path in (PLUGINS / kind).glob("*.so") if wanted not in path.name]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def janus_stage(viewers: int) -> AsyncIterator[JanusStage]:
    """Janus, the load tool and everybody's sockets. Raises `Absent`."""
    address, port = own_address(), _free_port()
    binary = await asyncio.to_thread(build)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-janus-"))
        )
        _configure(folder, address, port)
        sockets = [stack.enter_context(new_socket(address)) for _ in range(viewers + 1)]
        log = stack.enter_context((folder / "janus.log").open("wb"))
        process = await asyncio.create_subprocess_exec(
            *(BINARY, "-F", str(folder), "-C", str(folder / "janus.jcfg")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            machine.pin(process.pid, machine.SERVER)
            tool = await stack.enter_async_context(load(binary, [one.fileno() for one in sockets]))
            machine.pin(tool.pid, machine.LOAD)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            ws = await stack.enter_async_context(await _dial(http, port))
            api = Api(ws)
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(api.read())
                info = await api.ask("info")
                await api.begin()
                yield JanusStage(
                    api, process.pid, tool, sockets, version=info.get("version_string", "")
                )
                reading.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()


async def _dial(http: aiohttp.ClientSession, port: int) -> Any:
    async with asyncio.timeout(START_S):
        while True:
            try:
                return await http.ws_connect(
                    f"ws://127.0.0.1:{port}", protocols=["janus-protocol"], max_msg_size=0
                )
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
