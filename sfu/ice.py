"""Our side of ICE that is not in the engine: credentials and candidates (RFC 8445 section 5, RFC 8839).

The engine answers checks; this module says what the peer is told. Not here: STUN, pairs, consent (engine).
"""

import ipaddress
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from sfu.description import Candidate

_ALPHABET: Final = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # a subset of ice-char
)
UFRAG_CHARACTERS: Final = (
    12  # RFC 8445 section 5.3 wants 24 bits; the engine finds transports by it
)
_DRAWS: Final = 2_048  # at most 64 shards: all miss with a probability of 1e-14
PWD_CHARACTERS: Final = 32  # RFC 8445 section 5.3 wants 128 bits
_HOST_PREFERENCE: Final = 126  # RFC 8445 section 5.1.2.2
_TCP_PREFERENCE: Final = 90  # RFC 6544 section 4.2: below every kind of UDP but relays
_PASSIVE: Final = 4  # RFC 6544 section 4.2, direction preference
_COMPONENT: Final = 1  # rtcp-mux always
_INTERFACE: Final = re.compile(r"(?=.*[A-Za-z*])[A-Za-z0-9_.*?-]{1,15}")  # IFNAMSIZ - 1 of if.h

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Filter = Callable[[str, Address], bool]
"""Whether an address of the interface of this name is meant."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user fragment and its password: one generation of one transport."""

    ufrag: str
    pwd: str


def new_credentials(suits: Callable[[str], bool]) -> Credentials:
    """`suits`: whether the engine wants a transport with this ufrag where it would be at home."""
    ufrag = _random(UFRAG_CHARACTERS)
    for _ in range(_DRAWS):
        if suits(ufrag):
            break
        ufrag = _random(UFRAG_CHARACTERS)
    return Credentials(ufrag, _random(PWD_CHARACTERS))


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def address_filter(text: str) -> Filter:
    """A network (192.0.2.0/24), an address, or a pattern of interface names (docker*). Raises ValueError."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        if not _INTERFACE.fullmatch(text):
            raise ValueError(f"{text!r} is no network and no interface name") from None
        return lambda name, _: fnmatchcase(name, text)
    return lambda _, ip: ip in network


def offered(
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    local: tuple[tuple[str, str], ...],
    *,
    allow: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """The addresses that clients are told; empty when nothing is left.

    `advertise` wins: a NAT in front of us maps one to one, and what is written there is meant. Otherwise those
    of `listen`, a wildcard being all of `local` (interface, address) in its family. `deny` and `allow` are
    what `address_filter` takes: an address is told if none of the one means it and, when there are any, one of
    the other does. Raises ValueError for anything else in them. Without `allow` a wildcard leaves out loopback and link-local addresses, which nobody else could use.
    """
    if advertise:
        return advertise
    allowed = [address_filter(text) for text in allow]
    denied = [address_filter(text) for text in deny]
    names = {address: name for name, address in local}
    found: dict[str, None] = {}
    for text in listen:
        own = ipaddress.ip_address(text)
        for candidate in names if own.is_unspecified else (text,):
            ip, name = ipaddress.ip_address(candidate), names.get(candidate, "")
            is_useless = ip.is_loopback or ip.is_link_local
            if (
                ip.version != own.version
                or (own.is_unspecified and not allowed and is_useless)
                or any(is_meant(name, ip) for is_meant in denied)
                or (allowed and not any(is_meant(name, ip) for is_meant in allowed))
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
