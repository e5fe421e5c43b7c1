"""Who is encrypted end to end and who is not: in one call they cannot hear or see each other, and are told so.

Frames that a client encrypts pass untouched and nobody here has a key. XMPP clients and the page cannot decrypt
them, and a client that expects encryption does not play what is not.
Not here: saying it in a room (gateways), keeping encrypted tracks from those who follow the speaker (`sfu`).
"""

from collections.abc import Iterable, Sequence
from typing import Final

from bridge.conference.events import Leg
from bridge.conference.ids import ConferenceId

NAMES_SHOWN: Final = 5


class Divisions:
    """What each conference has been told; a gateway that speaks to rooms has one."""

    def __init__(self) -> None:
        self._told: set[ConferenceId] = set()

    def news(self, conference: ConferenceId, legs: Iterable[Leg]) -> str:
        """A sentence when the call has just become divided, else empty. Ask whenever tracks or people changed."""
        sentence = divided(legs)
        if not sentence:
            self._told.discard(conference)
        elif conference in self._told:
            return ""
        else:
            self._told.add(conference)
        return sentence


def divided(legs: Iterable[Leg]) -> str:
    """A sentence if some of those who send encrypt it end to end and some do not, else empty."""
    encrypted: dict[str, None] = {}
    plain: dict[str, None] = {}
    for leg in legs:
        if leg.hidden or not leg.tracks:
            continue
        name = leg.name or leg.account.address
        (encrypted if any(track.encrypted for track in leg.tracks) else plain)[name] = None
    if not encrypted or not plain:
        return ""
    return (
        "This call is only partly encrypted end to end. "
        f"Encrypted: {_listed(tuple(encrypted))}. Not encrypted: {_listed(tuple(plain))}. "
        "They cannot hear or see each other."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
