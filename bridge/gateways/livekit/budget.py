"""A client's cap on what it is sent: a data packet to the server, for links that are paid for by the byte. Pure.

Ours, not LiveKit's: a user packet on topic `parley.budget`, JSON `{"type": "budget", "bps": 500000}`; 0 or null lifts
it. It goes to nobody else.
Not here: what keeps to it (the worker), the packet on its way (`packets`).
"""

import json
from typing import Final

from livekit.protocol import models

from bridge.conference.errors import Malformed

TOPIC: Final = "parley.budget"
MAX_BYTES: Final = 256
MAX_BPS: Final = 100_000_000  # more is no cap: the engine never believes in more


def is_budget(packet: models.DataPacket) -> bool:
    return packet.WhichOneof("value") == "user" and packet.user.topic == TOPIC


def read_bps(packet: models.DataPacket) -> int:
    """Bits per second, 0 = no cap. Raises `Malformed`."""
    payload = packet.user.payload
    if len(payload) > MAX_BYTES:
        raise Malformed("budget: too long")
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as why:
        raise Malformed("budget: no JSON") from why
    if not isinstance(message, dict) or message.get("type") != "budget" or "bps" not in message:
        raise Malformed("budget: not one")
    bps = message["bps"]
    if bps is None:
        return 0
    if not isinstance(bps, int) or isinstance(bps, bool) or bps < 0:
        raise Malformed("budget: no number of bits per second")
    return min(bps, MAX_BPS)
