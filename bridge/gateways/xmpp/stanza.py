"""Stanzas as ElementTree elements: namespaces, addresses, builders, and the one serializer.

RFC 6120 section 8 (stanzas, errors), RFC 7622 (addresses). Inside the gateway every stanza is in
`jabber:client`; the link translates to and from the component's own namespace (XEP-0114).
Not here: parsing bytes (`guard`), sockets (`link`), payloads (one module each).
"""

import re
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import escape, quoteattr

from bridge.conference.errors import Malformed

CLIENT: Final = "jabber:client"
COMPONENT: Final = "jabber:component:accept"
STANZAS: Final = "urn:ietf:params:xml:ns:xmpp-stanzas"
XML: Final = "http://www.w3.org/XML/1998/namespace"

MESSAGE: Final = f"{{{CLIENT}}}message"
PRESENCE: Final = f"{{{CLIENT}}}presence"
IQ: Final = f"{{{CLIENT}}}iq"
BODY: Final = f"{{{CLIENT}}}body"
SUBJECT: Final = f"{{{CLIENT}}}subject"
ERROR: Final = f"{{{CLIENT}}}error"

MAX_JID: Final = 3071  # bytes, RFC 7622 section 3.1
MAX_ID: Final = 1023  # characters of a stanza id; ours, no specification sets one

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Jid:
    """An address, split. The server has prepared it (RFC 7622); we only fold the case of node and domain."""

    node: str
    domain: str
    resource: str = ""

    @property
    def bare(self) -> str:
        return f"{self.node}@{self.domain}" if self.node else self.domain

    def __str__(self) -> str:
        return f"{self.bare}/{self.resource}" if self.resource else self.bare

    def at(self, resource: str) -> "Jid":
        return Jid(self.node, self.domain, resource)


def parse_jid(text: str | None) -> Jid:
    """Raises `Malformed` when there is no domain or the address is too long."""
    if not text or len(text.encode("utf-8", "replace")) > MAX_JID:
        raise Malformed("address missing or too long")
    bare, _, resource = text.partition("/")
    node, at, domain = bare.rpartition("@")
    if not domain or (at and not node):
        raise Malformed("address without a domain")
    return Jid(node.lower(), domain.lower(), resource)


def bare_of(text: str) -> str:
    """The bare address in folded form, for comparison with configured ones."""
    return parse_jid(text).bare


def add(
    parent: Element, namespace: str, tag: str, text: str | None = None, /, **attributes: str
) -> Element:
    """A child of `parent`; the namespace is explicit because Jingle mixes a dozen of them."""
    child = SubElement(parent, f"{{{namespace}}}{tag}", attributes)
    child.text = text
    return child


def message(to: str, sender: str, kind: str, *, id: str = "") -> Element:
    return _stanza(MESSAGE, to, sender, kind, id)


def presence(to: str, sender: str, kind: str = "") -> Element:
    return _stanza(PRESENCE, to, sender, kind, "")


def iq(to: str, sender: str, kind: str, id: str) -> Element:
    return _stanza(IQ, to, sender, kind, id)


def _stanza(tag: str, to: str, sender: str, kind: str, id: str) -> Element:
    element = Element(tag, {"to": to, "from": sender})
    if kind:
        element.set("type", kind)
    if id:
        element.set("id", id)
    return element


def result_of(request: Element) -> Element:
    """The empty result of an iq request."""
    return iq(request.get("from", ""), request.get("to", ""), "result", request.get("id", ""))


def error_of(
    stanza: Element,
    kind: str,
    condition: str,
    *,
    detail: tuple[str, str] | None = None,
    text: str = "",
) -> Element:
    """An error answer (RFC 6120 section 8.3). `detail` = namespace and name of the application's condition."""
    answer = _stanza(
        stanza.tag, stanza.get("from", ""), stanza.get("to", ""), "error", stanza.get("id", "")
    )
    error = add(answer, CLIENT, "error", type=kind)
    add(error, STANZAS, condition)
    if text:
        add(error, STANZAS, "text", text)
    if detail is not None:
        add(error, detail[0], detail[1])
    return answer


def condition_of(stanza: Element) -> str:
    """The defined condition of an error stanza, or `undefined-condition`."""
    error = stanza.find(ERROR)
    for child in error if error is not None else ():
        if child.tag.startswith(f"{{{STANZAS}}}") and not child.tag.endswith("}text"):
            return child.tag.partition("}")[2]
    return "undefined-condition"


def rename(element: Element, old: str, new: str) -> None:
    """Move every element of one namespace into another, in place (the component's stream and back)."""
    prefix = f"{{{old}}}"
    for node in element.iter():
        if node.tag.startswith(prefix):
            node.tag = f"{{{new}}}{node.tag[len(prefix) :]}"


def serialize(element: Element, namespace: str = "") -> str:
    """XML text, with `xmlns` wherever the namespace differs from the parent's.

    Characters that XML 1.0 cannot carry are dropped: text from another network may hold them, and one
    would end the whole stream.
    """
    parts: list[str] = []
    _write(element, namespace, parts)
    return "".join(parts)


def _write(element: Element, inherited: str, parts: list[str]) -> None:
    namespace, _, name = (
        element.tag[1:].partition("}") if element.tag[0] == "{" else ("", "", element.tag)
    )
    parts.append(f"<{name}")
    if namespace != inherited:
        parts.append(f" xmlns={quoteattr(namespace)}")
    for key, value in element.items():
        plain = key.replace(f"{{{XML}}}", "xml:")
        if not plain.startswith("{"):  # no attribute we print has another namespace
            parts.append(f" {plain}={quoteattr(_clean(value))}")
    if not len(element) and not element.text:
        parts.append("/>")
        return
    parts.append(">" + escape(_clean(element.text or "")))
    for child in element:
        _write(child, namespace, parts)
        parts.append(escape(_clean(child.tail or "")))
    parts.append(f"</{name}>")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", text)
