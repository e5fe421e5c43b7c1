"""Which simulcast layer a wish means, and who speaks. Pure: `now` is an argument.

Levels are RFC 6464 (-dBov: 0 loudest, 127 silent). Speaker selection has hysteresis twice: a track becomes
active louder than it becomes inactive, and a challenger must be clearly louder for a while before it is
dominant. Not here: who is sent what (`sfu.followers`), the packets (engine).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sfu.description import LayerSpec, Wish
from sfu.protocol import SpeakerLevel

ACTIVE_BELOW: Final = 45  # -dBov, smoothed: speech at a usual distance is 20..40
SILENT_ABOVE: Final = 55  # -dBov: room noise is 60..90
HOLD_S: Final = 0.6  # the gap between words does not end a speaker's turn
SMOOTHING: Final = 0.4  # weight of the newest level; reports come at most every 100 ms
CHALLENGE_DB: Final = 6  # louder by a factor of two in amplitude
CHALLENGE_S: Final = 0.5  # for this long, so that a cough changes nothing
_SILENCE: Final = 127

# Who gets bandwidth first on a narrow link (0..255); the engine puts audio before all of these.
SCREEN_PRIORITY: Final = 255  # text must stay readable
PINNED_PRIORITY: Final = 128  # and upwards, by the wished priority
SPEAKER_PRIORITY: Final = 64
_SCREEN_SHARE: Final = "screen_share"
_ORDINARY: Final = 1  # the priority of a wish that asks for none

# Somebody who looks elsewhere for a moment must not cost the publisher an encoder restart.
LOWER_AFTER_S: Final = 3.0
TOP_LAYER: Final = 2  # of a publisher who announced none


def wanted_layer(wish: Wish, layers: tuple[LayerSpec, ...]) -> int:
    """The lowest layer that satisfies the wished size, capped by the wished quality."""
    top = top_layer(layers)
    cap = min(max(wish.quality, 0), top)
    if not layers or not (wish.width and wish.height):
        return cap
    for index, layer in enumerate(layers[: cap + 1]):
        # Sizes compare by pixels: a portrait tile of a landscape camera is still that many pixels.
        if layer.width * layer.height >= wish.width * wish.height:
            return index
    return cap


def top_layer(layers: tuple[LayerSpec, ...]) -> int:
    """The highest layer that can be wanted."""
    return len(layers) - 1 if layers else TOP_LAYER


class LayerDemand:
    """The highest layer that anybody wants of one track, as its publisher should know it (-1: none).

    More is news at once, less when it has been less for `LOWER_AFTER_S`. A publisher who was told nothing
    sends everything.
    """

    __slots__ = ("_less_since", "_top", "_wanted", "told")

    def __init__(self) -> None:
        self.told: int | None = None
        self._wanted = self._top = TOP_LAYER
        self._less_since: float | None = None

    def want(self, highest: int, top: int) -> bool:
        """True if the publisher must hear it now; `advance` decides the rest."""
        self._wanted, self._top = highest, top
        if self.is_waiting:
            return False
        self._less_since = None
        if highest == self._known:
            return False
        self.told = highest
        return True

    @property
    def is_waiting(self) -> bool:
        """Less is wanted than the publisher knows."""
        return self._wanted < self._known

    @property
    def _known(self) -> int:
        return self._top if self.told is None else self.told

    def advance(self, now: float) -> bool:
        """Let time pass; True if less is news now."""
        if self._less_since is None:
            self._less_since = now
        if now - self._less_since < LOWER_AFTER_S:
            return False
        self.told, self._less_since = self._wanted, None
        return True


def bandwidth_priority(wish: Wish, source: str, *, speaks: bool) -> int:
    """Screen share, then what the subscriber pinned, then the dominant speaker, then the rest."""
    if source == _SCREEN_SHARE:
        return SCREEN_PRIORITY
    if wish.priority > _ORDINARY:
        return PINNED_PRIORITY + min(wish.priority, 255) // 4
    return SPEAKER_PRIORITY if speaks else 0


@dataclass(slots=True)
class _Voice:
    level: float = _SILENCE  # smoothed -dBov
    heard_at: float = 0.0
    loud_at: float = 0.0
    is_active: bool = False


class SpeakerSelection:
    """The speakers of one group, by track."""

    def __init__(self) -> None:
        self._voices: dict[str, _Voice] = {}
        self._challenger = ""
        self._challenged_at = 0.0
        self.dominant = ""

    def hear(self, levels: Iterable[tuple[str, int]], now: float) -> None:
        """Levels since the last call; whoever is absent said nothing."""
        for track, level in levels:
            voice = self._voices.setdefault(track, _Voice())
            voice.level += SMOOTHING * (level - voice.level)
            voice.heard_at = now
            if voice.level <= ACTIVE_BELOW:
                voice.is_active = True
            if voice.level <= SILENT_ABOVE:
                voice.loud_at = now
        self.advance(now)

    def advance(self, now: float) -> bool:
        """Let time pass; whether anybody is still active."""
        for voice in self._voices.values():
            if now - voice.heard_at > HOLD_S:
                voice.level = _SILENCE
            if voice.is_active and now - voice.loud_at > HOLD_S:
                voice.is_active = False
        self._choose(now)
        return any(voice.is_active for voice in self._voices.values())

    def forget(self, track: str) -> None:
        """The track ended or was gated."""
        self._voices.pop(track, None)
        if self.dominant == track:
            self.dominant = ""

    def speakers(self) -> tuple[SpeakerLevel, ...]:
        """Who is active, loudest first; levels rounded so that noise is not news."""
        active = [(track, voice) for track, voice in self._voices.items() if voice.is_active]
        active.sort(key=lambda entry: entry[1].level)
        return tuple(
            SpeakerLevel(track=track, level=round(10 ** (-voice.level / 20), 2), active=True)
            for track, voice in active
        )

    def _choose(self, now: float) -> None:
        active = {track: voice for track, voice in self._voices.items() if voice.is_active}
        if not active:
            return  # the last speaker stays dominant through silence
        loudest = min(active, key=lambda track: active[track].level)
        current = active.get(self.dominant)
        if current is None:
            self._crown(loudest)
        elif loudest == self.dominant or current.level - active[loudest].level < CHALLENGE_DB:
            self._challenger = ""
        elif loudest != self._challenger:
            self._challenger, self._challenged_at = loudest, now
        elif now - self._challenged_at >= CHALLENGE_S:
            self._crown(loudest)

    def _crown(self, track: str) -> None:
        self.dominant, self._challenger = track, ""
