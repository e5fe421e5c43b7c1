"""Who gets what: gateways made by configured name, ports joined, signals and commands led to their owners.

Not here: the order of start and end (`app.run`).
"""

import asyncio
import logging
from collections.abc import Sequence
from importlib import import_module

from bridge.app.delivery import Delivery
from bridge.app.ghosts import ComputedGhosts
from bridge.app.policies import policies
from bridge.app.statistics import Statistics
from bridge.app.worker import MediaWorker
from bridge.conference.commands import Command
from bridge.conference.events import Event, Leg
from bridge.conference.ids import ConferenceId
from bridge.conference.ports import Cause, ConferenceRecord, Listener
from bridge.config import Config
from bridge.fetch import Fetcher
from bridge.focus import Registry
from bridge.gateway import Context, Gateway, MediaSignal
from bridge.http import Http
from bridge.media import WorkerMedia
from bridge.ops.health import Health
from bridge.store import Stores

log = logging.getLogger(__name__)


def configured(config: Config) -> tuple[str, ...]:
    """Names of the gateways that are on. A gateway is on when its section is there; livekit always is."""
    optional = ("matrix", "xmpp", "web")
    return ("livekit", *(name for name in optional if getattr(config, name) is not None))


class Parts:
    """Everything made and joined, nothing running yet. Raises `Refused` for what must not start."""

    def __init__(
        self,
        config: Config,
        stores: Stores,
        worker: MediaWorker,
        health: Health,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.http = Http(config.http, health)
        configured_streams = policies(config)
        self.media = WorkerMedia(
            worker.client,
            stores.store,
            tasks,
            self._deliver_signal,
            self._submit_for_media,
            on_lost=worker.lost,
            policies=configured_streams,
        )
        context = Context(
            config=config,
            submit=self.submit,
            view=self.view,
            media=self.media,
            directory=stores.directory,
            legs=stores.legs,
            inbox=stores.inbox,
            outbox=stores.outbox,
            store=stores.store,
            http=self.http,
            fetch=Fetcher(),
            summary=self.media.summary,
            streams=configured_streams,
        )
        self.gateways: dict[str, Gateway] = context.gateways
        for name in configured(config):
            self.gateways[name] = import_module(f"bridge.gateways.{name}").create(context)
        context.ghosts = context.ghosts or ComputedGhosts()
        listeners: list[Listener] = [self.media, *self.gateways.values()]
        Statistics(self.http, health, self.media.statistics, self._slug_of)
        self.registry = Registry(tasks, stores.journal, context.ghosts, listeners)
        self.delivery = Delivery(stores.outbox, self.gateways)

    async def submit(
        self, conference: ConferenceId, command: Command, cause: Cause | None
    ) -> tuple[Event, ...]:
        return await self.registry.submit(conference, command, cause)

    def view(self, conference: ConferenceId) -> Sequence[Leg]:
        return self.registry.view(conference)

    def _slug_of(self, conference: ConferenceId) -> str:
        record = self.media.record(conference)
        return "" if record is None else record.slug

    async def _submit_for_media(self, conference: ConferenceId, command: Command) -> object:
        return await self.registry.submit(conference, command)

    def _deliver_signal(self, record: ConferenceRecord, leg: Leg, signal: MediaSignal) -> None:
        gateway = self.gateways.get(leg.gateway)
        if gateway is None:
            return
        try:
            gateway.signal(record, leg.id, signal)
        except Exception:  # one gateway's bug must not cost the others their media
            log.exception("signal broke its gateway", extra={"gateway": leg.gateway})
