"""What the parts of this gateway need of the stream, so that tests can stand in for it.

Not here: the stream (`link`).
"""

from typing import Protocol
from xml.etree.ElementTree import Element


class Wire(Protocol):
    domain: str

    def send(self, stanza: Element) -> None:
        """Raises `Unavailable` when there is no connection."""

    async def request(self, iq: Element, *, timeout_s: float) -> Element:
        """The result. Raises `link.RequestFailed` (a `Refused`) or `Unavailable`."""
