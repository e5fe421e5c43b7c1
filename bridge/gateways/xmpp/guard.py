"""The stream's XML parser: bytes in, whole stanzas out, `Malformed` on anything a stream must not carry.

RFC 6120 section 11.1 forbids comments, processing instructions, document type declarations and entity
references; we add caps (S39): `MAX_STANZA_BYTES` of one stanza, `MAX_DEPTH` of nesting.
Messages name the fault, never the content: parse errors are logged.
Not here: the socket and what a stanza means (`link`, `inbound`).
"""

from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element
from xml.parsers import expat

from bridge.conference.errors import Malformed

MAX_STANZA_BYTES: Final = 256 * 1024  # ten times the largest session-initiate we have seen
MAX_DEPTH: Final = 64  # a forwarded Jingle description is 9 deep


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream header: an element without its children."""

    header: Element


@dataclass(frozen=True, slots=True)
class Stanza:
    """One complete direct child of the stream's root."""

    element: Element


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer closed the stream's root element."""


Item = Opened | Stanza | Ended


class Guard:
    """One per connection. After `Malformed` it is of no further use: drop the connection."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._open: list[Element] = []  # open elements below the root, outermost first
        self._depth = 0  # of open elements, the root included
        self._fed_bytes = 0
        self._complete_bytes = 0  # everything before this offset was delivered
        self._last_child: Element | None = None
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.EntityDeclHandler = self._refuse_entity
        parser.ExternalEntityRefHandler = self._refuse_external
        parser.SkippedEntityHandler = self._refuse_skipped
        parser.ProcessingInstructionHandler = self._refuse_instruction
        parser.CommentHandler = self._refuse_comment
        self._parser = parser

    def feed(self, data: bytes) -> list[Item]:
        """What these bytes complete. Raises `Malformed`; items before the fault are lost with the stream."""
        self._fed_bytes += len(data)
        try:
            self._parser.Parse(data, False)
        except expat.ExpatError as why:
            # `from None`: the library's message may be logged with the chain and names entities.
            raise Malformed(f"XML is not well-formed (expat code {why.code})") from None
        self._check_size(self._fed_bytes)
        items, self._items = self._items, []
        return items

    def _check_size(self, upto_bytes: int) -> None:
        if upto_bytes - self._complete_bytes > MAX_STANZA_BYTES:
            raise Malformed(f"stanza over {MAX_STANZA_BYTES} bytes")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Malformed(f"nested deeper than {MAX_DEPTH}")
        element = Element(_clark(name), {_clark(key): value for key, value in attributes.items()})
        self._last_child = None
        if self._depth <= 2:  # a stanza is counted from its own first byte
            self._complete_bytes = self._parser.CurrentByteIndex
        if self._depth == 1:
            self._items.append(Opened(element))
            return
        if self._depth > 2:
            self._open[-1].append(element)
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._items.append(Ended())
            return
        element = self._open.pop()
        self._last_child = element
        if self._depth == 1:
            start = self._parser.CurrentByteIndex
            self._check_size(start)
            self._complete_bytes = start
            self._last_child = None
            self._items.append(Stanza(element))

    def _text(self, data: str) -> None:
        if not self._open:  # whitespace keep-alive between stanzas, or junk that nobody reads
            self._complete_bytes = self._parser.CurrentByteIndex
        elif self._last_child is not None:
            self._last_child.tail = (self._last_child.tail or "") + data
        else:
            self._open[-1].text = (self._open[-1].text or "") + data

    def _refuse_doctype(self, *_: object) -> None:
        raise Malformed("document type declaration")

    def _refuse_entity(self, *_: object) -> None:
        raise Malformed("entity declaration")

    def _refuse_external(self, *_: object) -> int:
        raise Malformed("external entity")

    def _refuse_skipped(self, *_: object) -> None:
        raise Malformed("undeclared entity")

    def _refuse_instruction(self, *_: object) -> None:
        raise Malformed("processing instruction")

    def _refuse_comment(self, *_: object) -> None:
        raise Malformed("comment")


def _clark(name: str) -> str:
    """expat's `namespace}local` as ElementTree's `{namespace}local`."""
    return "{" + name if "}" in name else name
