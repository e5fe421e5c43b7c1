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
_TCP_PREFERENCE: Final = 90  # RFC 6544 section 4.2: below every kind of UDP but relays
_PASSIVE: Final = 4  # RFC 6544 section 4.2, direction preference
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


def offered(
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    local: tuple[str, ...],
    *,
    allow: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """The addresses that clients are told; empty when nothing is left.

    `advertise` wins: a NAT in front of us maps one to one, and what is written there is meant. Otherwise those
    of `listen`, a wildcard being all of `local` (the interfaces' addresses) in its family. `deny` and `allow`
    are networks: an address is told if it is in none of the one and, when there are any, in one of the other.
    Without `allow` a wildcard leaves out loopback and link-local addresses, which nobody else could use.
    """
    if advertise:
        return advertise
    allowed = [ipaddress.ip_network(text, strict=False) for text in allow]
    denied = [ipaddress.ip_network(text, strict=False) for text in deny]
    found: dict[str, None] = {}
    for text in listen:
        own = ipaddress.ip_address(text)
        for candidate in local if own.is_unspecified else (text,):
            ip = ipaddress.ip_address(candidate)
            is_useless = ip.is_loopback or ip.is_link_local
            if (
                ip.version != own.version
                or (own.is_unspecified and not allowed and is_useless)
                or any(ip in network for network in denied)
                or (allowed and not any(ip in network for network in allowed))
            ):
                continue
            found[str(ip)] = None
    return tuple(found)


def host_candidates(
    addresses: tuple[str, ...], port: int, *, tcp: bool = False
) -> tuple[Candidate, ...]:
    """A UDP host candidate per address, the first one preferred, then passive TCP ones (RFC 6544 section 4.5).

    An unspecified address names nobody.
    """
    usable = [a for a in addresses if not ipaddress.ip_address(a).is_unspecified]
    udp = tuple(
        Candidate(
            foundation=str(index + 1),
            component=_COMPONENT,
            protocol="udp",
            priority=_priority(_HOST_PREFERENCE, 65_535 - index),
            address=address,
            port=port,
        )
        for index, address in enumerate(usable)
    )
    streams = tuple(
        Candidate(
            foundation=str(len(usable) + index + 1),
            component=_COMPONENT,
            protocol="tcp",
            priority=_priority(_TCP_PREFERENCE, (_PASSIVE << 13) | (8_191 - index)),
            address=address,
            port=port,
            tcp_type="passive",
        )
        for index, address in enumerate(usable)
    )
    return udp + streams if tcp else udp


def _priority(type_preference: int, local_preference: int) -> int:
    """RFC 8445 section 5.1.2.1: type, local preference, 256 - component."""
    return (type_preference << 24) | (local_preference << 8) | (256 - _COMPONENT)
