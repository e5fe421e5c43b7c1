"""When a LiveKit leg is gone (house.md section 7, "When somebody is gone"). Pure; time is an argument.

Signalling closed and no authenticated packet for 5 s: left. Signalling open but silent: ended after 30 s.
Not here: noticing silence (the worker), ending the leg (`device`).
"""

from typing import Final

CLOSED_AND_SILENT_S: Final = 5.0
OPEN_AND_SILENT_S: Final = 30.0
AFTER_RESTART_S: Final = 30.0  # of ours: clients need up to 7 s between two tries


class Silence:
    """Two facts with their times: is the socket closed, are the sessions silent."""

    def __init__(self, now_s: float) -> None:
        self._closed_s: float | None = now_s
        self._silent_s: float | None = now_s  # no session has ever been up
        self._silent: set[str] = set()
        self._up: set[str] = set()
        self._grace_s = 0.0

    def opened(self, now_s: float) -> None:
        self._closed_s = None
        if self._silent_s is not None:
            self._silent_s = now_s  # a resuming client gets its 30 s for the ICE restart

    def closed(self, now_s: float) -> None:
        self._closed_s = now_s

    def session_up(self, session: str) -> None:
        self._up.add(session)
        self._silent.discard(session)
        self._silent_s = None

    def session_silent(self, session: str, now_s: float) -> None:
        self._silent.add(session)
        if not self._up - self._silent and self._silent_s is None:
            self._silent_s = now_s

    def readopted(self, sessions: tuple[str, ...], *, is_up: bool, now_s: float) -> None:
        """After a restart of ours: the sessions live on in the worker."""
        self._grace_s = now_s + AFTER_RESTART_S
        if is_up:
            self._up.update(sessions)
            self._silent_s = None

    def deadline_s(self) -> float | None:
        """When the leg ends unless something changes."""
        if self._silent_s is None:
            return None
        if self._closed_s is None:
            return max(self._silent_s + OPEN_AND_SILENT_S, self._grace_s)
        # `_silent_s` is itself the end of 5 s without a packet; a socket that closes later gets its own 5 s.
        return max(self._silent_s, self._closed_s + CLOSED_AND_SILENT_S, self._grace_s)
