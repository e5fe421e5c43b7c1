"""The component's stream against a server of a few lines: handshake, TLS, silence, return."""

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from bridge.conference.errors import Unavailable
from bridge.gateways.xmpp import link
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.link import Link
from tests.gateways.xmpp.fakes import until
from tests.peers.prosody import _write_certificates

HEADER = b"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='77'>"


class Server:
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self._listener: asyncio.Server | None = None

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = await asyncio.start_server(
            self._serve, "localhost" if context else "127.0.0.1", self.port, ssl=context
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b">")
            writer.write(HEADER)
            self.received.append(await reader.readuntil(b"</handshake>"))
            self.writers.append(writer)
            writer.write(b"<handshake/>")
            while data := await reader.read(65_536):
                self.received.append(data)
        writer.close()

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


@contextlib.asynccontextmanager
async def connected(
    server: Server, *, host: str = "127.0.0.1", ca: Path | None = None
) -> AsyncIterator[Link]:
    stream = Link(
        "conf.call.test",
        "secret",
        host,
        server.port,
        tls=ca is not None,
        ca=ca,
        on_stanza=lambda element: None,
        on_up=lambda: None,
        on_down=lambda: None,
    )
    task = asyncio.create_task(stream.run())
    try:
        await until(lambda: stream.is_up)
        yield stream
    finally:
        task.cancel()
        await asyncio.wait([task])
        await server.stop()


async def test_the_handshake_and_the_namespace() -> None:
    server = Server()
    await server.start()
    async with connected(server) as stream:
        digest = hashlib.sha1(b"77secret", usedforsecurity=False).hexdigest()
        assert digest.encode() in server.received[0]
        message = st.message("a@call.test", "d@conf.call.test", "chat")
        st.add(message, st.CLIENT, "body", "a < b & \x00 c")
        stream.send(message)
        await until(lambda: len(server.received) > 1)
        assert server.received[1] == (
            b'<message to="a@call.test" from="d@conf.call.test" type="chat">'
            b"<body>a &lt; b &amp;  c</body></message>"
        )


async def test_over_tls_the_name_is_checked(tmp_path: Path) -> None:
    _write_certificates(tmp_path, ("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server = Server()
    await server.start(context)
    async with connected(server, host="localhost", ca=tmp_path / "ca.crt") as stream:
        assert stream.is_up

    _write_certificates(tmp_path, ("elsewhere.test",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    await server.start(context)
    try:
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(1.5),
                connected(server, host="localhost", ca=tmp_path / "ca.crt"),
            ):
                pass
    finally:
        await server.stop()


async def test_it_is_back_within_five_seconds_of_the_server() -> None:
    """R2."""
    server = Server()
    await server.start()
    async with connected(server) as stream:
        asking = asyncio.create_task(stream.request(st.iq("a@b", "c@d", "get", ""), timeout_s=60))
        await asyncio.sleep(0.05)
        await server.stop()
        with pytest.raises(Unavailable):  # at once, not after a minute
            await asyncio.wait_for(asking, 2)
        with pytest.raises(Unavailable):
            stream.send(Element(st.MESSAGE))
        await asyncio.sleep(6)  # long enough for the backoff to reach its end
        await server.start()
        began = time.monotonic()
        await until(lambda: stream.is_up, timeout_s=6)
        assert time.monotonic() - began <= 5


async def test_a_server_that_no_longer_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_EVERY_S", 0.1)
    monkeypatch.setattr(link, "PING_WAIT_S", 0.1)
    server = Server()
    await server.start()
    async with connected(server):
        await until(lambda: sum(b"<handshake" in data for data in server.received) >= 2)
        assert any(b"urn:xmpp:ping" in data for data in server.received)
