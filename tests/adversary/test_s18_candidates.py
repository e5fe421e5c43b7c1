"""S18 (media) and S19: an address or a name in a candidate is never contacted, never resolved.

A real worker is told of traps in the description and by trickle: listening sockets, a multicast DNS name, a DNS
name whose server is a trap too. The peer itself stays silent, so nobody has proved any address.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiortc.mediastreams import AudioStreamTrack

from sfu import client as sfu_client
from sfu import protocol, sdp
from sfu.description import Candidate, Description, DescriptionType
from sfu.plane import Plane
from tests.sfu.live import PROFILE, owner, peer, worker, worker_options

pytestmark = pytest.mark.timeout(60)

NAMES = ("ab1c2d3e-0000-4000-8000-123456789abc.local", "stun.trap.test", "localhost")
WATCH_S = 3.0  # more than both sides' first retransmissions


@contextlib.contextmanager
def traps() -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as open_ones:
        found = []
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                own = open_ones.enter_context(socket.socket(family, kind))
                own.bind((host, 0))
                own.setblocking(False)
                if kind == socket.SOCK_STREAM:
                    own.listen()
                found.append(own)
        yield found


def named(found: list[socket.socket]) -> tuple[Candidate, ...]:
    own = [(one.getsockname()[0], one.getsockname()[1], one.type) for one in found]
    told = [
        Candidate(str(n), 1, "udp" if kind == socket.SOCK_DGRAM else "tcp", 2**31 - n, host, port,
                  tcp_type=None if kind == socket.SOCK_DGRAM else "passive")
        for n, (host, port, kind) in enumerate(own, 1)
    ]  # fmt: skip
    port = found[0].getsockname()[1]
    told += [Candidate(str(n), 1, "udp", 2**30 - n, name, port) for n, name in enumerate(NAMES, 20)]
    told.append(Candidate("40", 1, "udp", 2**29, "127.0.0.1", port, "srflx"))
    told.append(Candidate("41", 1, "udp", 2**28, "::ffff:127.0.0.1", port, "relay"))
    return tuple(told)


def untouched(found: list[socket.socket]) -> bool:
    for own in found:
        with contextlib.suppress(BlockingIOError):
            if own.type == socket.SOCK_DGRAM:
                own.recvfrom(2_048)
            else:
                own.accept()[0].close()
            return False
    return True


async def test_named_addresses_are_never_contacted(tmp_path: Path) -> None:
    with traps() as found:
        told = named(found)

        def with_traps(description: Description) -> Description:
            sections = tuple(
                replace(s, transport=replace(s.transport, candidates=told))
                for s in description.sections
            )
            return replace(description, sections=sections)

        async with worker(tmp_path) as options, owner(options) as own, peer(own, "ann") as ann:
            ann.pc.addTrack(AudioStreamTrack())
            await own.ask(protocol.Open("mute", "room", PROFILE))
            await ann.pc.setLocalDescription(await ann.pc.createOffer())
            offer = sdp.parse(ann.pc.localDescription.sdp, DescriptionType.OFFER)
            await own.ask(protocol.Offer("mute", with_traps(offer)))
            await own.ask(protocol.Candidates("mute", "0", told))
            await asyncio.sleep(WATCH_S)
            assert untouched(found)


async def test_names_are_never_resolved(tmp_path: Path) -> None:
    """The worker runs with an audit hook that ends it at the first question to a resolver."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import os, sys\n"
        "def hook(event, args):\n"
        "    if event.startswith('socket.get') or event == 'socket.connect':\n"
        "        os.write(2, f'RESOLVED {event} {args}\\n'.encode()); os._exit(77)\n"
        "sys.addaudithook(hook)\n"
    )
    options = worker_options(tmp_path)
    with options.log.open("wb") as log:
        process = await asyncio.to_thread(
            subprocess.Popen,
            options.command_line(),
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
            stdout=log,
            stderr=log,
        )
    try:
        with traps() as found:
            for _ in range(200):
                if await sfu_client._listens(options.socket):
                    break
                await asyncio.sleep(0.05)
            async with owner(options) as own:
                await own.ask(protocol.Open("ann", "room", PROFILE))
                for _ in range(3):
                    await own.ask(protocol.Candidates("ann", "0", named(found)))
                await asyncio.sleep(1)
            assert untouched(found)
        assert process.poll() is None, options.log.read_text()
        assert "RESOLVED" not in options.log.read_text()
    finally:
        process.terminate()
        process.wait(10)


def test_the_audit_hook_would_notice(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.addaudithook(lambda e, a: os._exit(77) if e.startswith('socket.get') else None)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", "import socket; socket.getaddrinfo('trap.invalid', 1)"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 77


def test_the_data_plane_has_no_door_for_addresses() -> None:
    """What is told to the engine of a peer is credentials; there is no argument for a candidate."""
    words = {
        name
        for method in vars(Plane).values()
        if callable(method)
        for name in getattr(method, "__annotations__", {})
    }
    assert not words & {"address", "addresses", "candidate", "candidates", "host", "port", "remote"}
