"""What waits to be written to an owner: answers and events in one order, coalesced and bounded.

Rules of `sfu.protocol`: transport truth, tracks, channels and messages are never coalesced; of the other
events only the last state is kept. `seq` is given when an entry leaves, so it counts without gaps, and a
snapshot names the seq of the last event that left before it.
Not here: the socket (`sfu.owner`), who makes events (`sfu.worker`).
"""

from collections import OrderedDict
from typing import Final

import msgspec

from sfu import protocol

MAX_ENTRIES: Final = 65_536  # an owner this far behind must reconnect and take a snapshot

Frame = protocol.Response | protocol.Notice

_Key = tuple[object, ...]


def _coalescing_key(event: protocol.Event) -> _Key | None:
    """What a newer event of the same key replaces, or None: every one counts.

    `Disconnected` may be coalesced by the contract, but only with its place among `Connected` it is
    worth anything, so it is kept like them.
    """
    match event:
        case protocol.NegotiationNeeded(session=session):
            return ("NegotiationNeeded", session)
        case protocol.LayersWanted(session=session, track=track):
            return ("LayersWanted", session, track)
        case protocol.StreamState(session=session, track=track):
            return ("StreamState", session, track)
        case protocol.Speakers(group=group):
            return ("Speakers", group)
        case protocol.Quality(session=session):
            return ("Quality", session)
        case protocol.Statistics(part=part):
            return ("Statistics", part)
        case _:
            return None


class Outbox:
    """A queue in order. Everything here is synchronous; whoever writes asks `pop` until it is empty."""

    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, protocol.Event | protocol.Response] = OrderedDict()
        self._count = 0
        self._seq = 0
        self._backlog: dict[str, int] = {}  # session -> bytes of Message events waiting

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def overflowed(self) -> bool:
        return len(self._entries) > MAX_ENTRIES

    def backlog(self, session: str) -> int:
        """Bytes of this session's data channel messages that are not written yet."""
        return self._backlog.get(session, 0)

    def add_event(self, event: protocol.Event) -> None:
        key = _coalescing_key(event)
        if key is not None:
            # The newer state goes to the end: what was decided before it must be read before it.
            self._entries.pop(key, None)
        else:
            self._count += 1
            key = (self._count,)
        if isinstance(event, protocol.Message):
            self._backlog[event.session] = self.backlog(event.session) + len(event.data)
        self._entries[key] = event

    def add_response(self, response: protocol.Response) -> None:
        self._count += 1
        self._entries[(self._count,)] = response

    def pop(self) -> Frame | None:
        """The next frame to write, with its seq."""
        if not self._entries:
            return None
        _, entry = self._entries.popitem(last=False)
        if isinstance(entry, protocol.Response):
            if isinstance(entry.reply, protocol.Snapshot):
                snapshot = msgspec.structs.replace(entry.reply, seq=self._seq)
                return protocol.Response(id=entry.id, reply=snapshot)
            return entry
        if isinstance(entry, protocol.Message):
            left = self._backlog[entry.session] - len(entry.data)
            if left:
                self._backlog[entry.session] = left
            else:
                del self._backlog[entry.session]
        self._seq += 1
        return protocol.Notice(seq=self._seq, event=entry)

    def unread(self) -> tuple[protocol.Event, ...]:
        """The events that will never be written because the connection ended."""
        return tuple(e for e in self._entries.values() if not isinstance(e, protocol.Response))
