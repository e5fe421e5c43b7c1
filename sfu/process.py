"""The life of a worker process: engine and socket open, timers, signals, orphanhood, the end.

Not here: the command line (`sfu.__main__`), starting it from the control plane (`sfu.client`).
"""

import asyncio
import contextlib
import logging
import signal
import time
from pathlib import Path
from typing import Any, Final

from sfu import held
from sfu.owner import OwnerSocket
from sfu.plane import Plane
from sfu.worker import TICK_S, Worker

log = logging.getLogger(__name__)

ORPHAN_CHECK_S: Final = 1.0


async def serve(
    plane: Plane,
    socket: Path,
    addresses: tuple[str, ...],
    *,
    tcp: bool = False,
    orphan_s: float,
    handle_signals: bool = True,
) -> None:
    """Run until drained, told to stop by SIGTERM or SIGINT, or without an owner for `orphan_s`."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_fault)
    worker = Worker(plane, addresses, tcp=tcp)
    owners = OwnerSocket(worker, socket)
    stop = owners.drained
    if handle_signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    try:
        await owners.open(plane.port)
        loop.add_reader(plane.event_fd, worker.take_engine_events)
        log.info("worker listens", extra={"port": plane.port})
        async with asyncio.TaskGroup() as tasks:
            clock = tasks.create_task(_tick(worker), name="tick")
            watch = tasks.create_task(_watch(owners, stop, orphan_s), name="orphan-watch")
            holding = tasks.create_task(_hold(socket), name="held-listeners")
            await stop.wait()  # the worker's whole life; no timeout
            clock.cancel()
            watch.cancel()
            holding.cancel()
    finally:
        worker.drain()
        await owners.close()
        loop.remove_reader(plane.event_fd)
        plane.close()
        log.info("worker ended")


async def _tick(worker: Worker) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        try:
            worker.tick()
        except Exception:
            log.exception("tick failed")


async def _hold(control: Path) -> None:
    """Best effort: without it a killed parley's port refuses connections until it is back."""
    try:
        await held.Holder(held.path_beside(control)).run()
    except OSError as why:
        log.warning("listeners are not held", extra={"why": str(why)})


async def _watch(owners: OwnerSocket, stop: asyncio.Event, orphan_s: float) -> None:
    while True:
        await asyncio.sleep(min(ORPHAN_CHECK_S, orphan_s))
        if not owners.has_owner and time.monotonic() - owners.alone_since >= orphan_s:
            log.warning("no owner any more", extra={"orphan_s": orphan_s})
            stop.set()
            return


def _log_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback of one session failed (a timer of DTLS or SCTP): loud, and the others go on."""
    fault = context.get("exception")
    with contextlib.suppress(Exception):
        log.error("callback failed: %s", context.get("message"), exc_info=fault)
