"""A group of sessions that may receive each other's tracks: who follows whom, which layers are wanted, who is seen.

A COMPACT session has one stream per kind; it follows the dominant speaker among the tracks it subscribed to,
or, if it never subscribed to any, among all tracks of its group; never its own. While the dominant speaker
has nothing of a kind, what was shown stays; first comes the first available.
Not here: sessions' negotiation (`sfu.session`), who speaks (`sfu.speakers`), whose picture goes first
(`sfu.pictures`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from sfu import protocol
from sfu.description import MediaKind
from sfu.layers import TOP_LAYER, bandwidth_priority, is_pinned, top_layer, wanted_layer
from sfu.pictures import (
    HELD_BACK_LAYER,
    SCREEN_SHARE,
    Picture,
    chosen,
    is_restrained,
    ranked,
    silenced,
)
from sfu.plane import Handle, Plane
from sfu.speakers import RECENT, SpeakerSelection
from sfu.tracks import Stream, Subscription, Track

if TYPE_CHECKING:
    from sfu.session import Session

FASTEST_REPORT_S: Final = 0.1  # at most 10 speaker events a second
_DEFAULT_REPORT_S: Final = 0.25  # as `protocol.Policy`
_MOST_FPS: Final = 255  # what the engine's command can say


class Group:
    """What the worker holds for one group id while it has sessions."""

    def __init__(
        self, name: str, number: int, plane: Plane, emit: Callable[[protocol.Event], None]
    ) -> None:
        self.name: Final = name
        self.number: Final = number
        self.sessions: dict[str, Session] = {}
        self.tracks: dict[str, Track] = {}
        self._plane: Final = plane
        self._emit: Final = emit
        self._voices = SpeakerSelection()
        self._report_s = _DEFAULT_REPORT_S
        self._reported_at = 0.0
        self._reported: tuple[tuple[protocol.SpeakerLevel, ...], str] = ((), "")
        self.policy = protocol.Policy(group=name)
        self._stage: tuple[int, Handle | None] = (0, None)  # as told to the engine
        self._seen: tuple[tuple[Picture, ...], frozenset[str]] = ((), frozenset())
        self._is_stale = False  # somebody's wishes changed since pictures were chosen
        self._is_restrained = False  # pictures may be held back
        self._is_anybody_active = False
        self._followed = ""  # the dominant track when followers last moved
        self._lowering: set[Track] = set()  # fewer layers wanted than their publishers know

    # --- speakers

    def set_policy(self, policy: protocol.Policy) -> None:
        """An interval of 0 turns speaker reports off."""
        interval_s = policy.speaker_interval_ms / 1_000
        self._report_s = max(interval_s, FASTEST_REPORT_S) if interval_s > 0 else 0.0
        self.policy, self._is_stale = policy, True
        for track in policy.muted:
            self._silence(track)
        self._set_stage()

    def hear(self, levels: Iterable[tuple[Handle, int, int, int]], now: float) -> None:
        """What the engine reports (`_engine.pyi`, "levels")."""
        muted = self.policy.muted
        ids = {
            track.publication: track.id
            for track in self.tracks.values()
            if track.is_open and track.id not in muted
        }
        self._voices.hear(
            [
                (ids[handle], level, medium, long)
                for handle, level, medium, long in levels
                if handle in ids
            ],
            now,
        )
        self._is_anybody_active = True
        self.tick(now)

    def tick(self, now: float) -> None:
        """Time passed: silence is noticed, reports are due, followers move, unwatched layers end."""
        for track in tuple(self._lowering):
            if not track.demand.is_waiting:
                self._lowering.discard(track)
            elif track.demand.advance(now):
                self._lowering.discard(track)
                self.tell_layers(track)
        self._choose_pictures(now)
        if not self._is_anybody_active:
            return
        self._is_anybody_active = self._voices.advance(now)
        if not self._is_anybody_active or now - self._reported_at >= self._report_s:
            self._report(now)
        if self._voices.dominant != self._followed:
            self.follow()
            self._set_stage()
            self._choose_pictures(now)

    def _report(self, now: float) -> None:
        state = (self._voices.speakers(), self._voices.dominant)
        if self._report_s and state != self._reported:
            self._reported, self._reported_at = state, now
            self._emit(
                protocol.Speakers(
                    group=self.name,
                    levels=state[0],
                    dominant=state[1],
                    recent=self._voices.order[:RECENT],
                    margin=self._voices.margin(now),
                )
            )

    def _silence(self, track: str) -> None:
        """It is no speaker (any more)."""
        self._voices.forget(track)
        self._is_anybody_active = True  # let the next tick report it

    def _set_stage(self) -> None:
        """Tell the engine how many voices are forwarded, and which of them in any case."""
        dominant = self.tracks.get(self._voices.dominant)
        places = self.policy.loudest
        stage = (places, dominant.publication if dominant is not None and places else None)
        if stage != self._stage:
            self._stage = stage
            self._plane.set_loudest(self.number, *stage)

    # --- tracks

    def add_track(self, track: Track) -> None:
        self.tracks[track.id] = track

    def remove_track(self, track: Track) -> None:
        """The publication ended: it disappears from every subscriber."""
        self.tracks.pop(track.id, None)
        self._lowering.discard(track)
        self._voices.forget(track.id)
        for session in tuple(self.sessions.values()):
            session.down.lose(track)
        self.follow()

    def gate(self, track: Track, *, is_open: bool) -> None:
        track.is_open = is_open
        if track.publication is not None:
            self._plane.set_gate(track.publication, is_open)
        if not is_open:
            self._silence(track.id)

    def source_changed(self, track: Track) -> None:
        """The track got, lost or changed its engine publication, or the list of subscribers changed."""
        for subscription in self._subscriptions(track):
            self.feed(subscription)
        self.follow()
        self._set_stage()
        self.count_layers(track)

    def feed(self, subscription: Subscription) -> None:
        """Make the engine carry what this subscription wants, as it wants it."""
        stream, track = subscription.stream, subscription.track
        self._carry(stream, track)
        if not stream.is_fed and track.kind is MediaKind.VIDEO and is_restrained(self.policy):
            stream.is_held_back = True  # until the next tick knows better
        self._is_stale = True
        stream.is_fed = True
        self._set_layer(
            stream,
            wanted_layer(subscription.wish, track.layers),
            paused=subscription.wish.paused or stream.is_held_back,
        )
        self._set_frame_rate(subscription.stream, min(max(subscription.wish.fps, 0), _MOST_FPS))
        self._prioritise(subscription)
        self._tell_paused(subscription.session, track.id, stream)

    def count_layers(self, track: Track) -> None:
        """Which layers somebody wants: more is told at once, less by a later `tick`."""
        if track.kind is not MediaKind.VIDEO or track.publication is None:
            return
        self._is_stale = True
        wanted = [
            HELD_BACK_LAYER if s.stream.is_held_back else wanted_layer(s.wish, track.layers)
            for s in self._subscriptions(track)
            if not s.wish.paused
        ]
        followed = any(s.carried == track.id for s in self._compact_streams(MediaKind.VIDEO))
        top = top_layer(track.layers)
        if track.demand.want(max((*wanted, top if followed else -1)), top):
            self.tell_layers(track)
        elif track.demand.is_waiting:
            self._lowering.add(track)

    def tell_layers(self, track: Track) -> None:
        """To the publisher's side, unless it need not know (yet)."""
        highest = track.demand.told
        if highest is not None:
            self._emit(
                protocol.LayersWanted(session=track.session, track=track.id, highest=highest)
            )

    # --- whose picture

    def _choose_pictures(self, now: float) -> None:
        """Hold back and let go as the policy says, when anything that matters changed."""
        is_on = is_restrained(self.policy)
        if not is_on and not self._is_restrained:
            self._is_stale = (
                False  # nothing is held back: joins and wishes need no look at everybody
            )
            return
        seen = self._rank(now) if is_on else ((), frozenset[str]())
        if seen == self._seen and not self._is_stale:
            return
        self._seen, self._is_stale, self._is_restrained = seen, False, is_on
        changed: dict[str, Track] = {}
        for session in self.sessions.values():
            if session.down.is_compact:
                continue
            mine = {
                track: s
                for track, s in session.down.subscriptions.items()
                if s.track.kind is MediaKind.VIDEO
            }
            wanted = [track for track, s in mine.items() if not s.wish.paused]
            pinned = [track for track in wanted if is_pinned(mine[track].wish)]
            visible = chosen(wanted, pinned, *seen, self.policy.last_n) if is_on else wanted
            for track, subscription in mine.items():
                is_held_back = track in wanted and track not in visible
                if subscription.stream.is_held_back != is_held_back:
                    subscription.stream.is_held_back = is_held_back
                    self.feed(subscription)
                    changed[track] = subscription.track
        for video in changed.values():
            self.count_layers(video)
        self._is_stale = False  # feeding is no change of wishes

    def _rank(self, now: float) -> tuple[tuple[Picture, ...], frozenset[str]]:
        """(pictures, best first; those of the silent)"""
        pictures: list[Picture] = []
        spoke_at: dict[str, float] = {}
        for track in self.tracks.values():
            track.since = track.since or now
            if track.kind is MediaKind.VIDEO:
                is_screen = track.source == SCREEN_SHARE
                pictures.append(Picture(track.id, track.session, is_screen, track.since))
            elif (at := self._voices.spoke_at(track.id)) is not None:
                spoke_at[track.session] = max(at, spoke_at.get(track.session, at))
        speakers = dict.fromkeys(
            self.tracks[track].session for track in self._voices.order if track in self.tracks
        )
        return (
            ranked(pictures, tuple(speakers), self.policy),
            silenced(pictures, spoke_at, self.policy, now),
        )

    # --- followers

    def follow(self) -> None:
        """Point every compact stream at what it should carry now."""
        previous, self._followed = self._followed, self._voices.dominant
        speaker = self.tracks.get(self._voices.dominant)
        if previous != self._followed:
            self._prioritise_speaker(self.tracks.get(previous), speaker)
        for session in self.sessions.values():
            for kind, stream in session.down.compact_streams():
                before = stream.carried
                candidates = [
                    t for t in session.down.followable(self.tracks.values()) if t.kind is kind
                ]
                chosen = choose(before, candidates, speaker.session if speaker else "")
                self._carry(stream, chosen)
                self._set_layer(stream, TOP_LAYER, paused=False)
                if kind is MediaKind.VIDEO and before != stream.carried:
                    for changed in (self.tracks.get(before), chosen):
                        if changed is not None:
                            self.count_layers(changed)

    # --- bandwidth

    def starve(self, handle: Handle, *, is_starved: bool) -> bool:
        """The engine holds a stream back or lets it go on; False if it is no stream of this group."""
        for session in self.sessions.values():
            for subscription in session.down.subscriptions.values():
                if subscription.stream.subscription == handle:
                    subscription.stream.is_starved = is_starved
                    self._tell_paused(session.name, subscription.track.id, subscription.stream)
                    return True
            for _, stream in session.down.compact_streams():
                if stream.subscription == handle:
                    stream.is_starved = is_starved
                    self._tell_paused(session.name, stream.carried, stream)
                    return True
        return False

    def _tell_paused(self, session: str, track: str, stream: Stream) -> None:
        is_paused = stream.is_starved or stream.is_held_back
        if is_paused == stream.is_told_paused:
            return
        stream.is_told_paused = is_paused
        self._emit(protocol.StreamState(session=session, track=track, paused=is_paused))

    def _prioritise(self, subscription: Subscription) -> None:
        """Tell the engine what goes first on this subscriber's link."""
        stream, track = subscription.stream, subscription.track
        if stream.subscription is None or track.kind is not MediaKind.VIDEO:
            return
        speaker = self.tracks.get(self._voices.dominant)
        speaks = speaker is not None and speaker.session == track.session
        priority = bandwidth_priority(subscription.wish, track.source, speaks=speaks)
        if priority != stream.priority:
            stream.priority = priority
            self._plane.set_priority(stream.subscription, priority)

    def _prioritise_speaker(self, *speakers: Track | None) -> None:
        """Somebody else speaks: what both show weighs differently now."""
        sessions = {track.session for track in speakers if track is not None}
        for track in self.tracks.values():
            if track.session in sessions and track.kind is MediaKind.VIDEO:
                for subscription in self._subscriptions(track):
                    self._prioritise(subscription)

    def close(self) -> None:
        """The last session is gone."""
        if self._stage[0]:
            self._plane.set_loudest(self.number, 0, None)

    # --- inside

    def _subscriptions(self, track: Track) -> Iterator[Subscription]:
        for session in self.sessions.values():
            subscription = session.down.subscriptions.get(track.id)
            if subscription is not None and not session.down.is_compact:
                yield subscription

    def _compact_streams(self, kind: MediaKind) -> Iterator[Stream]:
        for session in self.sessions.values():
            for stream_kind, stream in session.down.compact_streams():
                if stream_kind is kind:
                    yield stream

    def _carry(self, stream: Stream, track: Track | None) -> None:
        if stream.subscription is None:
            return
        publication = track.publication if track is not None else None
        carried = (
            f"{track.id} {publication}" if track is not None and publication is not None else ""
        )
        if carried != stream.source:
            stream.source = carried
            self._plane.set_source(stream.subscription, publication)
        stream.carried = track.id if track is not None and publication is not None else ""

    def _set_layer(self, stream: Stream, max_layer: int, *, paused: bool) -> None:
        if stream.subscription is None or (stream.max_layer, stream.paused) == (max_layer, paused):
            return
        stream.max_layer, stream.paused = max_layer, paused
        self._plane.set_layer(stream.subscription, max_layer=max_layer, paused=paused)

    def _set_frame_rate(self, stream: Stream, max_fps: int) -> None:
        if stream.subscription is not None and stream.max_fps != max_fps:
            stream.max_fps = max_fps
            self._plane.set_frame_rate(stream.subscription, max_fps)


def choose(current: str, candidates: list[Track], speaker_session: str) -> Track | None:
    """The track a compact stream carries next."""
    available = [t for t in candidates if t.publication is not None]
    spoken = next((t for t in available if t.session == speaker_session), None)
    kept = next((t for t in available if t.id == current), None)
    heard = next((t for t in available if t.is_live), None)
    return spoken or kept or heard or next(iter(available), None)
