"""What one peer publishes: announced tracks, matched with the lines on which the peer sends.

RFC 8830 (msid). Not here: what others receive of it (`sfu.forwarding`), one m-line (`sfu.lines`).
"""

from collections.abc import Callable
from typing import Final

from sfu import protocol
from sfu.errors import Refused
from sfu.group import Group
from sfu.lines import Line
from sfu.tracks import Track

MAX_TRACKS: Final = 8  # that one peer publishes (S10): camera, screen and their sound, twice


class Upstream:
    """The tracks of one session. `lines` is the session's own table."""

    def __init__(
        self,
        session: str,
        cname: str,
        group: Group,
        lines: dict[str, Line],
        emit: Callable[[protocol.Event], None],
        *,
        is_compact: bool,
    ) -> None:
        self.tracks: dict[str, Track] = {}
        self._session = session
        self._cname = cname
        self._group = group
        self._lines = lines
        self._emit = emit
        self._is_compact = is_compact

    def expect(self, command: protocol.Expect) -> None:
        """An announced publication; also a change of its announcement."""
        track = self.tracks.get(command.track)
        if track is None:
            if len(self.tracks) >= MAX_TRACKS:
                raise Refused(f"more than {MAX_TRACKS} tracks")
            track = Track(
                id=command.track,
                session=self._session,
                kind=command.kind,
                source=command.source,
                match=command.match,
                wanted_mid=command.mid,
                layers=command.layers,
                encrypted=command.encrypted,
                cname=self._cname,
            )
            self.tracks[track.id] = track
            self._group.add_track(track)
        elif track.kind is not command.kind:
            raise Refused("a track keeps its kind")
        else:
            track.match, track.wanted_mid = command.match, command.mid
            track.layers, track.source = command.layers, command.source
            track.encrypted = command.encrypted
            self._group.source_changed(track)
        self.bind_all()

    def unexpect(self, track: Track) -> None:
        """The publication ended."""
        for line in self._lines.values():
            if line.track is track:
                line.drop_up()
        self.tracks.pop(track.id, None)
        self._group.remove_track(track)

    def bind_all(self) -> None:
        """Match lines on which the peer sends with announced publications."""
        for line in self._lines.values():
            before = line.track
            wanted = self._announced(line) if line.peer_sends else None
            if before is not None and before is not wanted:
                line.drop_up()
                self._ended(before)
            if wanted is None:
                continue
            for other in self._lines.values():
                if other is not line and other.track is wanted:
                    other.drop_up()  # the publisher moved it to another section
            publication = wanted.publication
            line.carry_up(wanted, self._group.number)
            if wanted.publication != publication:
                self._group.source_changed(wanted)

    def _announced(self, line: Line) -> Track | None:
        remote = line.remote
        if remote is None:
            return None
        named = next((t for t in self.tracks.values() if t.fits(remote)), None)
        if named is not None:
            return named
        if line.track is not None and line.track.id in self.tracks:
            return line.track  # its msid may change after a track restart; the section stays
        if not self._is_compact:
            return None
        bound = {other.track for other in self._lines.values() if other is not line}
        return next(
            (
                t
                for t in self.tracks.values()
                if t.kind is line.kind and t.names_no_section and t not in bound
            ),
            None,
        )

    def _ended(self, track: Track) -> None:
        ended = track.silenced()
        if ended is not None:
            self._emit(ended)
        self._group.source_changed(track)

    def close(self) -> None:
        """The session is over, and its transports are gone."""
        for track in tuple(self.tracks.values()):
            track.publication = None
            self._group.remove_track(track)
