"""Jingle XML <-> values <-> descriptions: round trips, caps, and what must be refused."""

import contextlib
from dataclasses import replace
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bridge.conference.errors import IllegalTransition, Malformed
from bridge.gateways.xmpp.guard import Guard, Stanza
from bridge.gateways.xmpp.jingle import describe
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.parse import parse_jingle
from bridge.gateways.xmpp.jingle.print import print_jingle
from bridge.gateways.xmpp.jingle.session import Ours, Ring, State, step, we_win_tie
from bridge.gateways.xmpp.stanza import serialize
from sfu.description import (
    Candidate,
    Codec,
    DescriptionType,
    Direction,
    Extension,
    Feedback,
    Fingerprint,
    MediaKind,
    Setup,
    Source,
    SourceGroup,
    Transport,
)
from sfu.ice import host_candidates
from tests.gateways.xmpp.fakes import xml

WORD = some.text(some.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=40)
TOKEN = some.from_regex(r"[A-Za-z0-9.!_-]{1,30}", fullmatch=True)
ICE = some.text("abcXYZ0129+/", min_size=22, max_size=40)
FEEDBACK = some.builds(Feedback, WORD, some.one_of(some.just(""), WORD))
CODEC = some.builds(
    Codec,
    payload_type=some.integers(0, 127),
    name=WORD,
    clock_rate=some.integers(1, 1_000_000),
    channels=some.integers(1, 255),
    parameters=some.lists(some.tuples(WORD, WORD), max_size=3).map(tuple),
    feedback=some.lists(FEEDBACK, max_size=3).map(tuple),
)
SSRC = some.integers(0, 0xFFFFFFFF)
PAIRS = some.lists(some.tuples(WORD, WORD), max_size=2).map(tuple)


def unique(kind: object, key: object, size: int = 3) -> some.SearchStrategy[tuple[object, ...]]:
    return some.lists(kind, max_size=size, unique_by=key).map(tuple)  # type: ignore[arg-type]


RTP = some.builds(
    v.Rtp,
    media=some.sampled_from(["audio", "video"]),
    codecs=unique(CODEC, lambda c: c.payload_type),
    feedback=some.lists(FEEDBACK, max_size=2).map(tuple),
    extensions=unique(
        some.builds(Extension, some.integers(1, 255).filter(lambda n: n != 15), WORD),
        lambda e: e.id,
    ),
    sources=some.lists(some.builds(Source, SSRC, PAIRS), max_size=2).map(tuple),
    source_groups=some.lists(
        some.builds(SourceGroup, WORD, some.lists(SSRC, max_size=2).map(tuple)), max_size=2
    ).map(tuple),
    rtcp_mux=some.booleans(),
)
CANDIDATE = some.builds(
    Candidate,
    foundation=some.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
    component=some.integers(1, 256),
    protocol=some.sampled_from(["udp", "tcp"]),
    priority=some.integers(0, 0xFFFFFFFF),
    address=WORD,
    port=some.integers(0, 65535),
    kind=some.sampled_from(["host", "srflx", "prflx", "relay"]),
    tcp_type=some.sampled_from([None, "passive"]),
)
HEX = some.lists(some.integers(0, 255), min_size=20, max_size=64).map(
    lambda b: ":".join(f"{one:02X}" for one in b)
)
MARK = some.builds(Fingerprint, some.sampled_from(["sha-1", "sha-256"]), HEX)
TRANSPORT = some.builds(
    v.IceUdp,
    ufrag=ICE,
    pwd=ICE,
    fingerprints=some.lists(MARK, min_size=1, max_size=2).map(tuple),
    setup=some.sampled_from(Setup),
    candidates=some.lists(CANDIDATE, max_size=3).map(tuple),
)
CONTENT = some.builds(
    v.Content,
    name=TOKEN,
    creator=some.sampled_from(v.Party),
    senders=some.sampled_from(v.Senders),
    description=some.one_of(some.none(), RTP),
    transport=some.one_of(some.none(), TRANSPORT),
)
PLAIN_ACTIONS = [action for action in v.Action if action is not v.Action.SESSION_INFO]
JINGLE = some.builds(
    v.Jingle,
    action=some.sampled_from(PLAIN_ACTIONS),
    sid=WORD,
    initiator=some.one_of(some.just(""), WORD),
    responder=some.one_of(some.just(""), WORD),
    contents=unique(CONTENT, lambda c: c.name),
    bundle=some.lists(TOKEN, max_size=2).map(tuple),
    reason=some.one_of(
        some.none(), some.builds(v.Reason, some.sampled_from(["success", "decline"]), TOKEN)
    ),
)
INFO = some.builds(
    v.Jingle,
    action=some.just(v.Action.SESSION_INFO),
    sid=WORD,
    info=some.one_of(
        some.none(),
        some.builds(
            v.Info,
            some.sampled_from(v.InfoKind),
            some.one_of(some.just(""), TOKEN),
            some.one_of(some.none(), some.sampled_from(v.Party)),
        ),
    ),
)


@given(some.one_of(JINGLE, INFO))
def test_what_is_printed_is_read_back(jingle: v.Jingle) -> None:
    assert parse_jingle(print_jingle(jingle)) == jingle


@given(some.one_of(JINGLE, INFO), some.data())
def test_also_through_text_and_the_stream_parser_in_pieces(
    jingle: v.Jingle, data: some.DataObject
) -> None:
    raw = ("<s xmlns='jabber:client'>" + serialize(print_jingle(jingle))).encode()
    at = data.draw(some.integers(0, len(raw)))
    guard = Guard()
    items = guard.feed(raw[:at]) + guard.feed(raw[at:])
    (stanza,) = [item for item in items if isinstance(item, Stanza)]
    assert parse_jingle(stanza.element) == jingle


def _grow(tag: str, attributes: dict[str, str], children: list[Element]) -> Element:
    node = Element(tag, attributes)
    node.extend(children)
    return node


TAGS = [
    f"{{{v.JINGLE}}}content",
    f"{{{v.RTP}}}description",
    f"{{{v.RTP}}}payload-type",
    f"{{{v.ICE}}}transport",
    f"{{{v.ICE}}}candidate",
    f"{{{v.DTLS}}}fingerprint",
    f"{{{v.SOURCES}}}source",
    f"{{{v.GROUPING}}}group",
]
KEYS = ["name", "id", "ssrc", "port", "ufrag", "pwd", "senders", "creator", "semantics", "setup"]
TREE = some.recursive(
    some.builds(Element, some.sampled_from(TAGS)),
    lambda inner: some.builds(
        _grow,
        some.sampled_from(TAGS),
        some.dictionaries(some.sampled_from(KEYS), some.text(max_size=12), max_size=4),
        some.lists(inner, max_size=3),
    ),
    max_leaves=12,
)


@given(TREE)
def test_any_tree_is_a_value_or_malformed(tree: Element) -> None:
    node = Element(f"{{{v.JINGLE}}}jingle", {"action": "session-initiate", "sid": "s"})
    node.append(tree)
    with contextlib.suppress(Malformed):  # any other error fails the test
        jingle = parse_jingle(node)
        describe.to_description(jingle, v.Party.INITIATOR, DescriptionType.OFFER)


DINO = """<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='a73sjjvkla37jfea'
 initiator='alice@call.test/dino'>
 <content name='audio' creator='initiator'>
  <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>
   <payload-type id='111' name='opus' clockrate='48000' channels='2'>
    <parameter name='useinbandfec' value='1'/></payload-type>
   <payload-type id='0' name='PCMU' clockrate='8000'/>
   <encryption><crypto crypto-suite='AES_CM_128_HMAC_SHA1_80' key-params='inline:x' tag='1'/></encryption>
   <rtcp-mux/></description>
  <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='abcd' pwd='abcdefghijklmnopqrstuvwx'>
   <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>{mark}</fingerprint>
   <candidate component='1' foundation='1' generation='0' id='1' ip='192.0.2.1' network='0' port='4000'
    priority='2130706431' protocol='udp' type='host'/>
   <candidate component='2' foundation='1' generation='0' id='2' ip='192.0.2.1' network='0' port='4001'
    priority='2130706430' protocol='udp' type='host'/></transport></content></jingle>"""


def dino() -> v.Jingle:
    return parse_jingle(xml(DINO.format(mark=":".join(["ab"] * 32))))


def test_a_call_as_dino_writes_it() -> None:
    offer = describe.to_description(dino(), v.Party.INITIATOR, DescriptionType.OFFER)
    (audio,) = offer.sections
    assert offer.bundle == ()
    assert (audio.mid, audio.kind, audio.direction) == (
        "audio",
        MediaKind.AUDIO,
        Direction.SENDRECV,
    )
    assert audio.codecs[0] == Codec(111, "opus", 48_000, 2, (("useinbandfec", "1"),))
    assert [c.component for c in audio.transport.candidates] == [1]  # RTCP is multiplexed
    assert audio.transport.fingerprints[0].value == ":".join(["AB"] * 32)
    assert "encryption" not in serialize(print_jingle(dino()))


@given(
    some.sampled_from(v.Senders),
    some.sampled_from(v.Party),
)
def test_directions_are_exact(senders: v.Senders, author: v.Party) -> None:
    direction = describe.direction_of(senders, author)
    assert describe.senders_of(direction, author) is senders
    assert describe.senders_of(direction.reversed, author.other) is senders


@given(JINGLE, some.sampled_from(v.Party))
def test_contents_survive_the_way_through_descriptions(jingle: v.Jingle, author: v.Party) -> None:
    whole = tuple(c for c in jingle.contents if c.description and c.transport)
    if not whole:
        return
    there = describe.to_description(
        replace(jingle, contents=whole, bundle=()), author, DescriptionType.OFFER
    )
    back = describe.to_contents(there, author)
    again = describe.to_description(
        replace(jingle, contents=back, bundle=()), author, DescriptionType.OFFER
    )
    assert again == there


def test_feedback_of_the_description_belongs_to_every_codec_and_msid_is_found() -> None:
    jingle = dino()
    content = jingle.contents[0]
    assert content.description is not None
    rtp = replace(
        content.description,
        feedback=(Feedback("nack"),),
        sources=(Source(7, (("cname", "c"), ("msid", "stream track"))),),
    )
    section = describe.to_section(replace(content, description=rtp), v.Party.INITIATOR)
    assert all(Feedback("nack") in codec.feedback for codec in section.codecs)
    assert (section.stream, section.track) == ("stream", "track")


CONTENT_XML = "<content xmlns='urn:xmpp:jingle:1' name='x{}'/>"
PAYLOAD_XML = "<payload-type id='{}' name='x' clockrate='1'/>"
CANDIDATE_XML = "<candidate component='1' priority='1' ip='x{}' port='1' protocol='udp'/>"
EXTENSION_XML = "<rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='{}' uri='x'/>"
SOURCE_XML = "<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='{}'/>"

# What is replaced by what in the call that Dino writes.
BROKEN = {
    "no sid": ("sid='a73sjjvkla37jfea'", ""),
    "sid of 10,000 characters": ("a73sjjvkla37jfea", "x" * 10_000),
    "unknown action": ("session-initiate", "session-explode"),
    "17 contents": ("</jingle>", "".join(CONTENT_XML.format(n) for n in range(16)) + "</jingle>"),
    "two contents of one name": ("</jingle>", CONTENT_XML.format("") * 2 + "</jingle>"),
    "content name with a line break": ("name='audio'", "name='a&#13;&#10;a=ice-lite'"),
    "129 payload types": (
        "<rtcp-mux/>",
        "".join(PAYLOAD_XML.format(n % 128) for n in range(127)),
    ),
    "payload type 128": ("id='111'", "id='128'"),
    "payload type in other digits": ("id='111'", "id='\u0661\u0661'"),
    "payload type of 5,000 digits": ("id='111'", f"id='{'1' * 5_000}'"),
    "payload type twice": ("id='0'", "id='111'"),
    "channels 0": ("channels='2'", "channels='0'"),
    "fmtp of 1 MB": ("value='1'", f"value='{'1' * 1_000_000}'"),
    "65 candidates": (
        "</transport>",
        "".join(CANDIDATE_XML.format(n) for n in range(63)) + "</transport>",
    ),
    "port 65536": ("port='4000'", "port='65536'"),
    "negative priority": ("priority='2130706431'", "priority='-1'"),
    "address with a control character": ("ip='192.0.2.1'", "ip='192.0.2.1&#10;'"),
    "short password": ("pwd='abcdefghijklmnopqrstuvwx'", "pwd='short'"),
    "password with a line break": ("abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx&#10;"),
    "fingerprint that is none": ("AB:AB:", "a=setup:"),
    "unknown setup": ("setup='actpass'", "setup='holdconn'"),
    "extension 15": ("<rtcp-mux/>", EXTENSION_XML.format(15)),
    "extension id twice": ("<rtcp-mux/>", EXTENSION_XML.format(1) * 2),
    "ssrc over 32 bits": ("<rtcp-mux/>", SOURCE_XML.format(1 << 32)),
    "unknown creator": ("creator='initiator'", "creator='nobody'"),
    "not Jingle": ("xmlns='urn:xmpp:jingle:1'", "xmlns='urn:xmpp:jingle:0'"),
}


@pytest.mark.parametrize("change", BROKEN)
def test_what_no_peer_may_send(change: str) -> None:
    whole, (old, new) = DINO.format(mark=":".join(["AB"] * 32)), BROKEN[change]
    assert old in whole
    parse_jingle(xml(whole))
    with pytest.raises(Malformed):
        parse_jingle(xml(whole.replace(old, new, 1)))


@pytest.mark.parametrize("missing", ["description", "transport", "fingerprint", "audio or video"])
def test_a_call_without_what_media_needs_is_refused(missing: str) -> None:
    node = xml(DINO.format(mark=":".join(["ab"] * 32)))
    content = node[0]
    match missing:
        case "description":
            content.remove(content[0])
        case "transport":
            content.remove(content[1])
        case "fingerprint":
            content[1].remove(content[1][0])
        case _:
            content[0].set("media", "text")
    with pytest.raises(Malformed):
        describe.to_description(parse_jingle(node), v.Party.INITIATOR, DescriptionType.OFFER)


def test_an_unknown_info_is_told_apart_from_a_ping() -> None:
    node = Element(f"{{{v.JINGLE}}}jingle", {"action": "session-info", "sid": "s"})
    assert not parse_jingle(node).has_unknown_info
    SubElement(node, "{urn:example}dance")
    assert parse_jingle(node).has_unknown_info


# --- the state table ----------------------------------------------------------------------------------

EVENTS = [*v.Action, *Ours, *Ring]


@given(some.lists(some.sampled_from(EVENTS), max_size=20), some.sampled_from(State))
def test_any_order_of_events_is_a_state_or_the_right_fault(
    events: list[v.Action | Ours | Ring], state: State
) -> None:
    for event in events:
        try:
            state = step(state, event)
        except Malformed:
            assert not isinstance(event, Ours)
        except IllegalTransition:
            assert isinstance(event, Ours)
    assert step(state, Ours.END) is State.ENDED


def test_nothing_of_the_peer_happens_after_the_end() -> None:
    for event in (*v.Action, *Ring):
        with pytest.raises(Malformed):
            step(State.ENDED, event)


def test_a_call_in_both_directions() -> None:
    state = State.RINGING
    for event in (v.Action.SESSION_INITIATE, v.Action.TRANSPORT_INFO, Ours.ACCEPT):
        state = step(state, event)
    assert state is State.ACTIVE
    state = State.CALLING
    for event in (Ring.PROCEED, Ours.INITIATE, v.Action.TRANSPORT_INFO, v.Action.SESSION_ACCEPT):
        state = step(state, event)
    assert state is State.ACTIVE
    assert step(state, v.Action.SESSION_TERMINATE) is State.ENDED
    with pytest.raises(Malformed):
        step(State.ACTIVE, v.Action.SESSION_ACCEPT)


@given(WORD, WORD)
def test_exactly_one_side_wins_a_tie(one: str, other: str) -> None:
    if one != other:
        assert we_win_tie(one, other) != we_win_tie(other, one)


def test_tcp_candidates_are_not_spelled_in_jingle() -> None:
    """XEP-0176 section 5.5 knows UDP only."""
    told = describe.to_ice(
        Transport("abcd", "p" * 24, candidates=host_candidates(("192.0.2.7",), 8470, tcp=True))
    )
    assert [c.protocol for c in told.candidates] == ["udp"]
