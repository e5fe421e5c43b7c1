"""MP42, MP43: who is the dominant speaker, on three time scales."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.speakers import HOLD_S, LOUDER_S, RECENT, SpeakerSelection

FRAME_S = 0.02
REPORT_S = 0.1
SPEECH, NOISE = 25, 70  # -dBov


@dataclass
class Stage:
    """Frames of 20 ms become what the engine reports every 100 ms (engine/core/src/media/activity.rs)."""

    selection: SpeakerSelection = field(default_factory=SpeakerSelection)
    now: float = 100.0
    frames: dict[str, list[int]] = field(default_factory=dict)
    dominant: list[tuple[float, str]] = field(default_factory=list)

    def play(self, seconds: float, levels: Callable[[float], dict[str, int]]) -> None:
        """`levels` by the time since the beginning; 127 is a packet that was not sent."""
        start = self.now
        for frame in range(round(seconds / FRAME_S)):
            self.now = start + (frame + 1) * FRAME_S
            heard = levels(frame * FRAME_S)
            for track in self.frames.keys() | heard.keys():
                self.frames.setdefault(track, []).insert(0, heard.get(track, 127))
                del self.frames[track][50:]
            if frame % 5 == 4:
                self._report()

    def _report(self) -> None:
        reports = []
        for track, levels in self.frames.items():
            speech = [level <= 45 for level in levels]
            blocks = [sum(speech[at : at + 5]) for at in range(0, 50, 5)]
            loudest = min(levels[:5])
            if loudest < 127:
                long = sum(block >= 3 for block in blocks)
                reports.append((track, loudest, blocks[0], long))
        self.selection.hear(reports, self.now)
        self.dominant.append((self.now, self.selection.dominant))

    def elected(self, since: float) -> dict[str, float]:
        """Seconds after `since` until each was dominant for the first time."""
        found: dict[str, float] = {}
        for at, who in self.dominant:
            if at > since:
                found.setdefault(who, round(at - since, 3))
        return found


def test_two_who_alternate_every_two_seconds_are_elected_within_800_ms() -> None:
    for phase in range(5):  # reports and turns are not in step
        stage, noise = Stage(now=100 + phase * FRAME_S), Random(phase)
        stage.play(0.02 * phase, lambda t: {"a": NOISE, "b": NOISE})
        for turn in range(12):
            began = stage.now
            speaker, other = ("a", "b") if turn % 2 == 0 else ("b", "a")
            stage.play(
                2.0,
                lambda t, s=speaker, o=other, n=noise: {
                    s: SPEECH + n.randint(0, 15),
                    o: NOISE + n.randint(-8, 8),
                },
            )
            assert stage.elected(began)[speaker] <= 0.8, f"turn {turn}"
            assert stage.selection.dominant == speaker


@pytest.mark.parametrize("level", [5, 25, 40])
@pytest.mark.parametrize("is_silent", [True, False], ids=["in silence", "into speech"])
def test_a_cough_of_200_ms_elects_nobody(level: int, is_silent: bool) -> None:
    for phase in range(5):
        stage = Stage()
        if not is_silent:
            stage.play(3.0, lambda t: {"a": SPEECH, "b": NOISE})
        stage.play(0.02 * phase, lambda t: {"a": NOISE, "b": NOISE})
        before = stage.selection.dominant
        stage.play(0.2, lambda t: {"a": NOISE, "b": level})
        stage.play(2.0, lambda t: {"a": NOISE, "b": NOISE})
        assert {who for _, who in stage.dominant} <= {"", "a"}
        assert stage.selection.dominant == before


def test_noise_elects_nobody_and_hides_nobody() -> None:
    noise = Random(1)
    stage = Stage()
    stage.play(5.0, lambda t: {"a": 55 + noise.randint(-8, 8), "b": 60 + noise.randint(-8, 8)})
    assert stage.selection.dominant == ""
    assert stage.selection.speakers() == ()
    stage.play(1.0, lambda t: {"a": 55 + noise.randint(-8, 8), "b": SPEECH})
    assert stage.selection.dominant == "b"


def test_words_with_gaps_keep_the_floor() -> None:
    """Syllables of 300 ms with pauses of 200 ms; the other agrees aloud for 300 ms now and then."""
    stage = Stage()

    def levels(t: float) -> dict[str, int]:
        return {
            "a": SPEECH if t % 0.5 < 0.3 else NOISE,
            "b": SPEECH if 0 < t % 3.0 - 2.0 < 0.3 else NOISE,
        }

    stage.play(30.0, levels)
    assert {who for at, who in stage.dominant if at > 102} == {"a"}


def test_speech_is_active_at_once_and_a_pause_between_words_changes_nothing() -> None:
    stage = Stage()
    stage.play(REPORT_S, lambda t: {"a": SPEECH, "b": 75})
    assert [s.track for s in stage.selection.speakers()] == ["a"]
    assert 0.0 < stage.selection.speakers()[0].level < 0.1
    stage.play(2.0, lambda t: {"a": SPEECH})
    assert stage.selection.advance(stage.now + HOLD_S / 2)
    assert not stage.selection.advance(stage.now + HOLD_S * 3)
    assert stage.selection.speakers() == ()
    assert stage.selection.dominant == "a", "who spoke last stays dominant through silence"


def test_two_equal_voices_do_not_flicker_and_a_much_louder_one_takes_over() -> None:
    noise, stage = Random(3), Stage()
    stage.play(1.0, lambda t: {"a": 30})
    stage.play(30.0, lambda t: {"a": 30 + noise.randint(-5, 5), "b": 28 + noise.randint(-5, 5)})
    assert {who for at, who in stage.dominant if at > 101} == {"a"}
    began = stage.now
    stage.play(LOUDER_S + 2, lambda t: {"a": 35, "b": 12})
    assert stage.elected(began)["b"] > LOUDER_S


def test_whoever_must_not_be_heard_is_forgotten() -> None:
    stage = Stage()
    stage.play(2.0, lambda t: {"a": SPEECH})
    stage.play(2.0, lambda t: {"b": SPEECH})
    assert stage.selection.order == ("b", "a")
    stage.selection.forget("b")
    assert stage.selection.speakers() == ()
    assert stage.selection.dominant == "a"
    assert stage.selection.spoke_at("b") is None


def test_the_order_is_by_turns_and_the_margin_says_how_sure_it_is() -> None:
    stage = Stage()
    people = [f"p{number}" for number in range(RECENT + 2)]
    for speaker in people:
        stage.play(2.0, lambda t, s=speaker: {s: SPEECH})
    assert stage.selection.order == tuple(reversed(people))
    assert stage.selection.margin(stage.now) == 1.0
    stage.play(2.0, lambda t: {people[-1]: SPEECH, people[0]: SPEECH})
    assert stage.selection.margin(stage.now) == 0.0
    assert stage.selection.margin(stage.now + 60) == 0.0


Heard = st.tuples(
    st.sampled_from("abc"), st.integers(0, 127), st.integers(0, 5), st.integers(0, 10)
)


@given(st.lists(st.tuples(st.lists(Heard, max_size=3), st.floats(0, 3)), max_size=40))
def test_whatever_is_heard_only_the_active_are_elected(
    story: list[tuple[list[tuple[str, int, int, int]], float]],
) -> None:
    selection, now, ever = SpeakerSelection(), 0.0, set[str]()
    for reports, seconds in story:
        now += seconds
        selection.hear(reports, now)
        ever |= {track for track, _, medium, long in reports if medium and long >= 4}
        assert selection.dominant in ever | {""}
        assert 0.0 <= selection.margin(now) <= 1.0
