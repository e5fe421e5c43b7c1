"""The media worker as the app sees it: found or started, kept, and stopped when parley is told to stop.

house.md section 2, "Who owns the worker": a killed parley leaves it running, a stopped one takes it along,
an external one is never touched.
Not here: the connection (`sfu.client`), what is asked of the worker (`bridge.media`).
"""

import asyncio
import logging
import subprocess
from pathlib import Path
from typing import Final

from bridge.conference.errors import Unavailable
from bridge.config import Config
from sfu import client

log = logging.getLogger(__name__)

EXTERNAL_WAIT_S: Final = 60.0  # compose starts services in any order
RESPAWN_RETRY_S: Final = 1.0
RECONNECT_S: Final = 0.3
STOP_S: Final = 4.0
PROBE_S: Final = 1.0


class MediaWorker:
    """`client` is usable at once; `start` waits until a worker answers."""

    def __init__(self, config: Config, epoch: int) -> None:
        state = config.state_dir
        self._is_spawned = config.sfu.mode == "spawn"
        self._options = client.WorkerOptions(
            socket=config.sfu.socket or state / "sfu.sock",
            lock=state / "sfu.lock",
            log=state / "sfu.log",
            listen=config.media.listen,
            port=config.media.port,
            advertise=config.media.advertise,
            allow=config.media.allow,
            deny=config.media.deny,
            tcp=config.media.tcp,
            dscp=config.media.dscp,
            shards=config.media.shards,
            orphan_s=config.sfu.orphan_s,
            log_level=config.log.level,
        )
        self.client = client.Client(self._options.socket, owner="parley", epoch=epoch)
        self._process: subprocess.Popen[bytes] | None = None
        self._lost = asyncio.Event()
        self._is_stopping = False

    @property
    def control(self) -> Path:
        return self._options.socket

    @property
    def is_ours(self) -> bool:
        """Calls end when parley is told to stop."""
        return self._is_spawned

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Raises `Unavailable` when there is no worker."""
        if self._is_spawned:
            await self._spawn()
        tasks.create_task(self.client.run(), name="worker-connection")
        try:
            await self.client.connected(
                client.SPAWN_S if self._is_spawned else EXTERNAL_WAIT_S,
            )
        except client.ClientError as why:
            raise Unavailable(f"the media worker does not answer: {why}") from why
        if self._is_spawned:
            tasks.create_task(self._keep(), name="worker-keeper")

    def lost(self) -> None:
        """The connection broke: the process may be gone."""
        self._lost.set()

    async def probe(self) -> str:
        """For health."""
        try:
            await self.client.connected(PROBE_S)
        except client.ClientError as why:
            raise Unavailable(str(why)) from why
        return "connected"

    async def stop(self, *, even_if_found: bool = True) -> None:
        """Drain and end our worker; `even_if_found` False spares one that ran before this start."""
        self._is_stopping = True
        if self._is_spawned and (even_if_found or self._process is not None):
            try:
                async with asyncio.timeout(STOP_S):
                    await client.stop(self.client)
                    if self._process is not None:
                        await asyncio.to_thread(self._process.wait, STOP_S)
            except (TimeoutError, subprocess.TimeoutExpired):
                log.warning("media worker did not end in time")
        self.client.close()

    async def _spawn(self) -> None:
        try:
            self._process = await client.spawn(self._options) or self._process
        except client.ClientError as why:
            raise Unavailable(f"the media worker cannot be started: {why}") from why

    async def _keep(self) -> None:
        """Start another one when ours died (R6)."""
        while True:
            await self._lost.wait()  # unbounded: a worker may live for months
            self._lost.clear()
            while not self._is_stopping:
                if self._process is not None:
                    self._process.poll()  # reap it
                try:
                    await self._spawn()
                    # A dying worker's socket may have taken one more connection: ask again.
                    await self.client.connected(RECONNECT_S)
                    break
                except client.ClientError:
                    continue
                except Unavailable as why:
                    log.error("media worker not restarted", extra={"why": str(why)})
                    await asyncio.sleep(RESPAWN_RETRY_S)
