"""Who speaks, as LiveKit tells it: only what changed, per participant. Pure.

Not here: levels themselves (the worker measures them from RFC 6464 header extensions).
"""

from typing import Final

from livekit.protocol import models, rtc

from bridge.gateway import Speaking

_STEPS: Final = 8  # a ring on a screen shows no finer level
_MAX_TOLD: Final = 100  # speakers of one message


class Speakers:
    """Remembers what one client was told."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def change(self, speaking: Speaking) -> rtc.SignalResponse | None:
        """The message that brings the client up to date, or None."""
        now: dict[str, int] = {}
        for leg, _, level, active in speaking.levels[:_MAX_TOLD]:
            if active:
                now[leg] = max(now.get(leg, 0), 1 + round(level * (_STEPS - 1)))
        changed = [
            models.SpeakerInfo(sid=sid, level=step / _STEPS, active=True)
            for sid, step in now.items()
            if self._told.get(sid) != step
        ]
        changed += [
            models.SpeakerInfo(sid=sid, level=0.0, active=False)
            for sid in self._told
            if sid not in now
        ]
        self._told = now
        if not changed:
            return None
        return rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged(speakers=changed))

    def forget(self) -> None:
        """A resumed client starts from silence."""
        self._told = {}
