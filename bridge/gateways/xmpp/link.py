"""The component's stream to its server (XEP-0114): connect, reconnect, send, request.

The only file that touches slixmpp, whose types are loose: it gives us the handshake, TLS and the
transport; parsing is ours (`guard`, S39) and stanzas are plain elements in `jabber:client`.
S36: only stanzas to our own domain are delivered; an iq answer must come from the address asked.
S40: the secret never crosses a plain connection that leaves this machine.
Not here: what a stanza means (`inbound`).
"""

import asyncio
import ipaddress
import logging
import random
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from slixmpp.componentxmpp import ComponentXMPP

from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.guard import Ended, Guard, Opened, Stanza

log = logging.getLogger(__name__)
# At debug level slixmpp writes raw XML, the handshake included (S42).
logging.getLogger("slixmpp").setLevel(logging.WARNING)

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 3.0  # R2 wants <= 5 s after the server returns
CONNECT_S: Final = 4.0  # until the handshake is accepted
PING_EVERY_S: Final = 30.0
PING_WAIT_S: Final = 15.0
MAX_UNSENT_BYTES: Final = 4 << 20  # a server that does not read: refuse instead of growing
MAX_REQUESTS: Final = 1_000  # awaited iq answers


class RequestFailed(Refused):
    """The peer answered an iq with an error; `condition` as in RFC 6120 section 8.3.3."""

    def __init__(self, condition: str) -> None:
        super().__init__(f"the other side answered {condition}")
        self.condition = condition


def refuse_plain_secret(host: str, tls: bool) -> None:
    """S40. Raises `Refused` naming the key and the fix."""
    if tls or host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise Refused(
            f"xmpp.host {host} is not this machine: set xmpp.tls, or the component secret would be readable"
        )


class _Stream(ComponentXMPP):
    """One connection. slixmpp's parser and stanza objects are replaced by ours."""

    def __init__(self, owner: "Link", domain: str, secret: str, host: str, port: int) -> None:
        super().__init__(domain, secret, host, port)  # type: ignore[no-untyped-call]
        self._owner = owner
        self._guard = Guard()
        self.whitespace_keepalive = False  # `Link` pings, which also notices a dead peer
        self.over: asyncio.Event = asyncio.Event()
        self.ready: asyncio.Event = asyncio.Event()
        self.add_event_handler("session_start", self._on_ready)
        self.add_event_handler("disconnected", self._on_over)
        self.add_event_handler("connection_failed", self._on_failed)

    def _on_ready(self, _: Any) -> None:
        self.ready.set()

    def _on_over(self, _: Any) -> None:
        self.over.set()

    def _on_failed(self, _: Any) -> None:
        self.cancel_connection_attempt()  # we have our own backoff
        self.over.set()

    def init_parser(self) -> None:
        self._guard = Guard()
        self.parser = None  # slixmpp's would take a DOCTYPE and megabytes

    def data_received(self, data: bytes | str) -> None:
        raw = data if isinstance(data, bytes) else data.encode()
        try:
            items = self._guard.feed(raw)
        except Malformed as why:
            log.warning("stream refused", extra={"fault": str(why)})
            self._fail("not-well-formed")
            return
        for item in items:
            match item:
                case Opened(header):
                    self.start_stream_handler(header)  # type: ignore[no-untyped-call]
                case Stanza(element):
                    self._take(element)
                case Ended():
                    self.abort()
                    return

    def _take(self, element: Element) -> None:
        if element.tag == f"{{{st.COMPONENT}}}handshake":
            self._spawn_event(element)
        elif element.tag.startswith(f"{{{st.COMPONENT}}}") or element.tag.startswith(
            f"{{{st.CLIENT}}}"
        ):
            st.rename(element, st.COMPONENT, st.CLIENT)
            self._owner.received(element)
        else:  # a stream error: the server says goodbye
            names = [child.tag.partition("}")[2] for child in element]
            log.warning("stream error", extra={"condition": names[0] if names else "unknown"})
            self.abort()

    def _fail(self, condition: str) -> None:
        if self.transport is not None:
            self.send_raw(
                f"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
                "</stream:error></stream:stream>"
            )
        self.abort()

    async def close(self) -> None:
        """Leave no task and no socket behind."""
        self.cancel_connection_attempt()
        filters = self._run_out_filters
        if self.transport is not None:
            self.send_raw(self.stream_footer)
        self.abort()
        if filters is not None:
            filters.cancel()
            await asyncio.wait([filters], timeout=1.0)


class Link:
    """Keeps one component stream up. `run` lives until cancelled."""

    def __init__(
        self,
        domain: str,
        secret: str,
        host: str,
        port: int,
        *,
        tls: bool = False,
        ca: Path | None = None,
        on_stanza: Callable[[Element], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        refuse_plain_secret(host, tls)
        self.domain = domain.lower()
        self._secret = secret
        self._host = host
        self._port = port
        self._tls = tls
        self._ca = ca
        self._on_stanza = on_stanza
        self._on_up = on_up
        self._on_down = on_down
        self._stream: _Stream | None = None
        self._requests: dict[tuple[str, str], asyncio.Future[Element]] = {}

    @property
    def is_up(self) -> bool:
        return self._stream is not None

    async def run(self) -> None:
        """Connect, serve, and again after a loss, with jittered backoff."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            was_up = await self._once()
            backoff_s = BACKOFF_FIRST_S if was_up else min(backoff_s * 2, BACKOFF_MAX_S)
            await asyncio.sleep(random.uniform(backoff_s / 2, backoff_s))

    async def _once(self) -> bool:
        """One connection from dial to loss. Returns whether it was ever usable."""
        stream = _Stream(self, self.domain, self._secret, self._host, self._port)
        if self._tls:
            stream.tls_services = {"xmpps-component"}
            stream.enable_plaintext = False
            if self._ca is not None:
                stream.ssl_context = ssl.create_default_context(cafile=str(self._ca))
        try:
            stream.connect(self._host, self._port)
            if not await _first(stream.ready, stream.over, CONNECT_S):
                log.info("xmpp server not reachable", extra={"host": self._host})
                return False
            log.info("xmpp component is up", extra={"component": self.domain})
            self._stream = stream
            self._on_up()
            async with asyncio.TaskGroup() as tasks:
                pings = tasks.create_task(self._keep_alive(stream), name="xmpp-ping")
                await stream.over.wait()  # unbounded: a connection may live for months
                pings.cancel()
            return True
        finally:
            was_up, self._stream = self._stream is not None, None
            await stream.close()
            if was_up:
                log.warning("xmpp component lost its server")
                self._fail_requests()
                self._on_down()

    async def _keep_alive(self, stream: _Stream) -> None:
        """A ping to ourselves goes through the server and back: no peer needs to support anything."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            ping = st.iq(self.domain, self.domain, "get", "")
            st.add(ping, "urn:xmpp:ping", "ping")
            try:
                await self.request(ping, timeout_s=PING_WAIT_S)
            except RequestFailed:
                continue  # any answer proves life
            except Unavailable:
                log.warning("xmpp server silent", extra={"after_s": PING_WAIT_S})
                stream.abort()
                stream.over.set()
                return

    def _fail_requests(self) -> None:
        for waiting in self._requests.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("connection to the XMPP server lost"))
        self._requests.clear()

    def send(self, stanza: Element) -> None:
        """Queue one stanza on the socket. Raises `Unavailable` when there is none or it does not drain."""
        stream = self._stream
        transport = stream.transport if stream is not None else None
        if stream is None or transport is None or transport.is_closing():
            raise Unavailable("no connection to the XMPP server")
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise Unavailable("the XMPP server does not read")
        st.rename(stanza, st.CLIENT, st.COMPONENT)
        transport.write(st.serialize(stanza, st.COMPONENT).encode())

    async def request(self, iq: Element, *, timeout_s: float) -> Element:
        """Send an iq get or set and await the answer from exactly the address asked (S36).

        Raises `RequestFailed` on an error answer, `Unavailable` on silence.
        """
        if len(self._requests) >= MAX_REQUESTS:
            raise Unavailable("too many open requests")
        iq.set("id", uuid.uuid4().hex)
        key = (iq.get("id", ""), str(st.parse_jid(iq.get("to"))))
        waiting: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        self._requests[key] = waiting
        try:
            self.send(iq)
            async with asyncio.timeout(timeout_s):
                answer = await waiting
        except TimeoutError as why:
            raise Unavailable(f"no answer within {timeout_s:.0f} s") from why
        finally:
            self._requests.pop(key, None)
        if answer.get("type") == "error":
            raise RequestFailed(st.condition_of(answer))
        return answer

    def received(self, element: Element) -> None:
        """A stanza from the server, already in `jabber:client`."""
        try:
            to, sender = st.parse_jid(element.get("to")), st.parse_jid(element.get("from"))
        except Malformed as why:
            log.debug("stanza dropped", extra={"fault": str(why)})
            return
        if to.domain != self.domain:
            log.warning("stanza for another domain dropped")
            return
        if element.tag == st.IQ and element.get("type") in ("result", "error"):
            waiting = self._requests.get((element.get("id", ""), str(sender)))
            if waiting is not None and not waiting.done():
                waiting.set_result(element)
            else:
                log.debug("unasked answer dropped")
            return
        self._on_stanza(element)


async def _first(wanted: asyncio.Event, over: asyncio.Event, timeout_s: float) -> bool:
    """True when `wanted` is set before `over` and in time."""
    waits = [asyncio.create_task(event.wait()) for event in (wanted, over)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return wanted.is_set() and not over.is_set()
    finally:
        for task in waits:
            task.cancel()
