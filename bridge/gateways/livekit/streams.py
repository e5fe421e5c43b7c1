"""What one client hears about single streams: pauses of those it receives, layers of those it sends.

StreamStateUpdate and SubscribedQualityUpdate (dynacast), fact sheet section 2.4.
Not here: when either happens (the worker), its own wishes (`requests`).
"""

from typing import TYPE_CHECKING

from livekit.protocol import rtc

from bridge.conference.ids import TrackId
from bridge.gateway import LayersWanted, StreamPaused
from bridge.gateways.livekit import wire

if TYPE_CHECKING:
    from bridge.gateways.livekit.device import Device


class Streams:
    """Of one device. Remembers what a client that was cut off must hear again."""

    def __init__(self, device: "Device") -> None:
        self._device = device
        self._paused: set[TrackId] = set()
        self._wanted: dict[TrackId, int] = {}  # highest layer of own tracks

    def pause(self, signal: StreamPaused) -> None:
        (self._paused.add if signal.paused else self._paused.discard)(signal.track)
        self._tell_state(signal.track, signal.paused)

    def want(self, signal: LayersWanted) -> None:
        self._wanted[signal.track] = signal.highest
        self._tell_wanted(signal.track)

    def forget(self, track: TrackId) -> None:
        """An own track ended."""
        self._wanted.pop(track, None)

    def resume(self) -> None:
        """The client missed messages: the state as it is now."""
        for track in tuple(self._paused):
            self._tell_state(track, True)
        for track in self._wanted:
            self._tell_wanted(track)

    def _tell_state(self, track: TrackId, paused: bool) -> None:
        device = self._device
        legs = device.services.rooms.legs(device.conference.id)
        owner = next((leg.id for leg in legs if any(t.id == track for t in leg.tracks)), None)
        if owner is None:
            self._paused.discard(track)
            return
        state = rtc.StreamState.PAUSED if paused else rtc.StreamState.ACTIVE
        info = rtc.StreamStateInfo(participant_sid=owner, track_sid=track, state=state)
        update = rtc.StreamStateUpdate(stream_states=[info])
        device.send(rtc.SignalResponse(stream_state_update=update))

    def _tell_wanted(self, wanted: TrackId) -> None:
        leg = self._device.leg
        track = None if leg is None else next((t for t in leg.tracks if t.id == wanted), None)
        if track is not None:
            message = wire.subscribed_quality(track, self._wanted[wanted])
            self._device.send_latest(f"layers {wanted}", message.SerializeToString())
