"""The two state tables of a session: its life, and whose turn it is to describe.

Not here: what happens on a transition (`sfu.session`).
"""

from enum import Enum, auto
from typing import Final

from sfu.errors import IllegalTransition, Refused


class Life(Enum):
    """`protocol.SessionState.state`."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    CLOSED = "closed"


class Happening(Enum):
    """What can happen to a session."""

    DESCRIBED = auto()  # the peer's credentials are known
    UP = auto()  # ICE and DTLS of every transport
    SILENT = auto()  # no authenticated packet for 5 s on one of them
    HEARD = auto()  # no transport is silent any more
    OVER = auto()


_LIFE: Final[dict[tuple[Life, Happening], Life]] = {
    (Life.NEW, Happening.DESCRIBED): Life.CONNECTING,
    (Life.NEW, Happening.SILENT): Life.NEW,  # validated by its checks before we read its answer
    (Life.NEW, Happening.HEARD): Life.NEW,
    (Life.CONNECTING, Happening.DESCRIBED): Life.CONNECTING,
    (Life.CONNECTING, Happening.UP): Life.CONNECTED,
    (Life.CONNECTING, Happening.SILENT): Life.CONNECTING,
    (Life.CONNECTING, Happening.HEARD): Life.CONNECTING,
    (Life.CONNECTED, Happening.DESCRIBED): Life.CONNECTED,
    (Life.CONNECTED, Happening.UP): Life.CONNECTED,  # a further transport of an unbundled session
    (Life.CONNECTED, Happening.SILENT): Life.DISCONNECTED,
    (Life.CONNECTED, Happening.HEARD): Life.CONNECTED,
    (Life.DISCONNECTED, Happening.DESCRIBED): Life.DISCONNECTED,
    (Life.DISCONNECTED, Happening.UP): Life.DISCONNECTED,
    (Life.DISCONNECTED, Happening.SILENT): Life.DISCONNECTED,
    (Life.DISCONNECTED, Happening.HEARD): Life.CONNECTED,
} | {(life, Happening.OVER): Life.CLOSED for life in Life}


def live(state: Life, happening: Happening) -> Life:
    """The next state of a life."""
    try:
        return _LIFE[state, happening]
    except KeyError:
        raise IllegalTransition(f"{happening.name} while {state.name}") from None


class Turn(Enum):
    """RFC 8829 section 3.2, as far as a server needs it: an offer of the peer is answered at once."""

    STABLE = auto()
    OFFERED = auto()  # we did; the answer is outstanding


class Word(Enum):
    """What is said in a negotiation."""

    OFFER = auto()  # by the peer
    MAKE_OFFER = auto()
    ANSWER = auto()  # by the peer


_TURNS: Final[dict[tuple[Turn, Word], Turn]] = {
    (Turn.STABLE, Word.OFFER): Turn.STABLE,
    (Turn.STABLE, Word.MAKE_OFFER): Turn.OFFERED,
    (Turn.OFFERED, Word.MAKE_OFFER): Turn.OFFERED,  # the first one got lost; this one replaces it
    (Turn.OFFERED, Word.ANSWER): Turn.STABLE,
}


def turn(state: Turn, word: Word) -> Turn:
    """The next turn. A missing row is the caller's mistake, because only he can serialise both sides."""
    try:
        return _TURNS[state, word]
    except KeyError:
        raise Refused(f"{word.name.lower()} while {state.name.lower()}") from None
