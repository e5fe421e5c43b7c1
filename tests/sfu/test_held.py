"""A listener that a killed process left: held, handed back, let go in time; nonsense is closed."""

# Waiting for what the other side notices is polling.
# ruff: noqa: ASYNC110

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sfu import held
from sfu.held import Holder, Owner


@asynccontextmanager
async def holder(path: Path, hold_s: float = 5.0) -> AsyncIterator[None]:
    task = asyncio.create_task(Holder(path, hold_s).run())
    async with asyncio.timeout(5):
        while (owner := Owner.connect(path)) is None:
            await asyncio.sleep(0.005)
        owner.close()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=8)


async def is_refused(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except ConnectionError:
        return True
    writer.close()
    return False


async def until_refused(address: tuple[str, int]) -> None:
    async with asyncio.timeout(5):
        while not await is_refused(address):
            await asyncio.sleep(0.02)


async def test_who_connects_while_nobody_listens_waits_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "held"
    async with holder(path):
        first = Owner.connect(path)
        assert first is not None
        mine = listener()
        address = mine.getsockname()
        assert await first.take(address) is None, "nothing is held yet"
        first.keep(mine)
        again = await first.take(address)
        assert again is not None, "the answer comes after it was kept"
        again.close()
        mine.close()
        first.close()  # as the kernel does for a killed process
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"anybody?")
        second = Owner.connect(path)
        assert second is not None
        taken = await second.take(address)
        assert taken is not None
        connection, _ = await asyncio.get_running_loop().sock_accept(taken)
        with connection, taken:
            connection.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(connection, 64) == b"anybody?"
        writer.close()
        second.drop()
        second.close()
        del reader
        await until_refused(address)


async def test_it_is_not_held_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "held"
    async with holder(path, hold_s=0.05):
        owner = Owner.connect(path)
        assert owner is not None
        with listener() as mine:
            address = mine.getsockname()
            owner.keep(mine)
        await asyncio.sleep(0.15)
        assert not await is_refused(address), "its owner is there"
        owner.close()
        await until_refused(address)


async def test_a_listener_of_another_configuration_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "held"
    async with holder(path):
        owner = Owner.connect(path)
        assert owner is not None
        with listener() as mine:
            address = mine.getsockname()
            owner.keep(mine)
        assert await owner.take(("127.0.0.1", 1)) is None
        assert await is_refused(address)
        socket.create_server(address).close()  # and can be bound again
        owner.close()


async def test_nonsense_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "held"
    async with holder(path):
        before = len(os.listdir("/proc/self/fd"))
        owner = Owner.connect(path)
        assert owner is not None
        with socket.socket() as idle:
            pipe = os.pipe()
            owner.keep(idle)  # listens to nothing
            socket.send_fds(owner._end, [b"keep"], [idle.fileno()] * 4)
            socket.send_fds(owner._end, [b"what?"], [idle.fileno(), *pipe])
            owner._end.send(b"x" * 100)
            assert await owner.take(("127.0.0.1", 1)) is None
        for end in pipe:
            os.close(end)
        owner.close()
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_without_a_worker_nobody_holds(tmp_path: Path) -> None:
    assert Owner.connect(tmp_path / "nothing") is None
    assert held.path_beside(tmp_path / "sfu.sock").name == "sfu.sock.held"
