"""Who speaks, and who is the dominant speaker. Pure: `now` is an argument.

I. Volfin and I. Cohen, "Dominant speaker identification for multipoint videoconferencing" (2012): activity on an
immediate, a medium and a long time scale, each scored as the log-likelihood ratio of speech (a binomial) against
silence (an exponential); a challenger is elected who beats the dominant speaker on all three. The engine counts
(`_engine.pyi`, "levels"): the immediate scale is the level of the report's loudest packet, the medium one the last
0.1 s, the long one the last second. Levels are RFC 6464 (-dBov: 0 loudest, 127 silent).

Beyond the paper: nobody is elected on less than `ENOUGH_BLOCKS` of speech, so that a cough in silence elects
nobody, and who talks much louder over the dominant speaker takes over.
Not here: who must not speak (`sfu.group` leaves the muted out), what follows for pictures (`sfu.pictures`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, log
from typing import Final

from sfu.protocol import SpeakerLevel

# track, -dBov of its loudest packet, frames of speech of the last five, blocks of the last ten
Report = tuple[str, int, int, int]

ACTIVE_BELOW: Final = 50  # -dBov: speech at a usual distance is 20..40
ACTIVE_FRAMES: Final = 3  # of five: heard in the first 0.1 s
HOLD_S: Final = 0.6  # the gap between words does not end a speaker's turn
SMOOTHING: Final = 0.4  # of the level that is shown; reports come at most every 100 ms
RECENT: Final = 5  # former speakers that are told
ENOUGH_BLOCKS: Final = 4  # 0.4 s within the last second
LOUDER_DB: Final = 10  # over a dominant speaker who goes on,
LOUDER_S: Final = 1.0  # for this long

_SILENCE: Final = 127
_REPORT_S: Final = 0.1
_STALE_S: Final = 0.15  # a report that missed its turn says nothing about now
# The paper's numbers: sizes of the scales, rate of the exponential, thresholds of the comparison.
_STEPS, _FRAMES, _BLOCKS = 13, 5, 10
_STEP_DB, _FIRST_STEP = 5, 57  # loudness (127 minus -dBov) of step 0, and per step
_NEVER: Final = 1e-10  # score of what is no speech


def _scores(size: int, rate: float) -> tuple[float, ...]:
    """Log-likelihood ratio of `v` of `size` (binomial, p = 1/2) against the exponential of `rate`."""
    return tuple(
        max(log(comb(size, v)) - size * log(2) - log(rate) + rate * v, _NEVER)
        for v in range(size + 1)
    )


_IMMEDIATE: Final = _scores(_STEPS, 0.78)
_MEDIUM: Final = _scores(_FRAMES, 24)
_LONG: Final = _scores(_BLOCKS, 47)
_BEATS: Final = (3.0, 2.0, 0.0)  # immediate, medium, long: log of the ratio of scores


@dataclass(slots=True)
class _Voice:
    level: int = _SILENCE  # of the last report
    shown: float = _SILENCE  # smoothed
    medium: int = 0
    long: int = 0
    heard_at: float = 0.0
    loud_at: float | None = None  # was last active
    is_active: bool = False

    def now(self, now: float) -> tuple[int, int, int]:
        """Step, frames and blocks; time without a report is silence."""
        silent_s = now - self.heard_at
        blocks = max(self.long - int(silent_s / _REPORT_S), 0)
        if silent_s > _STALE_S or not self.medium:
            return 0, 0, blocks
        step = (_SILENCE - self.level - _FIRST_STEP) // _STEP_DB
        return min(max(step, 0), _STEPS), min(self.medium, _FRAMES), min(blocks, _BLOCKS)


class SpeakerSelection:
    """The speakers of one group, by track."""

    def __init__(self) -> None:
        self._voices: dict[str, _Voice] = {}
        self._order: list[str] = []  # the dominant speaker, the one before, ...
        self._challenger = ""
        self._challenged_at = 0.0

    @property
    def dominant(self) -> str:
        """Whoever spoke last stays dominant through silence."""
        return self._order[0] if self._order else ""

    @property
    def order(self) -> tuple[str, ...]:
        """Everybody who ever was dominant, the latest first."""
        return tuple(self._order)

    def hear(self, reports: Iterable[Report], now: float) -> None:
        """What the engine heard since the last call; whoever is absent said nothing."""
        for track, level, medium, long in reports:
            voice = self._voices.setdefault(track, _Voice())
            voice.level, voice.medium, voice.long = level, medium, long
            is_new = voice.shown >= _SILENCE
            voice.shown = level if is_new else voice.shown + SMOOTHING * (level - voice.shown)
            voice.heard_at = now
            if level <= ACTIVE_BELOW and medium >= ACTIVE_FRAMES:
                voice.is_active, voice.loud_at = True, now
        self.advance(now)

    def advance(self, now: float) -> bool:
        """Let time pass; whether anybody is still active."""
        for voice in self._voices.values():
            if now - voice.heard_at > HOLD_S:
                voice.shown = _SILENCE
            if voice.is_active and now - (voice.loud_at or 0.0) > HOLD_S:
                voice.is_active = False
        self._elect(now)
        return any(voice.is_active for voice in self._voices.values())

    def forget(self, track: str) -> None:
        """The track ended or must not be heard."""
        self._voices.pop(track, None)
        if track in self._order:
            self._order.remove(track)
        if self._challenger == track:
            self._challenger = ""

    def speakers(self) -> tuple[SpeakerLevel, ...]:
        """Who is active, loudest first; levels rounded so that noise is not news."""
        active = [(track, voice) for track, voice in self._voices.items() if voice.is_active]
        active.sort(key=lambda entry: entry[1].shown)
        return tuple(
            SpeakerLevel(track=track, level=round(10 ** (-voice.shown / 20), 2), active=True)
            for track, voice in active
        )

    def margin(self, now: float) -> float:
        """How sure the election is: blocks of speech ahead of everybody else, as a share; 0 in doubt."""
        blocks = {track: voice.now(now)[2] for track, voice in self._voices.items()}
        own = blocks.pop(self.dominant, 0)
        return max(own - max(blocks.values(), default=0), 0) / _BLOCKS

    def spoke_at(self, track: str) -> float | None:
        """When the track was last active, None if never."""
        voice = self._voices.get(track)
        return None if voice is None else voice.loud_at

    def _elect(self, now: float) -> None:
        candidates = {
            track: scale
            for track, voice in self._voices.items()
            if (scale := voice.now(now))[2] >= ENOUGH_BLOCKS and scale[1]
        }
        champion = self._voices.get(self.dominant)
        if champion is None:
            if candidates:
                self._crown(max(candidates, key=lambda track: candidates[track][::-1]))
            return
        candidates.pop(self.dominant, None)
        reigning = champion.now(now)
        winners = {track: scale for track, scale in candidates.items() if _beats(scale, reigning)}
        if winners:
            self._crown(max(winners, key=lambda track: (winners[track][1], winners[track][2])))
        else:
            self._overrule(candidates, champion, now)

    def _overrule(self, candidates: Iterable[str], champion: _Voice, now: float) -> None:
        """Somebody may talk much louder than the dominant speaker for a while."""
        louder = [
            track
            for track in candidates
            if champion.is_active and self._voices[track].shown <= champion.shown - LOUDER_DB
        ]
        if not louder:
            self._challenger = ""
            return
        loudest = min(louder, key=lambda track: self._voices[track].shown)
        if loudest != self._challenger:
            self._challenger, self._challenged_at = loudest, now
        elif now - self._challenged_at >= LOUDER_S:
            self._crown(loudest)

    def _crown(self, track: str) -> None:
        if track in self._order:
            self._order.remove(track)
        self._order.insert(0, track)
        self._challenger = ""


def _beats(challenger: tuple[int, int, int], reigning: tuple[int, int, int]) -> bool:
    scales = zip((_IMMEDIATE, _MEDIUM, _LONG), challenger, reigning, _BEATS, strict=True)
    return all(log(table[one] / table[other]) > least for table, one, other, least in scales)
