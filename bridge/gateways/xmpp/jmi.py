"""Jingle Message Initiation: message payload <-> frozen value (XEP-0353 sections 3 and 4).

Pure: elements in, values out, `Malformed` on anything a peer must not send.
Not here: who is rung and answered (`calls`), stanza transport (`link`).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final
from xml.etree.ElementTree import Element

from bridge.conference.errors import Malformed
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.parse import MAX_SID
from bridge.gateways.xmpp.stanza import add

JMI: Final = "urn:xmpp:jingle-message:0"
HINTS: Final = "urn:xmpp:hints"
MAX_MEDIA: Final = 8  # descriptions of one propose


class Verb(Enum):
    PROPOSE = "propose"
    RINGING = "ringing"
    PROCEED = "proceed"
    REJECT = "reject"
    RETRACT = "retract"
    FINISH = "finish"
    ACCEPT = "accept"  # COMPAT: version 0.3 of the XEP, to the sender's own devices; nothing to do


@dataclass(frozen=True, slots=True)
class Jmi:
    """`media` keeps the sender's order and is empty for everything but propose."""

    verb: Verb
    sid: str
    media: tuple[str, ...] = ()
    reason: str = ""


def find_jmi(message: Element) -> Jmi | None:
    """The Jingle message in this stanza, None if there is none. Raises `Malformed`."""
    for child in message:
        if child.tag.startswith(f"{{{JMI}}}"):
            return parse_jmi(child)
    return None


def parse_jmi(node: Element) -> Jmi:
    try:
        verb = Verb(node.tag.partition("}")[2])
    except ValueError:
        raise Malformed("unknown jingle message") from None
    sid = node.get("id", "")
    if not 0 < len(sid) <= MAX_SID:
        raise Malformed(f"jingle message id of {len(sid)} characters")
    descriptions = node.findall(f"{{{v.RTP}}}description")
    if len(descriptions) > MAX_MEDIA:
        raise Malformed(f"more than {MAX_MEDIA} descriptions")
    media = tuple(d.get("media", "") for d in descriptions) if verb is Verb.PROPOSE else ()
    if verb is Verb.PROPOSE and (not media or not set(media) <= {"audio", "video"}):
        raise Malformed("propose without a media kind")
    reason = node.find(f"{{{v.JINGLE}}}reason")
    condition = next((c.tag.partition("}")[2] for c in reason), "") if reason is not None else ""
    return Jmi(verb, sid, media, condition[:64])


def put_jmi(message: Element, jmi: Jmi) -> Element:
    """Add the payload to a message; `store` asks servers to keep it for offline devices (section 3)."""
    node = add(message, JMI, jmi.verb.value, id=jmi.sid)
    for media in jmi.media:
        add(node, v.RTP, "description", media=media)
    if jmi.reason:
        add(add(node, v.JINGLE, "reason"), v.JINGLE, jmi.reason)
    add(message, HINTS, "store")
    return message
