"""Text and bindings."""

from dataclasses import replace

import pytest

from bridge.conference import commands as c
from bridge.conference.bindings import MAX_PLACES
from bridge.conference.chat import MAX_TEXT_BYTES
from bridge.conference.errors import Malformed, Refused
from bridge.conference.events import Bound, Said, Unbound
from bridge.conference.ids import Network, Place
from tests.conference.plays import MUC, ROOM, actor, conference, say


def test_the_same_line_has_the_same_id_and_another_source_another() -> None:
    one, two = (conference().apply(say(), 5)[0] for _ in range(2))
    other = conference().apply(replace(say(), source="xmpp"), 5)[0]
    assert isinstance(one, Said)
    assert isinstance(other, Said)
    assert one == two
    assert one.at_ms == 5
    assert one.message_id != other.message_id


def test_text_is_capped_and_cleaned() -> None:
    (event,) = conference().apply(say("a\x00b\r\nc\td\x07"), 0)
    assert isinstance(event, Said)
    assert event.text == "ab\nc\td"
    conference().apply(say("ä" * (MAX_TEXT_BYTES // 2)), 0)
    with pytest.raises(Refused, match="parts"):
        conference().apply(say("ä" * (MAX_TEXT_BYTES // 2) + "a"), 0)
    for empty in ("", " \n", "\x00", "\ud800"):
        with pytest.raises(Malformed):
            conference().apply(say(empty), 0)
    with pytest.raises(Malformed):
        conference().apply(replace(say(), source_id=""), 0)


def test_a_line_from_a_place_that_is_not_bound_is_refused() -> None:
    with pytest.raises(Refused, match="not connected"):
        conference().apply(replace(say(), origin=MUC), 0)


def test_binding_connects_once_and_a_capped_number() -> None:
    scene = conference()
    assert scene.apply(c.Bind(actor(), MUC), 0) == (Bound(MUC, actor()),)
    assert scene.apply(c.Bind(actor(), MUC), 0) == ()
    assert scene.record.places == (ROOM, MUC)
    assert scene.apply(c.Unbind(actor(), ROOM), 0) == (Unbound(ROOM, actor()),)
    assert scene.apply(c.Unbind(actor(), ROOM), 0) == ()
    for n in range(MAX_PLACES - 1):
        scene.apply(c.Bind(actor(), Place(Network.XMPP, f"r{n}@muc")), 0)
    with pytest.raises(Refused):
        scene.apply(c.Bind(actor(), ROOM), 0)
    with pytest.raises(Malformed):
        conference().apply(c.Bind(actor(), Place(Network.XMPP, "")), 0)
