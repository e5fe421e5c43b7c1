"""The HTTP listeners: public, internal (appservice) and ops; gateways hand in their routes before start.

Not here: what the routes do (gateways), outgoing requests (`bridge.fetch`).
"""

from collections.abc import Awaitable, Callable
from enum import Enum

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listener(Enum):
    """Which socket serves a route. OPS stays on loopback by default (S44)."""

    PUBLIC = "public"
    INTERNAL = "internal"
    OPS = "ops"


class Http:
    """Collects routes, then serves them."""

    def route(self, listener: Listener, method: str, path: str, handler: Handler) -> None:
        """Serve `path` (aiohttp pattern). Raises ValueError when two gateways want the same one."""
        raise NotImplementedError
