"""Data packets between LiveKit legs: stamped, addressed, relayed.

livekit/protocol DataPacket (2026-08) over the channels `_reliable` and `_lossy`. The server stamps who
sent it; what only servers send (speaker updates) is dropped. Encrypted packets pass as they are.
Pure. Not here: chat (`chat`), sending (`device`), channels and their back-pressure (the worker).
"""

from collections.abc import Iterable
from typing import Final

from livekit.protocol import models

from bridge.conference.errors import Malformed
from bridge.conference.events import Leg
from bridge.conference.ids import LegId
from bridge.gateways.livekit import frames

MAX_PACKET_BYTES: Final = 64 * 1024  # S13; LiveKit's SDKs keep below 15 kB
MAX_DESTINATIONS: Final = 512
_RELAYED: Final = frozenset(
    {
        "user",
        "sip_dtmf",
        "transcription",
        "metrics",
        "rpc_request",
        "rpc_ack",
        "rpc_response",
        "stream_header",
        "stream_chunk",
        "stream_trailer",
        "encrypted_packet",
    }
)


async def read_packet(data: bytes) -> models.DataPacket:
    """Raises `Malformed`."""
    packet = await frames.read_message(models.DataPacket, data, MAX_PACKET_BYTES)
    if len(packet.destination_identities) > MAX_DESTINATIONS:
        raise Malformed("too many destinations")
    return packet


def is_relayed(packet: models.DataPacket) -> bool:
    return packet.WhichOneof("value") in _RELAYED


def stamp(packet: models.DataPacket, sender: Leg) -> None:
    """Write who really sent it, over whatever the sender claims."""
    packet.participant_identity = sender.identity
    packet.participant_sid = sender.id
    if packet.WhichOneof("value") == "user":
        packet.user.participant_identity = sender.identity
        packet.user.participant_sid = sender.id


def receivers(packet: models.DataPacket, sender: Leg, legs: Iterable[Leg]) -> list[LegId]:
    """Everybody else, or those it names (by identity; older clients by sid)."""
    identities = set(packet.destination_identities)
    sids: set[str] = set()
    if packet.WhichOneof("value") == "user":
        identities |= set(packet.user.destination_identities)
        sids = set(packet.user.destination_sids)
    named = identities or sids
    return [
        leg.id
        for leg in legs
        if leg.id != sender.id
        and leg.gateway == sender.gateway
        and (not named or leg.identity in identities or leg.id in sids)
    ]
