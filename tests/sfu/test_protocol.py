"""Frames of the seam: whatever is encoded decodes to the same value; whatever else comes is `Malformed`."""

import asyncio
import contextlib
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu import framing, protocol
from sfu.description import Description, Direction, Malformed, MediaKind, Profile
from tests.sfu.fakes import COMPACT, EACH, answer, offer, section

CLIENT, SERVER = framing.ClientFrames(), framing.ServerFrames()

_DESCRIPTIONS = [
    make(section("0", kind, direction, track=track))
    for make in (offer, answer)
    for kind in MediaKind
    for direction in (Direction.SENDRECV, Direction.INACTIVE)
    for track in (None, "track")
]
_LEAVES: dict[object, st.SearchStrategy[Any]] = {
    str: st.text(max_size=10),
    int: st.integers(-(2**63), 2**63),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    Profile: st.sampled_from([EACH, COMPACT]),
    Description: st.sampled_from(_DESCRIPTIONS),
    dict[str, int]: st.dictionaries(st.text(max_size=5), st.integers(0, 2**63), max_size=3),
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type. Hypothesis' own derivation takes minutes for these."""
    if annotation in _LEAVES:
        return _LEAVES[annotation]
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if arguments:
        return st.one_of([values_of(a) for a in arguments])
    if annotation is type(None):
        return st.none()
    if issubclass(annotation, Enum):
        return st.sampled_from(list(annotation))
    hints = get_type_hints(annotation)
    return st.builds(annotation, **{name: values_of(hint) for name, hint in hints.items()})


@given(st.builds(protocol.Request, st.text(), values_of(protocol.Command)))
def test_commands_survive_the_wire(request: protocol.Request) -> None:
    assert CLIENT.decode(framing.encode(request)[4:]) == request


@given(
    st.builds(protocol.Response, st.text(), values_of(protocol.Reply))
    | st.builds(protocol.Notice, st.integers(0, 2**60), values_of(protocol.Event))
)
def test_answers_and_events_survive_the_wire(frame: protocol.ServerFrame) -> None:
    assert SERVER.decode(framing.encode(frame)[4:]) == frame


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_malformed(body: bytes) -> None:
    for frames in (CLIENT, SERVER):
        with contextlib.suppress(Malformed):
            frames.decode(body)


def test_every_command_and_event_is_in_its_union() -> None:
    """A message class that no union names could be written and never read."""
    known = {
        kind
        for union in (
            protocol.Command,
            protocol.Reply,
            protocol.Event,
            protocol.ClientFrame,
            protocol.ServerFrame,
        )
        for kind in get_args(union)
    }
    parts = {
        protocol.TrackState,
        protocol.SubscriptionState,
        protocol.SessionState,
        protocol.TrackStatistics,
        protocol.SubscriptionStatistics,
        protocol.LayerStatistics,
        protocol.LoadStatistics,
        protocol.SessionStatistics,
        protocol.SpeakerLevel,
        protocol._Message,
    }
    defined = {
        value
        for value in vars(protocol).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == protocol.__name__
    }
    assert defined == known | parts


def test_a_frame_has_a_largest_size() -> None:
    with pytest.raises(Malformed):
        framing.encode(protocol.Request("1", protocol.Send("s", "c", bytes(2**20))))


async def test_frames_are_read_one_by_one_and_byte_by_byte() -> None:
    wanted = [protocol.Request(str(n), protocol.Close("s")) for n in range(3)]
    stream = asyncio.StreamReader()
    for byte in b"".join(framing.encode(frame) for frame in wanted):
        stream.feed_data(bytes([byte]))
    stream.feed_eof()
    read = [await CLIENT.read(stream) for _ in range(4)]
    assert read == [*wanted, None]


async def test_a_length_above_the_cap_is_refused_before_it_is_read() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"\x00\x10\x00\x01")
    with pytest.raises(Malformed):
        await CLIENT.read(stream)
