"""The order of truth of one conference: what is committed when, and what waits while the database is away.

house.md section 7. Joins, leaves, mutes have already acted when they come here: they are written as soon as
the database takes them, in order. Text and bindings are decided, committed and only then adopted and told.
Not here: SQL (`ports.Journal`), acting at once (`focus.focus`).
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.conference.commands import Command
from bridge.conference.conference import Conference
from bridge.conference.errors import ConferenceError, Unavailable
from bridge.conference.events import Event, LegChanged, Said, TrackMuted
from bridge.conference.ports import Cause, ConferenceRecord, Journal

log = logging.getLogger(__name__)

MAX_BUFFERED_EVENTS: Final = 10_000  # R3
MAX_BATCH_EVENTS: Final = 256  # one fsync for a burst of joins, and still a short transaction
COMMIT_TIMEOUT_S: Final = 10.0  # a black-holed database answers nothing at all
AWAY_AFTER_S: Final = 2.0  # a commit that takes longer: stop letting people wait for theirs
MAX_UNCERTAIN: Final = 1_024  # lines whose commit failed and may have landed all the same
BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # R3: back within 5 s of the database's return

Answer = asyncio.Future[tuple[Event, ...]]
Publish = Callable[[ConferenceRecord, Sequence[Event]], None]


@dataclass(frozen=True, slots=True)
class _Acted:
    record: ConferenceRecord
    events: tuple[Event, ...]
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class _Asked:
    command: Command
    cause: Cause | None
    answer: Answer


class Ledger:
    """One writer, strictly in order."""

    def __init__(
        self,
        conference: Conference,
        journal: Journal,
        publish: Publish,
        now_ms: Callable[[], int],
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._conference = conference
        self._journal = journal
        self._publish = publish
        self._now_ms = now_ms
        self._backoff_s = backoff_s
        self._entries: deque[_Acted | _Asked] = deque()
        self._buffered = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._failures = 0
        self._commit_began: float | None = None
        self._uncertain: OrderedDict[str, None] = OrderedDict()  # message ids

    @property
    def is_away(self) -> bool:
        """The database fails, or keeps somebody waiting."""
        began = self._commit_began
        slow = began is not None and asyncio.get_running_loop().time() - began > AWAY_AFTER_S
        return self._failures > 0 or slow

    @property
    def is_full(self) -> bool:
        return self._buffered >= MAX_BUFFERED_EVENTS

    @property
    def is_empty(self) -> bool:
        return self._empty.is_set()

    async def emptied(self) -> None:
        await self._empty.wait()

    def write(
        self, record: ConferenceRecord, events: tuple[Event, ...], cause: Cause | None
    ) -> None:
        """These have acted. When full, what re-adoption finds out by itself is shed first."""
        if self.is_full:
            events = tuple(e for e in events if not isinstance(e, LegChanged | TrackMuted))
        if events or cause is not None:
            self._buffered += len(events)
            self._append(_Acted(record, events, cause))

    def ask(self, command: Command, cause: Cause | None, answer: Answer) -> None:
        """Decide it after everything before is committed; answer once it is committed itself."""
        if self.is_away:
            _fail(answer, Unavailable("The database is away; try again in a moment."))
        else:
            self._append(_Asked(command, cause, answer))

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._wake.wait()
                match self._entries[0]:
                    case _Asked() as asked:
                        self._entries.popleft()
                        await self._settle(asked)
                    case _Acted():
                        await self._write_down(self._take_batch())
                if not self._entries:
                    self._wake.clear()
                    self._empty.set()
        finally:
            self._fail_asked(Unavailable("The conference is closing; try again."))

    def _append(self, entry: _Acted | _Asked) -> None:
        self._entries.append(entry)
        self._wake.set()
        self._empty.clear()

    def _take_batch(self) -> list[_Acted]:
        """The next entries that may share a transaction: no inbox row of their own, same record."""
        batch: list[_Acted] = []
        size = 0
        while self._entries:
            entry = self._entries[0]
            if isinstance(entry, _Asked):
                break
            size += len(entry.events)
            joins = entry.cause is None and entry.record == (batch or [entry])[0].record
            if batch and not (joins and size <= MAX_BATCH_EVENTS):
                break
            batch.append(entry)
            self._entries.popleft()
            if entry.cause is not None:
                break
        return batch

    async def _write_down(self, batch: Sequence[_Acted]) -> None:
        """Until the database has it. What it rejects for another reason is our bug: loud, and not in the way."""
        record, cause = batch[0].record, batch[0].cause
        events = tuple(event for entry in batch for event in entry.events)
        while True:
            try:
                await self._commit(record, events, cause)
            except Unavailable as why:
                self._failures += 1
                self._fail_asked(Unavailable("The database is away; try again in a moment."))
                pause_s = self._backoff_s[min(self._failures, len(self._backoff_s)) - 1]
                log.warning("commit waits", extra={"why": str(why), "events": self._buffered})
                await asyncio.sleep(pause_s)
                continue
            except Exception:
                if len(batch) > 1:
                    for entry in batch:  # one of them is to blame
                        await self._write_down((entry,))
                    return
                log.exception(
                    "commit rejected", extra={"events": [type(e).__name__ for e in events]}
                )
            self._failures = 0
            self._buffered -= len(events)
            return

    async def _settle(self, asked: _Asked) -> None:
        """Commit, then act, then answer."""
        record = self._conference.record
        try:
            events = self._conference.decide(asked.command, self._now_ms())
            if events or asked.cause is not None:
                is_new = await self._commit_lines(record, events, asked.cause)
                events = events if is_new else ()
        except ConferenceError as why:
            _fail(asked.answer, why)
            return
        except Exception as why:
            log.exception("command broke", extra={"command": type(asked.command).__name__})
            _fail(asked.answer, why)
            return
        self._conference.adopt(events)
        if events:
            self._publish(self._conference.record, events)
        if not asked.answer.done():
            asked.answer.set_result(events)

    async def _commit_lines(
        self, record: ConferenceRecord, events: Sequence[Event], cause: Cause | None
    ) -> bool:
        """As `_commit`, but a line that landed although its commit failed is new when it is tried again.

        Nobody has heard of it: the answer of the first attempt never came, so nothing was published.
        """
        lines = [event.message_id for event in events if isinstance(event, Said)]
        try:
            is_new = await self._commit(record, events, cause)
        except Unavailable:
            for line in lines:
                self._uncertain[line] = None
                self._uncertain.move_to_end(line)
            while len(self._uncertain) > MAX_UNCERTAIN:
                self._uncertain.popitem(last=False)
            raise
        was_uncertain = not self._uncertain.keys().isdisjoint(lines)
        for line in lines:
            self._uncertain.pop(line, None)
        return is_new or was_uncertain

    async def _commit(
        self, record: ConferenceRecord, events: Sequence[Event], cause: Cause | None
    ) -> bool:
        self._commit_began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                return await self._journal.commit(record, events, cause)
        except TimeoutError as why:
            raise Unavailable("the database did not answer") from why
        finally:
            self._commit_began = None

    def _fail_asked(self, why: Unavailable) -> None:
        for entry in self._entries:
            if isinstance(entry, _Asked):
                _fail(entry.answer, why)
        self._entries = deque(e for e in self._entries if isinstance(e, _Acted))


def _fail(answer: Answer, why: Exception) -> None:
    if not answer.done():
        answer.set_exception(why)
