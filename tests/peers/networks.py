"""Networks that get in the way: a firewall without UDP, a NAT that forgets, a TURN server in between.

Chromium has no switch for these, so scripts change what its pages tell and are told. All of it on loopback.
Not here: what is asserted.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TURNSERVER = "/usr/bin/turnserver"
READY_S = 10.0

_REMOTE = """
(() => {
  const change = %(change)s;
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(config = {}, ...rest) { super({ ...config, ...%(config)s }, ...rest); }
    setConfiguration(config = {}) { return super.setConfiguration({ ...config, ...%(config)s }); }
    setRemoteDescription(description) {
      const sdp = description.sdp.split('\\r\\n').map(change).filter((line) => line !== null).join('\\r\\n');
      return super.setRemoteDescription({ type: description.type, sdp });
    }
  };
  window.__selected = async () => {
    const rows = [];
    for (const connection of window.__probe.connections) {
      const stats = await connection.getStats();
      for (const transport of stats.values()) {
        const pair = transport.type === 'transport' && stats.get(transport.selectedCandidatePairId);
        if (!pair) continue;
        const local = stats.get(pair.localCandidateId), remote = stats.get(pair.remoteCandidateId);
        rows.push({ protocol: local.protocol, type: local.candidateType, remote: remote.address,
          ufrag: transport.iceLocalUsernameFragment, dtls: transport.dtlsState });
      }
    }
    return rows;
  };
  const Socket = window.WebSocket; window.__sockets = [];
  window.WebSocket = class extends Socket { constructor(...a) { super(...a); window.__sockets.push(this); } };
})();
"""


def _script(change: str = "(line) => line", config: dict[str, Any] | None = None) -> str:
    return _REMOTE % {"change": change, "config": json.dumps(config or {})}


def plain() -> str:
    """Nothing in the way; `window.__selected` tells the pairs in use, `window.__sockets` has the signalling."""
    return _script()


def without_udp() -> str:
    """What a page is told of UDP is lost."""
    return _script("(line) => /^a=candidate:\\S+ \\d+ udp /i.test(line) ? null : line")


def behind(port: int) -> str:
    """UDP goes to this port of the loopback, TCP nowhere."""
    return _script(
        "(line) => /^a=candidate:\\S+ \\d+ tcp /i.test(line) ? null"
        f" : line.replace(/^(a=candidate:\\S+ \\d+ udp \\d+ \\S+) \\d+/i, '$1 {port}')"
    )


def relay_only() -> str:
    """Only through TURN."""
    return _script(config={"iceTransportPolicy": "relay"})


@dataclass(slots=True)
class Nat:
    """Between clients and one server port: each client has an outer port, until `rebind` gives it another."""

    server: tuple[str, int]
    inner: asyncio.DatagramTransport | None = None
    outer: dict[tuple[str, int], asyncio.DatagramTransport] = field(default_factory=dict)
    largest_bytes: int = 0  # datagram of the server

    @property
    def port(self) -> int:
        assert self.inner is not None
        port: int = self.inner.get_extra_info("sockname")[1]
        return port

    async def rebind(self) -> None:
        """Every mapping is forgotten: the next packet out makes a new one, nothing comes in by the old."""
        old, self.outer = self.outer, {}
        for transport in old.values():
            transport.close()

    def send(self, data: bytes, client: tuple[str, int]) -> None:
        transport = self.outer.get(client)
        if transport is None:
            # Made by hand: asyncio makes datagram endpoints only in a coroutine, and packets do not wait.
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.setblocking(False)
            own.connect(self.server)
            loop = asyncio.get_running_loop()
            transport = loop._make_datagram_transport(own, _Outer(self, client))  # type: ignore[attr-defined]
            self.outer[client] = transport
        transport.sendto(data)

    def back(self, data: bytes, client: tuple[str, int]) -> None:
        self.largest_bytes = max(self.largest_bytes, len(data))
        if self.inner is not None:
            self.inner.sendto(data, client)


@dataclass(slots=True)
class _Inner(asyncio.DatagramProtocol):
    nat: Nat

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.nat.send(data, addr)


@dataclass(slots=True)
class _Outer(asyncio.DatagramProtocol):
    nat: Nat
    client: tuple[str, int]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.nat.back(data, self.client)


@contextlib.asynccontextmanager
async def nat(server_port: int) -> AsyncIterator[Nat]:
    one = Nat(("127.0.0.1", server_port))
    loop = asyncio.get_running_loop()
    one.inner, _ = await loop.create_datagram_endpoint(
        lambda: _Inner(one), local_addr=("127.0.0.1", 0)
    )
    try:
        yield one
    finally:
        one.inner.close()
        await one.rebind()


@dataclass(frozen=True, slots=True)
class Turn:
    """A coturn that relays to 127.0.0.1 and nowhere else."""

    port: int
    secret: str
    log: Path

    @property
    def section(self) -> dict[str, Any]:
        """For parley's configuration."""
        urls = [f"turn:127.0.0.1:{self.port}?transport={kind}" for kind in ("udp", "tcp")]
        return {"urls": urls, "secret": self.secret}


def has_turn() -> bool:
    return shutil.which(TURNSERVER) is not None


@contextlib.asynccontextmanager
async def turn(folder: Path) -> AsyncIterator[Turn]:
    """As in docker-compose.yml, but for the loopback: its peers are there in tests."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = Turn(port, secrets.token_hex(32), folder / "turn.log")
    process = await asyncio.create_subprocess_exec(
        *(TURNSERVER, "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1"),
        *(f"--listening-port={port}", "--realm=parley", "--fingerprint"),
        *("--use-auth-secret", f"--static-auth-secret={own.secret}", "--user-quota=12"),
        *("--no-multicast-peers", "--allow-loopback-peers", "--cli-password=unused", "--no-cli"),
        *("--denied-peer-ip=0.0.0.0-255.255.255.255", "--allowed-peer-ip=127.0.0.1"),
        *("--denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",),
        *("--no-tls", "--no-dtls", f"--log-file={own.log}", "--simple-log", "--verbose"),
        *(f"--pidfile={folder / 'turn.pid'}", f"--userdb={folder / 'turn.db'}"),
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _listens(port)
        yield own
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def _listens(port: int) -> None:
    end = time.monotonic() + READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
