"""One m-line of a session: what was agreed, and what the engine receives and sends on it.

RFC 8829 section 5, RFC 8830 (msid), RFC 5576 (sources), RFC 8853 (simulcast).
Not here: which track belongs on which line (`sfu.session`), codec choice (`sfu.negotiation`).
"""

from typing import Final

from sfu import negotiation
from sfu.datachannel import MAX_MESSAGE_BYTES, SCTP_PORT
from sfu.description import (
    Codec,
    Direction,
    Extension,
    Malformed,
    MediaKind,
    Rid,
    Section,
    Source,
    SourceGroup,
)
from sfu.description import Transport as TransportDescription
from sfu.plane import Plane, Receiving, Sending
from sfu.tracks import Stream, Subscription, Track
from sfu.transport import Transport

_MAX_ENGINE_MID: Final = 16  # bytes
_URI_MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
_DIRECTIONS: Final = {
    (True, True): Direction.SENDRECV,
    (True, False): Direction.SENDONLY,
    (False, True): Direction.RECVONLY,
    (False, False): Direction.INACTIVE,
}


class Line:
    """A section of this session, from its first mention to the end of the session; mids only grow."""

    def __init__(
        self, plane: Plane, mid: str, kind: MediaKind, transport: Transport, *, creator_is_us: bool
    ) -> None:
        self._plane: Final = plane
        self.mid: Final = mid
        self.kind: Final = kind
        self.transport: Final = transport
        self.creator_is_us: Final = creator_is_us
        self.remote: Section | None = None  # as the peer last wrote it
        self.is_rejected = False
        self.is_agreed = False  # both sides have spoken
        self.receiving: tuple[Codec, ...] = ()  # payload types the peer uses
        self.sending: tuple[Codec, ...] = ()  # payload types we use
        self.extensions: tuple[Extension, ...] = ()
        self.track: Track | None = None  # what the peer publishes here
        self.subscription: Subscription | None = None  # what we forward here (EACH)
        self.stream: Stream | None = None  # the outgoing stream, of the subscription or of the line
        self._received: Receiving | None = None
        self._sent: Sending | None = None

    @property
    def peer_sends(self) -> bool:
        return self._is_usable and self.remote is not None and self.remote.direction.sends

    @property
    def peer_receives(self) -> bool:
        return self._is_usable and self.remote is not None and self.remote.direction.receives

    @property
    def _is_usable(self) -> bool:
        return not self.is_rejected and self.kind is not MediaKind.APPLICATION

    # --- upstream

    def carry_up(self, track: Track, group: int) -> None:
        """Receive `track` here, or follow what changed in the section."""
        stream = self._receive_stream(track)
        if self.track is not track:
            self.drop_up()
        if track.publication is None:
            track.publication = self._plane.publish(self.transport.handle, group, stream)
            if not track.is_open:
                self._plane.set_gate(track.publication, False)
        elif stream != self._received:
            self._plane.update_publication(track.publication, stream)
        self._received = stream
        self.track = track
        track.mid = self.mid
        track.codecs = self.receiving

    def drop_up(self) -> Track | None:
        """Receive nothing here any more; the track that ended."""
        track, self.track, self._received = self.track, None, None
        if track is not None:
            if track.publication is not None:
                self._plane.unpublish(track.publication)
            track.publication = None
            track.mid = ""
        return track

    def _receive_stream(self, track: Track) -> Receiving:
        remote = self.remote
        if remote is None:
            raise Malformed("a track on a section the peer never described")
        return Receiving(
            mid=self._engine_mid(),
            kind=self.kind,
            codecs=self.receiving,
            extensions=self.extensions,
            rids=self._rids(track),
            ssrcs=negotiation.layer_ssrcs(remote),
            encrypted=track.encrypted,
        )

    def _rids(self, track: Track | None) -> tuple[str, ...]:
        if self.remote is None or all(e.uri != negotiation.URI_RID for e in self.extensions):
            return ()
        return negotiation.layer_rids(self.remote, track.layers if track is not None else ())

    # --- downstream

    def open_down(self, stream: Stream) -> None:
        """Send `stream` here. Its SSRCs stay; only new codecs or another stream make a new engine stream."""
        sent = Sending(
            mid=self._engine_mid(),
            kind=self.kind,
            codecs=self.sending,
            extensions=self.extensions,
            ssrc=stream.ssrc,
            rtx_ssrc=stream.rtx_ssrc if _has_rtx(self.sending) else 0,
            cname=stream.cname,
        )
        if self.stream is stream and stream.subscription is not None and sent == self._sent:
            return
        self.close_down()
        self.stream = stream
        if self.is_agreed and not self.is_rejected and negotiation.has_media(self.sending):
            stream.subscription = self._plane.subscribe(self.transport.handle, sent)
            self._sent = sent

    def close_down(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None and stream.subscription is not None:
            self._plane.unsubscribe(stream.subscription)
            stream.detached()

    # --- writing

    def write(
        self,
        transport: TransportDescription,
        codecs: tuple[Codec, ...],
        *,
        sends: bool,
        receives: bool,
    ) -> Section:
        """This line as we describe it to the peer."""
        if self.is_rejected:
            return self._rejection(transport)
        if self.kind is MediaKind.APPLICATION:
            return Section(
                mid=self.mid,
                kind=self.kind,
                direction=Direction.SENDRECV,
                transport=transport,
                sctp_port=SCTP_PORT,
                max_message_size=MAX_MESSAGE_BYTES,
                creator_initiator=self._creator_initiator,
            )
        stream = self.stream if sends else None
        subscription = self.subscription if sends else None
        sources, groups = _sources(stream, codecs, subscription)
        return Section(
            mid=self.mid,
            kind=self.kind,
            direction=_DIRECTIONS[sends, receives],
            transport=transport,
            codecs=codecs,
            extensions=self.extensions,
            sources=sources,
            source_groups=groups,
            rids=tuple(Rid(rid, send=False) for rid in self._rids(self.track)) if receives else (),
            stream=_label(stream, subscription)[0],
            track=_label(stream, subscription)[1],
            creator_initiator=self._creator_initiator,
            # We read both forms whatever the peer says; only an answer must not name what was not offered.
            mixed_extensions=self.remote.mixed_extensions if self.remote is not None else True,
        )

    def _rejection(self, transport: TransportDescription) -> Section:
        remote = self.remote
        return Section(
            mid=self.mid,
            kind=self.kind,
            direction=Direction.INACTIVE,
            transport=transport,
            # A rejected m-line still needs a format (RFC 3264 section 6).
            codecs=remote.codecs if remote is not None else self.receiving,
            rejected=True,
            sctp_port=remote.sctp_port if remote is not None else None,
            creator_initiator=self._creator_initiator,
        )

    @property
    def _creator_initiator(self) -> bool:
        return self.remote.creator_initiator if self.remote is not None else True

    def _engine_mid(self) -> str:
        if len(self.mid.encode()) <= _MAX_ENGINE_MID:
            return self.mid
        if any(e.uri == _URI_MID for e in self.extensions):
            raise Malformed("mid longer than its header extension can carry")
        return ""


def _has_rtx(codecs: tuple[Codec, ...]) -> bool:
    return any(c.name.lower() == "rtx" for c in codecs)


def _label(
    stream: Stream | None, subscription: Subscription | None
) -> tuple[str | None, str | None]:
    """The two words of our msid."""
    if stream is None:
        return None, None
    if subscription is None:
        return stream.cname, f"{stream.cname}-{stream.ssrc}"
    return subscription.stream_label or "-", subscription.track_label or subscription.track.id


def _sources(
    stream: Stream | None, codecs: tuple[Codec, ...], subscription: Subscription | None
) -> tuple[tuple[Source, ...], tuple[SourceGroup, ...]]:
    if stream is None:
        return (), ()
    label, track = _label(stream, subscription)
    attributes = (("cname", stream.cname), ("msid", f"{label} {track}"))
    if not stream.rtx_ssrc or not _has_rtx(codecs):
        return (Source(stream.ssrc, attributes),), ()
    pair = (stream.ssrc, stream.rtx_ssrc)
    return tuple(Source(ssrc, attributes) for ssrc in pair), (SourceGroup("FID", pair),)
