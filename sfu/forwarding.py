"""What one peer receives: its subscriptions, and the lines that carry them.

EACH: a line per subscription, kept while it lasts, used again afterwards. COMPACT: a stream per kind that
follows the speaker (`sfu.group` moves it).
Not here: what the peer publishes (`sfu.upstream`), when to negotiate (`sfu.session`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sfu import protocol
from sfu.description import Downstream, MediaKind, Profile, Wish
from sfu.errors import Refused, UnknownTrack
from sfu.group import Group
from sfu.lines import Line
from sfu.tracks import Stream, Subscription, Track

MEDIA: Final = (MediaKind.AUDIO, MediaKind.VIDEO)


class Forwarding:
    """The subscriptions of one session. `lines` is the session's own table."""

    def __init__(
        self,
        session: str,
        cname: str,
        profile: Profile,
        group: Group,
        lines: dict[str, Line],
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when the peer must be told of other streams than before."""
        self.subscriptions: dict[str, Subscription] = {}
        self.is_compact: Final = profile.downstream is Downstream.COMPACT
        self._session = session
        self._cname = cname
        self._profile = profile
        self._group = group
        self._lines = lines
        self._changed = changed
        self._has_chosen = False  # a compact session that once subscribed follows only that

    def subscribe(self, command: protocol.Subscribe, track: Track) -> None:
        """Forward a track here; repeating it changes the wish and the labels."""
        if self._profile.downstream is Downstream.NONE:
            raise Refused("this session only publishes")
        if track.session == self._session:
            raise Refused("a session does not receive its own track")
        known = self.subscriptions.get(track.id)
        if known is not None:
            known.stream_label, known.track_label = command.stream_label, command.track_label
            self.want(track, command.wish)
            return
        self.subscriptions[track.id] = Subscription(
            session=self._session,
            track=track,
            wish=command.wish,
            stream_label=command.stream_label,
            track_label=command.track_label,
            stream=Stream.new(track.kind, track.cname),
        )
        self._has_chosen = True
        self._change()
        self._group.count_layers(track)

    def unsubscribe(self, track: Track) -> None:
        if track.id not in self.subscriptions:
            return
        self.lose(track)
        self._group.count_layers(track)

    def lose(self, track: Track) -> None:
        """The track is gone for this subscriber."""
        subscription = self.subscriptions.pop(track.id, None)
        if subscription is None:
            return
        line = self._lines.get(subscription.mid)
        if line is not None and line.subscription is subscription:
            line.close_down()
            line.subscription = None
        self._change()

    def want(self, track: Track, wish: Wish) -> None:
        subscription = self.subscriptions.get(track.id)
        if subscription is None:
            raise UnknownTrack(track.id)
        subscription.wish = wish
        if self.is_compact:
            self._group.follow()
        else:
            self._group.feed(subscription)
        self._group.count_layers(track)

    def compact_streams(self) -> Iterator[tuple[MediaKind, Stream]]:
        """The outgoing streams that follow the speaker."""
        if self.is_compact:
            for line in self._lines.values():
                if line.stream is not None and line.stream.subscription is not None:
                    yield line.kind, line.stream

    def followable(self, tracks: Iterable[Track]) -> list[Track]:
        """What a compact session may be shown. Its client has no keys: encrypted sound would be noise to it."""
        if self._has_chosen:
            chosen = [s.track for s in self.subscriptions.values() if not s.wish.paused]
        else:
            chosen = [t for t in tracks if t.session != self._session]
        return [t for t in chosen if not t.encrypted]

    def _change(self) -> None:
        if self.is_compact:
            self._group.follow()
        else:
            self._changed()

    def place(self, lines: list[Line], add_line: Callable[[MediaKind], Line] | None) -> None:
        """Give every subscription a line; without `add_line` (the peer offers) some may have to wait."""
        if self.is_compact:
            return
        for line in lines:
            current = line.subscription
            if current is not None and not self._can_carry(line, we_offer=add_line is not None):
                line.close_down()
                line.subscription, current.mid = None, ""
        for subscription in self.subscriptions.values():
            if subscription.mid:
                continue
            kind = subscription.track.kind
            free = next(
                (
                    line
                    for line in lines
                    if line.kind is kind
                    and line.subscription is None
                    and self._can_carry(line, we_offer=add_line is not None)
                ),
                None,
            )
            if free is None and add_line is not None:
                free = add_line(kind)
                lines.append(free)
            if free is not None:
                free.subscription, subscription.mid = subscription, free.mid
                self.open_down(free)

    def _can_carry(self, line: Line, *, we_offer: bool) -> bool:
        if line.is_rejected or line.kind not in MEDIA:
            return False
        return line.peer_receives if not we_offer else line.creator_is_us or line.peer_receives

    def open_down(self, line: Line) -> None:
        """Keep the engine's stream of a line in step with what was agreed."""
        if line.subscription is not None:
            line.open_down(line.subscription.stream)
        elif self.is_compact and not line.is_rejected and self.may_send(line):
            line.open_down(line.stream or Stream.new(line.kind, self._cname))
        elif self.is_compact:
            line.close_down()

    def feed_all(self) -> None:
        """After a negotiation: make the engine carry everything that has a line now."""
        for subscription in self.subscriptions.values():
            if subscription.mid and not self.is_compact:
                self._group.feed(subscription)
        self._group.follow()

    def missing(self, *, peer_offers: bool) -> tuple[int, int]:
        """Audio and video subscriptions without a section, beyond what an offering peer's free ones hold."""
        counts: list[int] = []
        for kind in MEDIA:
            waiting = sum(
                1 for s in self.subscriptions.values() if s.track.kind is kind and not s.mid
            )
            free = sum(
                1
                for line in self._lines.values()
                if line.kind is kind and line.subscription is None and line.peer_receives
            )
            counts.append(max(0, waiting - free) if peer_offers else waiting)
        return (0, 0) if self.is_compact else (counts[0], counts[1])

    def may_send(self, line: Line) -> bool:
        """Whether a compact stream belongs on this line."""
        return line.kind in MEDIA and (line.remote is None or line.peer_receives)

    def close(self) -> None:
        """The session is over, and its transports are gone."""
        for subscription in tuple(self.subscriptions.values()):
            self.subscriptions.pop(subscription.track.id)
            self._group.count_layers(subscription.track)
