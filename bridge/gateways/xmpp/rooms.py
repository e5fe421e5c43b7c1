"""One bound chat room: our focus is an occupant, hears every line once, and knows who is there.

XEP-0045 section 7.2 (enter), 7.14 (leave), XEP-0313 (what was said while we were away). Every line goes into the
durable inbox before anything else happens to it. Lines of our own puppets are recognised and complete
their delivery instead.
Not here: puppets' own presence (`puppets`), what becomes of a line (`inbound`).
"""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.ids import Role
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Context
from bridge.gateways.xmpp import disco, muc, names
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.archive import Archive, now_ms
from bridge.gateways.xmpp.link import RequestFailed
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

GATEWAY: Final = "xmpp"
FOCUS_NICK: Final = "Parley"
JOIN_S: Final = 10.0
REQUEST_S: Final = 10.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
REJOIN_S: Final = 30.0  # after somebody put us out
QUEUE: Final = 1_000  # lines heard and not yet behind us
MAX_PAGES: Final = 500  # of one catch-up
LOOK_PAGES: Final = 20  # when looking for one of our own lines
PROGRESS_EVERY_S: Final = 5.0  # the inbox deduplicates, so the mark may lag
OVERLAP_MS: Final = 60_000  # clocks of two servers
FRESH_MS: Final = 60_000  # an older command found in the archive would surprise everybody
MAX_ECHOES: Final = 4_096
MAX_OWN_IDS: Final = 5_000


@dataclass(frozen=True, slots=True)
class _Heard:
    """A live line in the order of the room. Ours is nothing to keep, but the mark moves with it."""

    line: muc.Line
    is_own: bool


class Room:
    """Lives from binding to unbinding. `run` until cancelled; `presence` and `message` feed it meanwhile."""

    def __init__(
        self,
        context: Context,
        wire: Wire,
        conference: ConferenceRecord,
        address: str,
        up: asyncio.Event,
        on_joined: Callable[["Room"], None],
    ) -> None:
        self.address = address
        self.conference = conference
        self.focus = st.Jid(conference.slug.lower(), wire.domain, names.FOCUS_RESOURCE)
        self.roster = muc.Roster(address)
        self.own_nicks: dict[str, str] = {}  # nickname -> our JID
        self.left_behind: dict[
            str, str
        ] = {}  # puppets of a process that was killed: node -> nickname
        self.has_archive = False
        self._context = context
        self._wire = wire
        self._up = up
        self._on_joined = on_joined
        self._entering: asyncio.Future[muc.Seen] | None = None
        self._nick = ""
        self._joined = False
        self._was_put_out = False
        self._lines: asyncio.Queue[_Heard | None] = asyncio.Queue(QUEUE)
        self._missed = False
        self._archive = Archive(wire, address, str(self.focus))
        self._own_ids: OrderedDict[str, None] = OrderedDict()
        self._echoes: OrderedDict[str, str] = OrderedDict()
        self._awaited: dict[str, asyncio.Future[str]] = {}
        self._progress: tuple[str, int] = ("", 0)
        self._progress_saved_s = 0.0

    @property
    def is_joined(self) -> bool:
        return self._joined and self._up.is_set()

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._load()
        retry_s = RETRY_FIRST_S
        while True:
            await self._up.wait()  # unbounded: the link reconnects by itself
            try:
                await self._enter()
                retry_s = RETRY_FIRST_S
                await self._serve()
            except (Unavailable, Refused, Malformed) as why:
                log.warning("chat room not available", extra={"why": str(why)})
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_MAX_S)
            finally:
                self._joined = False
            if self._was_put_out:
                self._was_put_out = False
                await asyncio.sleep(REJOIN_S)

    async def _load(self) -> None:
        while True:
            try:
                own = await self._context.store.get(GATEWAY, f"own:{self.address}")
                mark = await self._context.store.get(GATEWAY, f"muc:{self.address}")
            except Unavailable:
                await asyncio.sleep(RETRY_FIRST_S)
                continue
            ids = own.get("ids") if own else None
            for value in ids if isinstance(ids, list) else []:
                self._own_ids[str(value)] = None
            present = own.get("present") if own else None
            if isinstance(present, dict):
                self.left_behind = {str(node): str(nick) for node, nick in present.items()}
            if mark is not None:
                at_ms = mark.get("at_ms")
                self._progress = (str(mark.get("id", "")), at_ms if isinstance(at_ms, int) else 0)
            return

    async def _enter(self) -> None:
        self.roster.clear()
        self.own_nicks.clear()
        self.has_archive = muc.MAM in await self._features()
        seen = await self._take_nick()
        if muc.CREATED in seen.codes:
            await self._unlock()
        is_new = self._progress == ("", 0)
        if is_new:  # lines from before the binding are nobody's business
            await self._save_progress("", now_ms())
        self._joined = True  # deliveries may start: their echoes are found live or in the archive
        self._on_joined(self)
        if self.has_archive and not is_new:
            await self._catch_up()

    async def _features(self) -> frozenset[str]:
        iq = st.iq(self.address, str(self.focus), "get", "")
        st.add(iq, disco.INFO, "query")
        try:
            return disco.features_of(await self._wire.request(iq, timeout_s=REQUEST_S))
        except RequestFailed:
            return frozenset()  # a room that does not exist yet: entering makes it

    async def _take_nick(self) -> muc.Seen:
        for nick in names.candidates(FOCUS_NICK, self._suffix, ()):
            try:
                return await self._try_nick(nick)
            except RequestFailed as why:
                if why.condition != "conflict":
                    raise
        raise Unavailable("no free nickname")

    @property
    def _suffix(self) -> str:
        section = self._context.config.xmpp
        return section.muc_nick_suffix if section else ""

    async def _try_nick(self, nick: str) -> muc.Seen:
        entry = st.presence(f"{self.address}/{nick}", str(self.focus))
        join = st.add(entry, muc.MUC, "x")
        if self.has_archive or self._progress[1] == 0:
            st.add(join, muc.MUC, "history", maxstanzas="0")
        else:
            since = muc.stamp_of(self._progress[1] - OVERLAP_MS)
            st.add(join, muc.MUC, "history", since=since)
        disco.put_caps(entry, disco.FOCUS)
        self._nick = nick
        self._entering = asyncio.get_running_loop().create_future()
        try:
            self._wire.send(entry)
            async with asyncio.timeout(JOIN_S):
                seen = await self._entering
        except TimeoutError as why:
            raise Unavailable("the room did not let us in in time") from why
        finally:
            self._entering = None
        return seen

    async def _unlock(self) -> None:
        """We made the room by entering; accept the service's defaults (XEP-0045 section 10.1.2)."""
        iq = st.iq(self.address, str(self.focus), "set", "")
        query = st.add(iq, muc.MUC_OWNER, "query")
        st.add(query, muc.DATA_FORM, "x", type="submit")
        await self._wire.request(iq, timeout_s=REQUEST_S)

    def link_lost(self) -> None:
        """The stream is gone: wake `_serve`."""
        self._joined = False
        self._wake()

    def leave(self) -> None:
        """Unbound: go, without waiting for the answer."""
        if self.is_joined:
            self._wire.send(
                st.presence(f"{self.address}/{self._nick}", str(self.focus), "unavailable")
            )
        self._joined = False

    # --- what the room sends to our focus ------------------------------------------------------------

    def presence(self, presence: Element) -> None:
        """Raises `Malformed`."""
        if presence.get("type") == "error":
            if self._entering is not None and not self._entering.done():
                self._entering.set_exception(RequestFailed(st.condition_of(presence)))
            return
        seen = self.roster.apply(presence)
        if seen is not None and seen.here is not None and not seen.is_self:
            self._greet(seen.here, seen.gone)
        if seen is None or not seen.is_self:
            return
        if seen.here is None:
            self._joined = False
            self._was_put_out = self._up.is_set()
            self._wake()
            return
        self._nick = seen.here.nick
        self.own(seen.here, str(self.focus))
        if self._entering is not None and not self._entering.done():
            self._entering.set_result(seen)

    def _greet(self, here: muc.Occupant, before: muc.Occupant | None) -> None:
        """Directed presence to who comes in: clients offer to call only whom they see (disco section)."""
        if before is None and here.device and not self._is_ours(here):
            greeting = st.presence(here.device, str(self.focus))
            disco.put_caps(greeting, disco.FOCUS)
            self._wire.send(greeting)

    def message(self, message: Element) -> None:
        """Raises `Malformed`."""
        found = muc.archived(message)
        if found is not None:
            self._archive.result(*found)
            return
        line = muc.parse_line(message, self.address, now_ms())
        if line is None:
            return
        is_own = self._is_own_live(line)
        if is_own:
            self._echo(line)
        self._hear(_Heard(line, is_own))

    def _hear(self, heard: _Heard) -> None:
        """In line behind what was heard before, ours too: the mark must not pass a line that is not kept yet."""
        if self._missed and self.has_archive:
            return  # from the first line that found no room, the archive tells them all
        try:
            self._lines.put_nowait(heard)
        except asyncio.QueueFull:
            self._missed = True  # the archive has it: caught up once the queue is empty

    def _wake(self) -> None:
        if not self._lines.full():
            self._lines.put_nowait(None)

    # --- lines --------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while self._joined:
            heard = await self._lines.get()  # unbounded: a room may be silent for days
            if heard is not None and heard.is_own:
                self._advance(heard.line)
            elif heard is not None:
                await self._keep(heard.line)
            if self._missed and self._lines.empty():
                self._missed = False
                await self._catch_up()

    async def _keep(self, line: muc.Line) -> None:
        """Into the inbox, however long the store is away; only then is it behind us."""
        payload = self._payload(line)
        source_id = f"{self.address}|{line.source_id}"
        while True:
            try:
                await self._context.inbox.put(GATEWAY, source_id, [(source_id, payload)])
                break
            except Unavailable:
                await asyncio.sleep(RETRY_FIRST_S)
        self._advance(line)
        if time.monotonic() - self._progress_saved_s >= PROGRESS_EVERY_S:
            await self._save_progress(*self._progress)

    def _payload(self, line: muc.Line) -> dict[str, object]:
        present = self.roster.by_nick.get(line.nick)
        account = muc.account_of(line, self.address, present)
        is_known = present is not None and self.roster.account(present) == account
        return {
            "room": self.address,
            "account": account.address,
            "name": line.nick,
            "role": int(present.rank if present is not None and is_known else Role.MEMBER),
            "text": f"* {line.text}" if line.is_correction else line.text,
            "emote": line.is_emote,
            "at_ms": line.at_ms,
            # A command counts while it is fresh, also when it was typed during a restart; never as a
            # correction (S33).
            "fresh": not line.is_correction and now_ms() - line.at_ms < FRESH_MS,
        }

    def _advance(self, line: muc.Line) -> None:
        if line.at_ms >= self._progress[1]:
            self._progress = (line.archive_id, line.at_ms)

    async def _save_progress(self, archive_id: str, at_ms: int) -> None:
        self._progress = (archive_id, at_ms)
        self._progress_saved_s = time.monotonic()
        try:
            await self._context.store.put(
                GATEWAY, f"muc:{self.address}", {"id": archive_id, "at_ms": at_ms}
            )
        except Unavailable:
            log.warning("room progress not saved")

    # --- archive ------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Everything said since our mark, in order, before the live lines that wait in the queue."""
        after, since_ms = self._progress
        for _ in range(MAX_PAGES):
            try:
                lines, page = await self._archive.page(
                    after=after, since_ms=0 if after else since_ms - OVERLAP_MS
                )
            except RequestFailed as why:
                if after and why.condition == "item-not-found":  # the archive forgot our mark
                    after = ""
                    continue
                log.warning("archive refused", extra={"condition": why.condition})
                return
            for line in lines:
                if await self._is_own(line):
                    self._echo(line)
                    self._advance(line)
                else:
                    await self._keep(line)
            if page.is_complete or not page.last:
                return
            after = page.last
        log.warning("catch-up stopped", extra={"pages": MAX_PAGES})

    async def find(self, message_id: str, since_ms: int) -> str | None:
        """R14: did our line reach the room in an earlier attempt? Its archive id, or None.

        Raises `Unavailable`. Without an archive only lines heard by this process are known.
        """
        known = self._echoes.get(message_id)
        if known is not None or not self.has_archive:
            return known
        after = ""
        for _ in range(LOOK_PAGES):
            try:
                lines, page = await self._archive.page(
                    after=after, since_ms=0 if after else since_ms - OVERLAP_MS
                )
            except RequestFailed as why:
                raise Unavailable("the room's archive cannot be read") from why
            for line in lines:
                if line.message_id == message_id and await self._is_own(line):
                    return line.archive_id
            if page.is_complete or not page.last:
                return None
            after = page.last
        return None

    # --- our own lines ------------------------------------------------------------------------------------

    def own(self, occupant: muc.Occupant, jid: str) -> None:
        """One of ours is in the room under this nickname and occupant-id."""
        self.own_nicks[occupant.nick] = jid
        if occupant.occupant_id:
            self._own_ids[occupant.occupant_id] = None
            self._own_ids.move_to_end(occupant.occupant_id)
            while len(self._own_ids) > MAX_OWN_IDS:
                self._own_ids.popitem(last=False)

    def disown(self, nick: str) -> None:
        self.own_nicks.pop(nick, None)

    async def save_own(self) -> None:
        """Before a puppet speaks: after a crash its lines must be known as ours."""
        present = dict(self.left_behind)
        for nick, jid in self.own_nicks.items():
            present[st.parse_jid(jid).node] = nick
        present.pop(self.focus.node, None)
        await self._context.store.put(
            GATEWAY, f"own:{self.address}", {"ids": list(self._own_ids), "present": present}
        )

    def taken_for(self, jid: str) -> tuple[str, ...]:
        """Nicknames that somebody else has. A puppet left behind by a killed process is not somebody else."""
        return tuple(
            nick
            for nick, occupant in self.roster.by_nick.items()
            if self.own_nicks.get(nick, jid) != jid or not self._is_ours(occupant)
        )

    def _is_ours(self, occupant: muc.Occupant) -> bool:
        if occupant.real:
            return st.parse_jid(occupant.real).domain == self._wire.domain
        return bool(occupant.occupant_id) and occupant.occupant_id in self._own_ids

    def _is_own_live(self, line: muc.Line) -> bool:
        if line.is_delayed:
            return line.occupant_id in self._own_ids or line.message_id in self._echoes
        # The occupant-id: what a killed process sent may be reflected before its puppet is back.
        return line.nick in self.own_nicks or line.occupant_id in self._own_ids

    async def _is_own(self, line: muc.Line) -> bool:
        """As `_is_own_live`, for lines of the archive: nicknames may have changed hands since."""
        if line.occupant_id:
            return line.occupant_id in self._own_ids
        if line.real:
            return st.parse_jid(line.real).domain == self._wire.domain
        return await self._context.store.get(GATEWAY, f"sent:{line.message_id}") is not None

    @property
    def knows_occupants(self) -> bool:
        """Whether this service tells occupant-ids; if not, sent lines are remembered one by one."""
        return bool(self._own_ids)

    def await_echo(self, message_id: str) -> asyncio.Future[str]:
        """Completed with the room's id of the line, or `message_id` where rooms give none."""
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._awaited[message_id] = waiting
        waiting.add_done_callback(lambda _: self._awaited.pop(message_id, None))
        return waiting

    def refused(self, message: Element) -> None:
        """The room would not take a line of ours (an error message to a puppet)."""
        waiting = self._awaited.get(message.get("id", ""))
        if waiting is not None and not waiting.done():
            waiting.set_exception(RequestFailed(st.condition_of(message)))

    def _echo(self, line: muc.Line) -> None:
        remote_id = line.archive_id or line.message_id
        self._echoes[line.message_id] = remote_id
        while len(self._echoes) > MAX_ECHOES:
            self._echoes.popitem(last=False)
        waiting = self._awaited.get(line.message_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(remote_id)

    def say(self, text: str) -> None:
        """One line by the focus itself: notices and answers. Lost when the room is away."""
        if not self.is_joined:
            return
        line = st.message(self.address, str(self.focus), "groupchat", id=secrets.token_hex(8))
        st.add(line, st.CLIENT, "body", text)
        self._wire.send(line)
