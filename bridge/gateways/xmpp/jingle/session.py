"""The life of one Jingle session as a table (XEP-0166 section 5, XEP-0353 section 3).

Events of the peer that have no row are out of order: the peer's fault, answered with an error.
Events of ours that have no row are bugs: `IllegalTransition`.
Not here: what to do on a transition (`bridge.gateways.xmpp.calls`).
"""

from enum import Enum, auto
from typing import Final

from bridge.conference.errors import IllegalTransition, Malformed
from bridge.gateways.xmpp.jingle.values import Action


class State(Enum):
    RINGING = auto()  # they proposed, we said proceed; their session-initiate is due
    CALLING = auto()  # we proposed; some device's proceed is due
    INVITED = auto()  # a device said proceed to us; our session-initiate is due
    INCOMING = auto()  # their session-initiate is here; our session-accept is due
    OUTGOING = auto()  # our session-initiate is out; their session-accept is due
    ACTIVE = auto()
    ENDED = auto()


class Ours(Enum):
    """What we do by ourselves."""

    INITIATE = auto()
    ACCEPT = auto()
    END = auto()


class Ring(Enum):
    """Jingle messages of the peer (XEP-0353)."""

    PROCEED = auto()
    REJECT = auto()
    RETRACT = auto()


Event = Action | Ours | Ring

_NEGOTIATING: Final = (State.INCOMING, State.OUTGOING, State.ACTIVE)

_ROWS: Final[dict[tuple[State, Event], State]] = {
    (State.RINGING, Action.SESSION_INITIATE): State.INCOMING,
    (State.RINGING, Ring.RETRACT): State.ENDED,
    (State.CALLING, Ring.PROCEED): State.INVITED,
    (State.CALLING, Ring.REJECT): State.ENDED,
    (State.INVITED, Ring.PROCEED): State.INVITED,  # a second device was slower
    (State.INVITED, Ring.REJECT): State.ENDED,
    (State.INVITED, Ours.INITIATE): State.OUTGOING,
    (State.OUTGOING, Action.SESSION_ACCEPT): State.ACTIVE,
    (State.OUTGOING, Ring.PROCEED): State.OUTGOING,
    (State.OUTGOING, Ring.REJECT): State.ENDED,
    (State.INCOMING, Ours.ACCEPT): State.ACTIVE,
    (State.INCOMING, Ring.RETRACT): State.ENDED,
    (State.ACTIVE, Ring.PROCEED): State.ACTIVE,
    (State.ACTIVE, Ring.RETRACT): State.ACTIVE,  # crossed with our accept
}
# Candidates and infos may overtake the answer; they are queued behind it.
_ALWAYS: Final[dict[tuple[State, Event], State]] = {
    (state, action): state
    for state in _NEGOTIATING
    for action in (Action.TRANSPORT_INFO, Action.SESSION_INFO, Action.DESCRIPTION_INFO)
}
_CHANGES: Final[dict[tuple[State, Event], State]] = {
    (State.ACTIVE, action): State.ACTIVE
    for action in (
        Action.CONTENT_ACCEPT,
        Action.CONTENT_ADD,
        Action.CONTENT_MODIFY,
        Action.CONTENT_REJECT,
        Action.CONTENT_REMOVE,
        Action.SECURITY_INFO,
        Action.TRANSPORT_ACCEPT,
        Action.TRANSPORT_REJECT,
        Action.TRANSPORT_REPLACE,
    )
}
_ENDS: Final[dict[tuple[State, Event], State]] = {
    (state, Action.SESSION_TERMINATE): State.ENDED for state in _NEGOTIATING
}
_OUR_END: Final[dict[tuple[State, Event], State]] = {
    (state, Ours.END): State.ENDED for state in State
}
_NEXT: Final = _ROWS | _ALWAYS | _CHANGES | _ENDS | _OUR_END


def step(state: State, event: Event) -> State:
    """Raises `Malformed` for the peer's event out of order, `IllegalTransition` for ours."""
    try:
        return _NEXT[state, event]
    except KeyError:
        text = f"{event.name} while {state.name}"
        raise (IllegalTransition if isinstance(event, Ours) else Malformed)(text) from None


def we_win_tie(our_sid: str, their_sid: str) -> bool:
    """Both called at once: the lower sid stands (XEP-0166 section 7.2.16, XEP-0353 section 4)."""
    return our_sid < their_sid
