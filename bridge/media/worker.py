"""What media needs of the worker's client, and its errors in our words.

Not here: sockets, reconnecting and spawning (`sfu.client`).
"""

from collections.abc import AsyncIterator
from typing import Protocol

from bridge.conference.errors import ConferenceError, Malformed, Refused, Unavailable
from sfu import client, protocol


class Worker(Protocol):
    """Kept by `sfu.client.Client`. Requests are written in the order of the calls, also after a reconnect."""

    async def request(self, command: protocol.Command) -> protocol.Reply:
        """The worker's answer, in bounded time. Raises `sfu.client.ClientError`."""

    def events(self) -> AsyncIterator[client.Happening]:
        """Everything that happens, in order; every connection begins with `Adopted`."""


def fault(error: client.ClientError) -> ConferenceError:
    match error:
        case client.PeerMalformed():
            return Malformed(str(error) or "malformed description")
        case client.Refused():
            return Refused(str(error) or "The media worker refused.")
        case client.UnknownSession() | client.UnknownTrack() | client.ChannelGone():
            return Refused("This media session is over; join again.")
        case _:
            return Unavailable(str(error) or "The media worker failed; try again.")
