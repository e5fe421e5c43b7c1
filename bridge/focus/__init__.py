"""The focus (RFC 4353): one task per live conference that gives commands an order and events to everybody.

Not here: the rules (`bridge.conference`), what listeners do with events (media, gateways).
"""

from bridge.focus.registry import Registry

__all__ = ["Registry"]
