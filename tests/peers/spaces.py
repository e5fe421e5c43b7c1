"""Network namespaces of a test: one for the server, one for each client, links between them.

`async with Spaces() as spaces:` puts the running test (and whatever it starts) into the server's namespace; nothing
of it touches the machine's own network. Needs root: see `why_not`.
Not here: the link itself (`tests.peers.link`), who speaks over it.
"""

import asyncio
import contextlib
import ctypes
import functools
import json
import os
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.peers.link import CLONE_NEWNET
from tests.peers.process import PeerProcess

WAIT_S = 10.0
MAX_LINKS = 32
BURST_BYTES = 4_000  # a few packets at once


@functools.cache
def why_not() -> str:
    """Empty, or why there are no namespaces here."""
    name = f"parley-{secrets.token_hex(3)}"
    try:
        made = subprocess.run(
            ["ip", "netns", "add", name], capture_output=True, text=True, timeout=WAIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        return f"`ip netns add` does not run: {why}"
    if made.returncode:
        return f"`ip netns add` fails (needs root): {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=WAIT_S)
    return "" if Path("/dev/net/tun").exists() else "no /dev/net/tun"


async def _run(*words: str, given: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(given), WAIT_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {out.decode(errors='replace')}")
    return out.decode()


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(slots=True)
class Link:
    """To one client. `space` is where that client runs."""

    space: str
    process: PeerProcess
    server: str
    device: str  # the server's end

    async def shape(
        self, down: dict[str, Any] | None = None, up: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """New shapes (see `tests.peers.link.Shape`) from now on; what was seen until now."""
        order = {key: value for key, value in (("down", down), ("up", up)) if value is not None}
        return dict(await self.process.ask("shape", **order))

    async def seen(self) -> dict[str, Any]:
        """What passed since the last question."""
        return await self.shape()

    async def limit(self, rate_kbit: int, queue_ms: int) -> None:
        """The kernel's token bucket in front of the link, towards the client (tc-tbf)."""
        words = f"tc -n {self.server} qdisc replace dev {self.device} root tbf"
        shape = f"rate {rate_kbit}kbit burst {BURST_BYTES} latency {queue_ms}ms"
        await _run(*words.split(), *shape.split())

    async def queue(self) -> tuple[int, int]:
        """Of the token bucket: bytes that wait now, packets that it ever dropped."""
        words = f"tc -n {self.server} -s -j qdisc show dev {self.device}"
        (seen,) = json.loads(await _run(*words.split()))
        return seen["backlog"], seen["drops"]

    async def forbid_udp(self) -> None:
        """A firewall at the client's side: nothing but TCP gets out."""
        chain = "type filter hook output priority 0; meta l4proto udp drop"
        rules = f"table inet wall {{\n chain out {{\n{chain}\n}}\n}}\n".encode()
        await _run("ip", "netns", "exec", self.space, "nft", "-f", "-", given=rules)


@dataclass(slots=True)
class Spaces:
    """The server's namespace and everything behind it."""

    folder: Path
    server: str = field(default_factory=lambda: f"parley-{secrets.token_hex(3)}")
    links: list[Link] = field(default_factory=list)
    _home: int = -1
    _made: int = 0
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def address(self) -> str:
        """The server's, from every client."""
        return "10.77.0.1"

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        await self._space(self.server)
        await _run("ip", "-n", self.server, "addr", "add", f"{self.address}/32", "dev", "lo")
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._stack.callback(os.close, self._home)
        server = os.open(f"/run/netns/{self.server}", os.O_RDONLY)
        self._stack.callback(os.close, server)
        _enter(server)
        self._stack.callback(_enter, self._home)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def _space(self, name: str) -> None:
        await _run("ip", "netns", "add", name)
        self._stack.push_async_callback(_run, "ip", "netns", "del", name)
        await _run("ip", "-n", name, "link", "set", "lo", "up")

    async def link(self, mtu: int = 1500) -> Link:
        """A client's namespace behind a link that is perfect so far."""
        self._made += 1
        number = self._made
        assert number <= MAX_LINKS
        space = f"{self.server}-{number}"
        await self._space(space)
        near, far = f"tun{number}", "tun0"
        arguments = ["--near", f"{self.server}:{near}", "--far", f"{space}:{far}"]
        process = PeerProcess(
            "tests.peers.link",
            [*arguments, "--seed", str(number)],
            self.folder / f"link{number}.log",
        )
        await self._stack.enter_async_context(process)
        inner = f"10.77.{number}.2"
        outer = f"10.77.{number}.1"
        for name, device, own, other in (
            (self.server, near, outer, inner),
            (space, far, inner, outer),
        ):
            await _run("ip", "-n", name, "addr", "add", own, "peer", f"{other}/32", "dev", device)
            await _run("ip", "-n", name, "link", "set", device, "mtu", str(mtu), "up")
        await _run("ip", "-n", space, "route", "add", "default", "via", outer)
        link = Link(space, process, self.server, near)
        self.links.append(link)
        return link
