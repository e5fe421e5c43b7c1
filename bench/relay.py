"""The floor of a latency: a relay without any feature (`engine/bench/src/relay`) under the same load tool.

It opens each packet and seals it for each receiver, as SRTP demands. Everybody has the same keys; nothing is joined,
negotiated or answered. Not here: what its numbers stand beside (`bench.scenarios.a_fanout`).
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench import machine
from bench.cast import Media
from bench.handshake import RECEIVE_BUFFER_BYTES, new_socket
from bench.load import Keyed, Load, Sending, build, load
from bench.stage import MAX_BUFFERS_BYTES, offer

PROFILE: Final = 7  # AEAD_AES_128_GCM (RFC 7714 section 14.2)
MATERIAL_BYTES: Final = 56  # two keys of 16 and two salts of 12
PASSWORD_CHARS: Final = 24
WARM_UP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Relay:
    """As `bench.stage.Stage`, but for what it has not."""

    tool: Load
    pid: int

    async def offer(self, packets_per_s: int, seconds: float) -> dict[str, Any]:
        """A fixed rate of track 0, whatever comes of it."""
        return await offer(self.tool, self.pid, packets_per_s, seconds)


@asynccontextmanager
async def relay(receivers: int, media: Media, *, joins: bool, sample: int) -> AsyncIterator[Relay]:
    """One publisher and so many receivers. `joins`: by UDP GSO; `sample`: decrypt every nth packet."""
    binary = await asyncio.to_thread(build)
    with ExitStack() as files:
        buffer = min(RECEIVE_BUFFER_BYTES, MAX_BUFFERS_BYTES // receivers)
        server, publisher, *others = (
            files.enter_context(new_socket(buffer_bytes=buffer)) for _ in range(receivers + 2)
        )
        server.setblocking(True)
        for one in (publisher, *others):
            one.connect(server.getsockname())
        process = await asyncio.create_subprocess_exec(
            binary.with_name("parley-relay"),
            str(server.fileno()),
            "gso" if joins else "plain",
            *(str(one.getsockname()[1]) for one in others),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[server.fileno()],
        )
        material = secrets.token_bytes(MATERIAL_BYTES)
        assert process.stdin is not None
        process.stdin.write(material)
        try:
            machine.pin(process.pid, machine.SERVER)
            async with load(binary, [one.fileno() for one in (publisher, *others)]) as tool:
                machine.pin(tool.pid, machine.LOAD)
                _introduce(tool, (publisher, *others), material)
                tool.send(Sending.new(0, 0, 0, "0", media))
                tool.manner(sample=sample, stamps=True)
                await asyncio.sleep(WARM_UP_S)
                tool.pace(0)
                yield Relay(tool, process.pid)
        finally:
            process.kill()
            await process.wait()


def _introduce(tool: Load, people: tuple[socket.socket, ...], material: bytes) -> None:
    password = "x" * PASSWORD_CHARS  # nobody checks
    for number, one in enumerate(people):
        tool.add(number, Keyed(one.fileno(), PROFILE, material, password))
