"""Which LiveKit legs are here, and telling them what happens in their conference (outbound).

Not here: one leg's life (`device`), the messages (`wire`), the truth about who is in (`Context.view`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit.protocol import rtc

from bridge.conference.events import (
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    Said,
    TrackMuted,
    TrackPublished,
    TrackUnpublished,
)
from bridge.conference.ids import ConferenceId, LegId
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Context
from bridge.gateways.livekit import wire
from bridge.gateways.livekit.news import News, news_of

if TYPE_CHECKING:
    from bridge.gateways.livekit.device import Device


@dataclass(slots=True)
class _Room:
    """While one of our devices is in."""

    devices: dict[LegId, "Device"] = field(default_factory=dict)
    # leg -> what was encoded last, and of which values
    news: dict[LegId, tuple[Leg, wire.Extras | None, News]] = field(default_factory=dict)


class Rooms:
    """Devices by leg and by conference."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._devices: dict[LegId, Device] = {}
        self._rooms: dict[ConferenceId, _Room] = {}

    def add(self, device: "Device") -> None:
        self._devices[device.leg_id] = device
        self._rooms.setdefault(device.conference.id, _Room()).devices[device.leg_id] = device

    def remove(self, device: "Device") -> None:
        self._devices.pop(device.leg_id, None)
        room = self._rooms.get(device.conference.id, _Room())
        room.devices.pop(device.leg_id, None)
        if not room.devices:
            self._rooms.pop(device.conference.id, None)

    def get(self, leg: LegId) -> "Device | None":
        return self._devices.get(leg)

    def all(self) -> Sequence["Device"]:
        return tuple(self._devices.values())

    def of(self, conference: ConferenceId) -> Sequence["Device"]:
        room = self._rooms.get(conference)
        return () if room is None else tuple(room.devices.values())

    def legs(self, conference: ConferenceId) -> Sequence[Leg]:
        return self._context.view(conference)

    def extras(self, leg: LegId) -> wire.Extras | None:
        device = self._devices.get(leg)
        return None if device is None else device.extras

    def news(self, leg: Leg, conference: ConferenceId) -> News:
        """The leg as the others see it."""
        room = self._rooms.get(conference, _Room())
        extras = self.extras(leg.id)
        known = room.news.get(leg.id)
        if known is not None and known[0] is leg and known[1] == extras:
            return known[2]
        news = news_of(wire.participant_info(leg, extras))
        room.news[leg.id] = (leg, extras, news)
        return news

    def notify(self, record: ConferenceRecord, events: Iterable[Event]) -> None:
        devices = self.of(record.id)
        if not devices:
            return
        is_counted = False
        for event in events:
            match event:
                case Joined() | LegChanged() | TrackPublished() | TrackUnpublished():
                    self._tell(devices, record.id, event.leg)
                    if isinstance(event, TrackUnpublished):
                        self._untrack(event)
                case TrackMuted():
                    self._tell(devices, record.id, event.leg)
                    self._hold(event)
                case Left():
                    self._part(devices, record.id, event)
                case Said():
                    self._say(devices, record, event)
                case _:
                    continue
            is_counted = is_counted or not isinstance(event, LegChanged | TrackMuted | Said)
        if is_counted:
            self._count(record)

    def tell_of(self, leg: Leg) -> None:
        """Something that only we know of this leg changed."""
        device = self._devices.get(leg.id)
        if device is not None:
            self._tell(self.of(device.conference.id), device.conference.id, leg)

    def seen(self, tracks: set[str], conference: ConferenceId) -> None:
        """Somebody was offered these tracks: their publishers hear it, once."""
        for leg in self.legs(conference):
            device = self._devices.get(leg.id)
            if device is not None:
                device.is_seen({track.id for track in leg.tracks} & tracks)

    def _tell(self, devices: Sequence["Device"], conference: ConferenceId, leg: Leg) -> None:
        news = (self.news(leg, conference),)
        for device in devices:
            if device.leg_id == leg.id:
                own = wire.participant_info(leg, device.extras, to_itself=True)
                device.update((news_of(own),))
            elif not leg.hidden:
                device.update(news)

    def _part(self, devices: Sequence["Device"], conference: ConferenceId, event: Left) -> None:
        self._rooms[conference].news.pop(event.leg.id, None)
        gone = (news_of(wire.departed_info(event.leg, event.reason, self.extras(event.leg.id))),)
        for device in devices:
            if device.leg_id == event.leg.id:
                device.parted(event.reason)
            elif not event.leg.hidden:
                device.update(gone)

    def _hold(self, event: TrackMuted) -> None:
        """A moderator mutes: the publisher's client stops sending. Lifting it is its own decision."""
        device = self._devices.get(event.leg.id)
        if device is not None and event.track.forced and event.by is not None:
            mute = rtc.MuteTrackRequest(sid=event.track.id, muted=True)
            device.send(rtc.SignalResponse(mute=mute))

    def _untrack(self, event: TrackUnpublished) -> None:
        device = self._devices.get(event.leg.id)
        if device is not None:
            device.unpublished(event.track.id)

    def _say(self, devices: Sequence["Device"], record: ConferenceRecord, said: Said) -> None:
        mine = [leg for leg in self.legs(record.id) if leg.account == said.by.account]
        author = next((leg for leg in mine if not leg.hidden), None)
        identity = said.by.account.address if author is None else str(author.identity)
        for device in devices:
            device.hear(said, identity)

    def _count(self, record: ConferenceRecord) -> None:
        codecs = self._context.config.livekit.video_codecs
        room = wire.room_info(record, self.legs(record.id), codecs)
        data = rtc.SignalResponse(room_update=rtc.RoomUpdate(room=room)).SerializeToString()
        for device in self.of(record.id):
            device.send_latest("room", data)
