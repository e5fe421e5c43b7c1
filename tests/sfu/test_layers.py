"""Which layer a wish means, and who speaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.description import LayerSpec, MediaKind, Wish
from sfu.group import choose
from sfu.layers import CHALLENGE_S, HOLD_S, SpeakerSelection, wanted_layer
from sfu.tracks import Track

LAYERS = (LayerSpec("q", 320, 180), LayerSpec("h", 640, 360), LayerSpec("f", 1280, 720))


@pytest.mark.parametrize(
    ("wish", "layer"),
    [
        (Wish(), 2),
        (Wish(quality=0), 0),
        (Wish(width=320, height=180), 0),
        (Wish(width=180, height=320), 0),
        (Wish(width=321, height=180), 1),
        (Wish(width=4000, height=4000), 2),
        (Wish(width=4000, height=4000, quality=1), 1),
    ],
)
def test_the_lowest_layer_that_satisfies(wish: Wish, layer: int) -> None:
    assert wanted_layer(wish, LAYERS) == layer


@given(st.integers(0, 9_000), st.integers(0, 9_000), st.integers(0, 5), st.integers(0, 3))
def test_a_layer_always_exists(width: int, height: int, quality: int, count: int) -> None:
    layers = LAYERS[:count]
    layer = wanted_layer(Wish(width=width, height=height, quality=quality), layers)
    assert 0 <= layer <= (max(len(layers) - 1, 0) if layers else 2)


def speak(
    selection: SpeakerSelection, levels: dict[str, int], start: float, seconds: float
) -> float:
    now = start
    while now < start + seconds:
        selection.hear(levels.items(), now)
        now += 0.1
    return now


def test_speech_is_active_and_noise_is_not() -> None:
    selection = SpeakerSelection()
    speak(selection, {"voice": 25, "noise": 75}, 0, 2)
    assert [s.track for s in selection.speakers()] == ["voice"]
    assert selection.dominant == "voice"
    assert 0.0 < selection.speakers()[0].level < 0.1


def test_a_pause_between_words_changes_nothing_a_longer_one_does() -> None:
    selection = SpeakerSelection()
    now = speak(selection, {"a": 20}, 0, 2)
    assert selection.advance(now + HOLD_S / 2)
    assert not selection.advance(now + HOLD_S * 3)
    assert selection.speakers() == ()
    assert selection.dominant == "a", "who spoke last stays dominant through silence"


def test_a_cough_does_not_take_over_and_a_louder_voice_does() -> None:
    selection = SpeakerSelection()
    now = speak(selection, {"a": 35}, 0, 2)
    now = speak(selection, {"a": 35, "b": 10}, now, CHALLENGE_S * 0.6)
    assert selection.dominant == "a"
    now = speak(selection, {"a": 35, "b": 90}, now, 2)
    assert selection.dominant == "a"
    speak(selection, {"a": 35, "b": 15}, now, 3)
    assert selection.dominant == "b"


def test_two_equal_voices_do_not_flicker() -> None:
    selection = SpeakerSelection()
    now, seen = speak(selection, {"a": 30, "b": 30}, 0, 1), set()
    for turn in range(100):
        now = speak(selection, {"a": 30 - turn % 3, "b": 30 + turn % 3}, now, 0.2)
        seen.add(selection.dominant)
    assert len(seen) == 1


def test_a_forgotten_track_speaks_no_more() -> None:
    selection = SpeakerSelection()
    speak(selection, {"a": 20}, 0, 1)
    selection.forget("a")
    assert selection.speakers() == ()
    assert selection.dominant == ""


def track(name: str, session: str, *, is_live: bool = False, publication: int | None = 1) -> Track:
    made = Track(name, session, MediaKind.VIDEO, "camera", (), None, (), False, "cname")
    made.is_live, made.publication = is_live, publication
    return made


def test_a_compact_stream_prefers_speaker_then_current_then_live_then_any() -> None:
    spoken, current = track("s", "speaker"), track("c", "x")
    live, other = track("l", "y", is_live=True), track("o", "z")
    everyone = [other, live, current, spoken]
    assert choose("c", everyone, "speaker") is spoken
    assert choose("c", everyone, "nobody") is current
    assert choose("gone", everyone, "nobody") is live
    assert choose("", [other], "") is other
    assert choose("", [track("n", "speaker", publication=None)], "speaker") is None
