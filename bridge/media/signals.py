"""The worker's events in the gateways' words. Pure.

Not here: whom a signal goes to (`media.media`).
"""

from bridge.conference.ids import TrackId
from bridge.gateway import (
    ChannelMessage,
    LayersWanted,
    MediaSignal,
    NegotiationWanted,
    QualityGrade,
    SessionSilent,
    SessionUp,
    Speaking,
    StreamPaused,
    TrackIsLive,
)
from bridge.media.room import Room
from sfu import protocol


def translate(event: protocol.Event) -> MediaSignal | None:
    """None: nothing a gateway needs to hear."""
    match event:
        case protocol.Connected(session=session):
            return SessionUp(session)
        case protocol.Disconnected(session=session):
            return SessionSilent(session)
        case protocol.NegotiationNeeded():
            return NegotiationWanted(event.session, event.audios, event.videos, event.changed)
        case protocol.TrackLive(session=session, track=track, codec=codec):
            return TrackIsLive(session, TrackId(track), codec)
        case protocol.LayersWanted(session=session, track=track, highest=highest):
            return LayersWanted(session, TrackId(track), highest)
        case protocol.StreamState(session=session, track=track, paused=paused):
            return StreamPaused(session, TrackId(track), paused)
        case protocol.Quality(session=session, grade=grade):
            return QualityGrade(session, grade)
        case protocol.Message():
            return ChannelMessage(event.session, event.channel, event.data, event.binary)
        case _:
            return None


def speaking(room: Room, event: protocol.Speakers) -> Speaking:
    """Without those whom nobody may hear: a held or hidden track is no speaker."""
    levels = []
    for level in event.levels:
        track = room.audible(TrackId(level.track))
        if track is not None:
            levels.append((track.leg, track.id, level.level, level.active))
    dominant = room.audible(TrackId(event.dominant)) if event.dominant else None
    recent = [room.audible(TrackId(track)) for track in event.recent]
    return Speaking(
        tuple(levels),
        None if dominant is None else dominant.id,
        tuple(track.id for track in recent if track is not None),
        event.margin,
    )
