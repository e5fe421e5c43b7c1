"""The last answers of every group, by command id, so that a resend does nothing twice.

Ids are unique per owner and epoch. Read-only commands are not kept: asking again is harmless, and their
answers are large. Descriptions are kept encoded, a tenth of their size as objects.
Not here: carrying out commands (`sfu.worker`).
"""

from collections import OrderedDict, deque
from typing import Final, NamedTuple

import msgspec

from sfu import protocol

MAX_GROUPS: Final = 1_024  # groups with kept answers; the one idle for longest goes first


class CommandKey(NamedTuple):
    """Names a command for ever."""

    owner: str
    epoch: int
    id: str


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(protocol.Described)
_DONE: Final = protocol.Done()


class Answers:
    """Bounded memory: `ANSWERS_KEPT` per group, `MAX_GROUPS` groups."""

    def __init__(self) -> None:
        self._replies: dict[CommandKey, protocol.Reply | bytes] = {}
        self._order: OrderedDict[str, deque[CommandKey]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: CommandKey) -> protocol.Reply | None:
        kept = self._replies.get(key)
        return _DECODER.decode(kept) if isinstance(kept, bytes) else kept

    def keep(self, group: str, key: CommandKey, reply: protocol.Reply) -> None:
        if key in self._replies:
            return
        order = self._order.setdefault(group, deque())
        self._order.move_to_end(group)
        order.append(key)
        self._replies[key] = _compact(reply)
        if len(order) > protocol.ANSWERS_KEPT:
            del self._replies[order.popleft()]
        if len(self._order) > MAX_GROUPS:
            _, forgotten = self._order.popitem(last=False)
            for old in forgotten:
                del self._replies[old]


def _compact(reply: protocol.Reply) -> protocol.Reply | bytes:
    if isinstance(reply, protocol.Described):
        return _ENCODER.encode(reply)
    return _DONE if isinstance(reply, protocol.Done) else reply
