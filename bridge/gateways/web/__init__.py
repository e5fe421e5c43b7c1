"""Browser guests: the page, its invitation, and the token it joins with.

Media, mute, roster and chat of a guest run over the livekit gateway (house.md section 7, "The page").
Not here: signalling (`bridge.gateways.livekit`), the page's sources (`web/`).
"""

from bridge.gateways.web.gateway import create

__all__ = ["create"]
