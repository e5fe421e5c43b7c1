"""Which layer a wish means, and what a publisher hears of that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.description import LayerSpec, MediaKind, Wish
from sfu.group import choose
from sfu.layers import LOWER_AFTER_S, LayerDemand, top_layer, wanted_layer
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


@given(st.lists(st.tuples(st.integers(-1, 2), st.floats(0, 4)), max_size=50))
def test_a_publisher_hears_of_more_at_once_and_of_less_later(
    wishes: list[tuple[int, float]],
) -> None:
    demand, now, since, sends = LayerDemand(), 0.0, 0.0, 2
    for highest, seconds in wishes:
        if demand.want(highest, top_layer(LAYERS)):
            assert demand.told is not None
            assert demand.told > sends
            sends = demand.told
        assert sends >= highest, "what is wanted is sent"
        since = now
        while now < since + seconds:
            now += 0.1
            if demand.is_waiting and demand.advance(now):
                assert demand.told == highest
                sends = highest
        assert sends == highest or now - since < LOWER_AFTER_S + 0.2


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
