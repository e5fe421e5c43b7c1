"""What our addresses say they can do: service discovery and entity capabilities.

XEP-0030 (disco#info, disco#items), XEP-0115 (caps, version string of section 5), XEP-0199 (ping).
COMPAT: the focus is `client/pc`: Dino 0.4.2 offers calls to it; `conference/text` would hide the button
(protocol facts, re-check 2027-06).
Not here: which addresses exist (`inbound`).
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jmi import JMI
from bridge.gateways.xmpp.stanza import add

INFO: Final = "http://jabber.org/protocol/disco#info"
ITEMS: Final = "http://jabber.org/protocol/disco#items"
CAPS: Final = "http://jabber.org/protocol/caps"
PING: Final = "urn:xmpp:ping"
NODE: Final = "https://parley.example/caps"  # names the software, need not resolve (section 5.1)
MAX_FEATURES: Final = 512  # read from a peer's answer


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Identity and features of one kind of address. Features are sorted by construction."""

    category: str
    kind: str
    name: str
    features: tuple[str, ...]

    @property
    def version(self) -> str:
        """XEP-0115 section 5.1; SHA-1 is what the XEP and every client use, it protects nothing here."""
        text = f"{self.category}/{self.kind}//{self.name}<" + "".join(
            f"{f}<" for f in self.features
        )
        return base64.b64encode(
            hashlib.sha1(text.encode(), usedforsecurity=False).digest()
        ).decode()


FOCUS: Final = Capabilities(
    "client",
    "pc",
    "Parley",
    tuple(
        sorted(
            (
                INFO,
                CAPS,
                PING,
                v.JINGLE,
                v.RTP,
                "urn:xmpp:jingle:apps:rtp:audio",
                "urn:xmpp:jingle:apps:rtp:video",
                v.ICE,
                v.DTLS,
                v.GROUPING,
                v.FEEDBACK,
                v.HEADER_EXTENSIONS,
                v.SOURCES,
                JMI,
            )
        )
    ),
)
PUPPET: Final = Capabilities("client", "bot", "Parley", tuple(sorted((INFO, CAPS, PING))))
COMPONENT: Final = Capabilities(
    "component", "generic", "Parley", tuple(sorted((INFO, ITEMS, PING)))
)


def put_caps(presence: Element, capabilities: Capabilities) -> None:
    add(presence, CAPS, "c", hash="sha-1", node=NODE, ver=capabilities.version)


def put_info(result: Element, capabilities: Capabilities, node: str) -> None:
    query = add(result, INFO, "query")
    if node:
        query.set("node", node)
    add(
        query,
        INFO,
        "identity",
        category=capabilities.category,
        type=capabilities.kind,
        name=capabilities.name,
    )
    for feature in capabilities.features:
        add(query, INFO, "feature", var=feature)


def features_of(answer: Element) -> frozenset[str]:
    """The features in a peer's disco#info result; at most `MAX_FEATURES` are read."""
    query = answer.find(f"{{{INFO}}}query")
    found: Iterable[Element] = () if query is None else query.findall(f"{{{INFO}}}feature")
    return frozenset(f.get("var", "") for f, _ in zip(found, range(MAX_FEATURES), strict=False))
