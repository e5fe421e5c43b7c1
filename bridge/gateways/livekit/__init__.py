"""The livekit gateway: LiveKit SDKs, Element Call and the guest page come in here; see docs/gateways/livekit.md."""

from bridge.gateways.livekit.gateway import create

__all__ = ["create"]
