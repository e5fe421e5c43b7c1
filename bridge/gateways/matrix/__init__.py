"""Matrix: an appservice with a bot, ghosts, call memberships, text and `!conf`."""

from bridge.gateways.matrix.door import create

__all__ = ["create"]
