"""Chat places that share their text with the conference.

Not here: that a place belongs to one conference only (the focus asks `ports.Directory`; SQL has it unique).
"""

from typing import Final

from bridge.conference.commands import Bind, Unbind
from bridge.conference.errors import Malformed, Refused
from bridge.conference.events import Bound, Event, Unbound
from bridge.conference.state import State

MAX_PLACES: Final = 16  # every line is sent this many times
MAX_ADDRESS_CHARS: Final = (
    3071  # a full JID (RFC 7622 section 3.1); Matrix room ids have at most 255
)


def bind(state: State, command: Bind) -> tuple[Event, ...]:
    if not 0 < len(command.place.address) <= MAX_ADDRESS_CHARS:
        raise Malformed("a place without a usable address")
    if command.place in state.record.places:
        return ()
    if len(state.record.places) >= MAX_PLACES:
        raise Refused(f"{MAX_PLACES} rooms are connected already; disconnect one first.")
    return (Bound(command.place, command.by),)


def unbind(state: State, command: Unbind) -> tuple[Event, ...]:
    if command.place not in state.record.places:
        return ()
    return (Unbound(command.place, command.by),)
