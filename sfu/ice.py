"""Our side of ICE that is not in the engine: credentials and candidates (RFC 8445 section 5, RFC 8839).

The engine answers checks; this module says what the peer is told. Not here: STUN, pairs, consent (engine).
"""

import ipaddress
import secrets
from dataclasses import dataclass
from typing import Final

from sfu.description import Candidate

_ALPHABET: Final = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # a subset of ice-char
)
UFRAG_CHARACTERS: Final = (
    12  # RFC 8445 section 5.3 wants 24 bits; the engine finds transports by it
)
PWD_CHARACTERS: Final = 32  # RFC 8445 section 5.3 wants 128 bits
_HOST_PREFERENCE: Final = 126  # RFC 8445 section 5.1.2.2
_COMPONENT: Final = 1  # rtcp-mux always


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user fragment and its password: one generation of one transport."""

    ufrag: str
    pwd: str


def new_credentials() -> Credentials:
    return Credentials(_random(UFRAG_CHARACTERS), _random(PWD_CHARACTERS))


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def host_candidates(addresses: tuple[str, ...], port: int) -> tuple[Candidate, ...]:
    """One UDP host candidate per address, the first one preferred. An unspecified address names nobody."""
    usable = [a for a in addresses if not ipaddress.ip_address(a).is_unspecified]
    return tuple(
        Candidate(
            foundation=str(index + 1),
            component=_COMPONENT,
            protocol="udp",
            # RFC 8445 section 5.1.2.1: type, local preference, 256 - component
            priority=(_HOST_PREFERENCE << 24) | ((65_535 - index) << 8) | (256 - _COMPONENT),
            address=address,
            port=port,
        )
        for index, address in enumerate(usable)
    )
