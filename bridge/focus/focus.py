"""One live conference: a bounded queue, the rules, then everybody who must know.

A command that acts at once (join, leave, mutes, tracks): rules, media, journal's queue, gateways, answer.
Text and bindings go through the ledger: committed before anybody hears of them (house.md section 7).
Not here: which conferences live (`focus.registry`), retries of commits (`focus.ledger`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridge.conference.commands import (
    Bind,
    Command,
    Join,
    Publish,
    Rename,
    RuleStreams,
    Say,
    Unbind,
)
from bridge.conference.conference import Conference
from bridge.conference.errors import ConferenceError, Refused, Unavailable
from bridge.conference.events import Event, Leg
from bridge.conference.ids import ConferenceId
from bridge.conference.ports import Cause, ConferenceRecord, Ghosts, Journal, Listener
from bridge.focus.ledger import Answer, Ledger

log = logging.getLogger(__name__)

QUEUE_COMMANDS: Final = 1000
IDENTITY_TIMEOUT_S: Final = 5.0  # computed, not asked; more means something is broken
RESTORE_TIMEOUT_S: Final = 10.0

_COMMITTED_FIRST: Final = (Say, Bind, Unbind, RuleStreams)
_REFUSED_WHEN_FULL: Final = (Join, Publish, Rename)


@dataclass(frozen=True, slots=True)
class Ports:
    """What every focus works with. Media is the first listener: gates close before anybody is told."""

    journal: Journal
    ghosts: Ghosts
    listeners: Sequence[Listener]
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class _Item:
    command: Command
    cause: Cause | None
    answer: Answer


class Focus:
    """Lives from the first command until nobody has been in for `idle_s`, then calls `retire`."""

    def __init__(
        self, conference: ConferenceId, ports: Ports, idle_s: float, retire: Callable[[], None]
    ) -> None:
        self._id = conference
        self._ports = ports
        self._idle_s = idle_s
        self._retire = retire
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(QUEUE_COMMANDS)
        self._conference: Conference | None = None
        self._ledger: Ledger | None = None
        self._closed = False

    @property
    def legs(self) -> Sequence[Leg]:
        return () if self._conference is None else self._conference.legs

    @property
    def record(self) -> ConferenceRecord | None:
        return None if self._conference is None else self._conference.record

    async def submit(self, command: Command, cause: Cause | None) -> tuple[Event, ...]:
        """Cancelling the caller does not take the command back: whoever goes away says `Leave`."""
        answer: Answer = asyncio.get_running_loop().create_future()
        item = _Item(command, cause, answer)
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            await self._queue.put(item)
        if self._closed:
            self._drain(Unavailable("The conference is closing; try again."))
        return await answer

    async def restore(self) -> None:
        """Raises `Refused` when SQL knows no such conference, `Unavailable` when it is away."""
        try:
            async with asyncio.timeout(RESTORE_TIMEOUT_S):
                restored = await self._ports.journal.restore(self._id)
        except TimeoutError as why:
            raise Unavailable("The database did not answer.") from why
        if restored is None:
            raise Refused("There is no such conference.")
        self._conference = Conference(restored)
        self._ledger = Ledger(
            self._conference, self._ports.journal, self._publish, self._ports.now_ms
        )

    async def run(self) -> None:
        """Serve until idle or cancelled. A bug ends this conference's task, never the program."""
        why: ConferenceError = Unavailable("The conference is closing; try again.")
        try:
            if self._conference is None:
                await self.restore()
            await self._serve()
        except ConferenceError as fault:
            why = fault
        except Exception:
            log.exception("focus broke", extra={"conference": self._id})
        finally:
            self._closed = True
            self._retire()
            self._drain(why)

    async def flushed(self) -> None:
        """Everything that has acted is committed."""
        if self._ledger is not None:
            await self._ledger.emptied()

    async def _serve(self) -> None:
        assert self._conference is not None
        assert self._ledger is not None
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._ledger.run(), name=f"ledger-{self._id}")
            while True:
                try:
                    async with asyncio.timeout(self._idle_s):
                        item = await self._queue.get()
                except TimeoutError:
                    if not self._conference.legs and self._ledger.is_empty and self._queue.empty():
                        break
                    continue
                await self._handle(item, self._conference, self._ledger)
            writer.cancel()

    async def _handle(self, item: _Item, conference: Conference, ledger: Ledger) -> None:
        command = item.command
        if isinstance(command, Join) and item.answer.cancelled():
            return  # the caller is gone before he was in
        try:
            if isinstance(command, _COMMITTED_FIRST):
                ledger.ask(command, item.cause, item.answer)
                return
            if ledger.is_full and isinstance(command, _REFUSED_WHEN_FULL):
                raise Unavailable("The database is away for too long; try again later.")
            if isinstance(command, Join) and command.identity is None:
                command = await self._with_identity(command, conference.record)
            record = conference.record
            events = conference.apply(command, self._ports.now_ms())
        except ConferenceError as why:
            _answer(item, why)
            return
        except Exception as why:
            log.exception("command broke", extra={"command": type(command).__name__})
            _answer(item, why)
            return
        if events:
            self._publish(conference.record, events)
        ledger.write(record, events, item.cause)
        _answer(item, events)

    async def _with_identity(self, command: Join, record: ConferenceRecord) -> Join:
        try:
            async with asyncio.timeout(IDENTITY_TIMEOUT_S):
                identity = await self._ports.ghosts.ensure(
                    record, command.account, command.name, command.leg
                )
        except TimeoutError as why:
            raise Unavailable("Nobody could say who you are in time; try again.") from why
        return replace(command, identity=identity)

    def _publish(self, record: ConferenceRecord, events: Sequence[Event]) -> None:
        for listener in self._ports.listeners:
            try:
                listener.notify(record, events)
            except Exception:  # a listener's bug must not cost the others their events
                log.exception("listener broke", extra={"listener": type(listener).__name__})

    def _drain(self, why: ConferenceError) -> None:
        while not self._queue.empty():
            _answer(self._queue.get_nowait(), why)


def _answer(item: _Item, result: tuple[Event, ...] | Exception) -> None:
    if item.answer.done():
        return
    if isinstance(result, Exception):
        item.answer.set_exception(result)
    else:
        item.answer.set_result(result)
