"""TURN servers for a client: addresses and a password that soon means nothing (S17).

The time-limited credentials that coturn calls `use-auth-secret` (draft-uberti-behave-turn-rest-00, section 2.2):
the user name is the time of expiry and a name, the password an HMAC-SHA1 of it under the shared secret.
Not here: TURN itself (coturn), when a client needs it (its ICE).
"""

import base64
import hashlib
import hmac

from livekit.protocol import rtc

from bridge.config import TurnSection


def ice_servers(turn: TurnSection | None, name: str, now_s: float) -> list[rtc.ICEServer]:
    """What this client may use from now on. `name` tells coturn whose allocations count together."""
    if turn is None:
        return []
    username = f"{int(now_s) + turn.ttl_s}:{name}"
    digest = hmac.new(
        turn.secret.get_secret_value().encode(), username.encode(), hashlib.sha1
    ).digest()
    credential = base64.b64encode(digest).decode()
    return [rtc.ICEServer(urls=turn.urls, username=username, credential=credential)]
