"""The casts are what the scenarios promise, and a result knows what it was measured on.

Not here: numbers (`bench`), the compiled load tool (its own tests).
"""

import string

import pytest

from bench import machine
from bench.cast import SIMULCAST, TILES, Cast, video
from bench.load import Keyed, Sending
from bench.peer import PROFILE, extensions
from bench.scenarios import ALL, b_meeting, c_speakers, d_rooms, e_twelve, g_idle, h_joins
from sfu import _engine
from sfu.description import MediaKind


def test_scenarios_have_the_letters_of_the_alphabet() -> None:
    assert list(ALL) == list(string.ascii_uppercase[: len(ALL)])
    assert all(letter == one.letter for letter, one in ALL.items())


def test_twelve_all_to_all_is_120_megabits() -> None:
    cast = e_twelve.CAST
    assert cast.people == 12
    assert cast.streams_down == 2 * 132
    down_bps = 132 * sum(layer.bits_per_s for media in cast.media for layer in media.layers)
    assert down_bps == pytest.approx(120e6, rel=0.01)
    assert e_twelve.VIDEO.layers[0].packet_bytes == 1_200


def test_the_other_casts() -> None:
    assert b_meeting.CAST.streams_down == 2 * 10 * 9
    assert c_speakers.CAST.streams_down == 3 * 300
    assert (d_rooms.CAST.people, d_rooms.CAST.streams_down) == (100, 20 * 2 * 5 * 4)
    assert g_idle.CAST.people == 2_000
    assert {cast.rooms * cast.listeners for cast in h_joins.CASTS.values()} == {200}
    assert Cast(listeners=100, media=(video(1),)).streams_down == 100


def test_simulcast_is_three_layers_and_wishes_are_mixed() -> None:
    assert [layer.rid for layer in SIMULCAST.layers] == ["q", "h", "f"]
    assert len({(wish.width, wish.height) for wish in TILES}) == 3
    assert len(TILES) == 9  # so that turns go round among nine others


def test_a_stream_is_said_in_fourteen_words() -> None:
    stream = Sending.new(3, 7, 2, "1", SIMULCAST)
    words = stream.words().split()
    assert len(words) == 14
    assert words[:4] == ["3", "7", "2", "v"]
    assert words[9] == "f"
    assert len(Keyed(5, 7, b"\x01" * 56, "pwd").words(3).split()) == 6


def test_what_is_offered_is_accepted() -> None:
    for kind in (MediaKind.AUDIO, MediaKind.VIDEO):
        assert {extension.uri for extension in extensions(kind)} <= set(PROFILE.extensions)


def test_the_module_says_what_it_was_built_from() -> None:
    info = _engine.build_info()
    assert len(info["sources"]) == 16
    assert info["opt_level"] in {"0", "1", "2", "3"}
    assert len(machine.engine_sources()) == 16


def test_another_engine_makes_a_result_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "engine_sources", lambda: "another")
    described = machine.describe()
    assert described["dirty"]
    assert "the engine was built from other sources" in described["why_dirty"]
