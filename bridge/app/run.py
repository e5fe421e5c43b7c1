"""The life of the program: store, worker, conferences of before, listeners, gateways; and back.

SIGINT and SIGTERM: everybody is told to leave, what has acted is committed, the worker we started ends.
SIGKILL: nothing of this happens, media goes on, and the next start takes the calls up again.
Not here: who gets what (`app.parts`), the command line (`bridge.cli`).
"""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from bridge.app.listening import Listening
from bridge.app.parts import Parts
from bridge.app.restoring import Consequence, restore
from bridge.app.seeding import seed
from bridge.app.worker import MediaWorker
from bridge.conference.commands import Leave
from bridge.conference.errors import ConferenceError
from bridge.conference.ids import LeaveReason
from bridge.config import Config
from bridge.gateway import Gateway
from bridge.http import Listener
from bridge.ops.health import Health, Probe
from bridge.store import Stores, open_store

log = logging.getLogger(__name__)

FAREWELL_S: Final = 2.0  # to submit the leaves of everybody
GRACE_S: Final = 0.5  # for what the leaves make gateways send
GATEWAYS_S: Final = 4.0
FLUSH_S: Final = 3.0


class _Stopped(Exception):
    """Ends the TaskGroup after an orderly end."""


async def run(config: Config, *, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGINT, SIGTERM or `stop`. Raises `Refused` or `Unavailable` (perhaps in a group) at start."""
    began_s = time.monotonic()
    stop = stop or asyncio.Event()
    _listen_to_signals(stop)
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stores = await open_store(config)
    try:
        async with asyncio.TaskGroup() as tasks:
            await _live(config, stores, tasks, stop, began_s)
            raise _Stopped
    except* _Stopped:
        log.info("stopped")
    finally:
        await stores.close()


async def _live(
    config: Config,
    stores: Stores,
    tasks: asyncio.TaskGroup,
    stop: asyncio.Event,
    began_s: float,
) -> None:
    worker = MediaWorker(config, await stores.epoch())
    health = Health()
    async with AsyncExitStack() as stack:
        try:
            parts = Parts(config, stores, worker, health, tasks)
            await worker.start(tasks)
            _watch(health, stores, worker, parts)
            consequences = await restore(
                stores.journal, stores.legs, parts.registry, parts.media, parts.gateways
            )
            tasks.create_task(parts.media.run(), name="media")
            for section in config.conferences:
                await seed(section, stores.directory, parts.submit)
            if worker.is_ours:
                listening = Listening(worker.control)
                stack.callback(listening.close)
                await stack.enter_async_context(parts.http.serve(listening.open))
            else:
                await stack.enter_async_context(parts.http.serve())
        except ConferenceError:
            await worker.stop(even_if_found=False)
            raise
        running = [
            *(
                tasks.create_task(gateway.run(), name=f"gateway-{name}")
                for name, gateway in parts.gateways.items()
            ),
            tasks.create_task(parts.delivery.run(), name="delivery"),
        ]
        tasks.create_task(_carry_out(consequences, parts), name="consequences")
        log.info(
            "ready",
            extra={
                "public_port": parts.http.port(Listener.PUBLIC),
                "internal_port": parts.http.port(Listener.INTERNAL),
                "ops_port": parts.http.port(Listener.OPS),
                "gateways": ",".join(parts.gateways),
                "seconds": round(time.monotonic() - began_s, 2),
            },
        )
        gc.freeze()  # what is loaded stays: a full collection would walk it for 0.1 s, again and again
        await stop.wait()  # unbounded: that is what a server does
        await _drain(parts, worker, running)


async def _carry_out(consequences: Sequence[Consequence], parts: Parts) -> None:
    """What a restart has found out; gateways are running, so everybody hears of it."""
    for consequence in consequences:
        try:
            await parts.submit(consequence.conference, consequence.command, None)
        except ConferenceError as why:
            name = type(consequence.command).__name__
            log.error("consequence lost", extra={"command": name, "why": str(why)})


async def _drain(parts: Parts, worker: MediaWorker, running: Sequence[asyncio.Task[None]]) -> None:
    log.info("draining")
    if worker.is_ours:
        await _say_goodbye(parts)
    for task in running:
        task.cancel()
    _, late = await asyncio.wait(running, timeout=GATEWAYS_S)
    for task in late:
        log.warning("did not end in time", extra={"task": task.get_name()})
    try:
        async with asyncio.timeout(FLUSH_S):
            await parts.registry.flush()
    except TimeoutError:
        log.error("ended with uncommitted events: the database is away")
    await worker.stop()


async def _say_goodbye(parts: Parts) -> None:
    """Our worker ends with us, and every call with it."""
    legs = [
        (conference, leg.id)
        for conference in parts.registry.live()
        for leg in parts.registry.view(conference)
    ]
    leaves = (
        parts.submit(conference, Leave(leg, LeaveReason.ENDED), None) for conference, leg in legs
    )
    try:
        async with asyncio.timeout(FAREWELL_S):
            await asyncio.gather(*leaves, return_exceptions=True)
    except TimeoutError:
        log.warning("not everybody was told")
    if legs:
        await asyncio.sleep(GRACE_S)


def _watch(health: Health, stores: Stores, worker: MediaWorker, parts: Parts) -> None:
    async def database() -> str:
        await stores.ping()
        return "answers"

    health.watch("database", database)
    health.watch("media", worker.probe)
    for name, gateway in parts.gateways.items():
        # A chat network that is away is shown; calls go on.
        health.watch(name, _status_of(gateway), is_vital=False)


def _status_of(gateway: Gateway) -> Probe:
    async def probe() -> str:
        return gateway.status()

    return probe


def _listen_to_signals(stop: asyncio.Event) -> None:
    """The first one stops in order; the second one ends the program at once (Python's default)."""
    loop = asyncio.get_running_loop()

    def heard() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heard)
