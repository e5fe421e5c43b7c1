"""The pure parts beside Jingle: rooms, names, capabilities, Jingle messages, stanzas, commands."""

import string
import unicodedata
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bridge.conference.commands import RuleStreams
from bridge.conference.errors import Malformed, Refused
from bridge.conference.ids import Account, Actor, Network, Role
from bridge.conference.streams import StreamRule
from bridge.gateways.xmpp import commands, disco, jmi, link, muc, names
from bridge.gateways.xmpp import stanza as st
from tests.gateways.xmpp.fakes import CONFERENCE, MUC, House, xml

USER = "http://jabber.org/protocol/muc#user"


def here(
    nick: str,
    *,
    kind: str = "",
    occupant_id: str = "",
    real: str = "",
    codes: tuple[int, ...] = (),
    new_nick: str = "",
    affiliation: str = "none",
    role: str = "participant",
) -> Element:
    jid = f" jid='{real}'" if real else ""
    moved = f" nick='{new_nick}'" if new_nick else ""
    status = "".join(f"<status code='{code}'/>" for code in codes)
    mark = (
        f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{occupant_id}'/>" if occupant_id else ""
    )
    return xml(
        f"<presence xmlns='jabber:client' from='{MUC}/{nick}' type='{kind}'>"
        f"<x xmlns='{USER}'><item affiliation='{affiliation}' role='{role}'{jid}{moved}/>{status}</x>"
        f"{mark}</presence>"
    )


def said(nick: str, inner: str = "<body>hi</body>", *, id: str = "m1") -> Element:
    return xml(
        f"<message xmlns='jabber:client' type='groupchat' from='{MUC}/{nick}' id='{id}'>{inner}</message>"
    )


# --- rooms -----------------------------------------------------------------------------------------------


def test_who_takes_a_nickname_takes_no_identity() -> None:
    """S37: A leaves, B takes A's nickname."""
    roster = muc.Roster(MUC)
    roster.apply(here("Ann", occupant_id="one", affiliation="owner"))
    ann = roster.by_nick["Ann"]
    assert (roster.account(ann).address, ann.rank) == (f"{MUC}/one", Role.OWNER)
    roster.apply(here("Ann", kind="unavailable", occupant_id="one"))
    roster.apply(here("Ann", occupant_id="two"))
    thief = roster.by_nick["Ann"]
    assert (roster.account(thief).address, thief.rank) == (f"{MUC}/two", Role.MEMBER)


def test_a_new_nickname_keeps_the_identity_even_where_services_tell_none() -> None:
    roster = muc.Roster(MUC)
    roster.apply(here("Ann"))
    before = roster.account(roster.by_nick["Ann"])
    roster.apply(here("Ann", role="visitor"))
    assert roster.account(roster.by_nick["Ann"]) == before
    roster.apply(here("Ann", kind="unavailable", codes=(303,), new_nick="Anna"))
    roster.apply(here("Anna"))
    assert roster.account(roster.by_nick["Anna"]) == before
    roster.apply(here("Anna", kind="unavailable"))
    roster.apply(here("Anna"))
    assert roster.account(roster.by_nick["Anna"]) != before  # another visit is somebody else


def test_a_forged_real_address_in_a_live_line_counts_nothing() -> None:
    forged = f"<body>hi</body><x xmlns='{USER}'><item jid='owner@call.test'/></x>"
    line = muc.parse_line(said("Eve", forged), MUC, 5)
    assert line is not None
    assert line.real == ""
    archived = muc.parse_line(said("Eve", forged), MUC, 5, "archive-1")
    assert archived is not None
    assert archived.real == "owner@call.test"


def test_only_the_rooms_own_stanza_id_counts() -> None:
    marks = (
        "<body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='eve@else.test' id='forged'/>"
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{MUC}' id='true'/>"
    )
    line = muc.parse_line(said("Ann", marks), MUC, 5)
    assert line is not None
    assert line.source_id == "true"


def test_what_is_not_a_line() -> None:
    assert muc.parse_line(said("Ann", "<subject>s</subject>"), MUC, 0) is None
    assert muc.parse_line(said("", "<body>the room speaks</body>"), MUC, 0) is None
    with pytest.raises(Malformed):
        muc.parse_line(said("Ann"), "other@muc.call.test", 0)
    emote = muc.parse_line(said("Ann", "<body>/me waves</body>"), MUC, 0)
    assert emote is not None
    assert (emote.text, emote.is_emote) == ("waves", True)
    long = muc.parse_line(said("Ann", f"<body>{'x' * 100_000}</body>"), MUC, 0)
    assert long is not None
    assert len(long.text) == muc.MAX_BODY


@given(some.text(max_size=40))
def test_any_stamp_is_a_time(stamp: str) -> None:
    assert isinstance(muc.stamp_ms(stamp, 7), int)


def test_stamps() -> None:
    assert muc.stamp_ms("2026-11-20T10:00:00Z", 0) == 1_795_168_800_000
    assert muc.stamp_ms(muc.stamp_of(1_795_168_800_000), 0) == 1_795_168_800_000
    assert muc.stamp_ms("yesterday", 7) == 7


# --- names -----------------------------------------------------------------------------------------------


@given(some.text(max_size=600))
def test_a_clean_name_is_short_visible_and_stable(name: str) -> None:
    clean = names.clean_name(name)
    assert len(clean) <= names.MAX_NICK
    assert clean == clean.strip()
    assert not any(unicodedata.category(c)[0] == "C" for c in clean)
    assert names.nick_for(Account(Network.MATRIX, "@x:y"), name)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Bob\u202egnp.exe", "Bobgnp.exe"),  # right-to-left override
        ("B\u200bo\u200db", "Bob"),  # zero width
        ("ﬁne Ｗidth", "fine Width"),
        ("a\nb\tc", "abc"),
        ("  spaced   out  ", "spaced out"),
        ("q" + "\u0301" * 50, "q" + "\u0301" * names.MAX_MARKS),
        ("x" * 10_000, "x" * names.MAX_NICK),
    ],
)
def test_names_that_play_tricks(raw: str, clean: str) -> None:
    assert names.clean_name(raw) == clean


@pytest.mark.parametrize(
    "lookalike", ["alice", "Alice", "аlice", "a.lice", "аlісе", "ALICE", "al1ce"]
)
def test_a_name_that_looks_like_a_present_one_gets_the_suffix(lookalike: str) -> None:
    first = next(names.candidates(lookalike, " (m)", ("Alice",)))
    assert first == f"{lookalike} (m)"
    assert next(names.candidates(lookalike, " (m)", ("Zoe",))) == lookalike


def test_puppet_addresses_are_stable_and_opaque() -> None:
    one = names.puppet_node(Account(Network.MATRIX, "@alice:hs.test"))
    assert one == names.puppet_node(Account(Network.MATRIX, "@alice:hs.test"))
    assert one != names.puppet_node(Account(Network.WEB, "@alice:hs.test"))
    assert set(one) <= set(string.ascii_lowercase + string.digits + "-")


# --- capabilities ------------------------------------------------------------------------------------------


def test_caps_of_the_specification() -> None:
    """XEP-0115 section 5.2, the simple generation example."""
    exodus = disco.Capabilities(
        "client",
        "pc",
        "Exodus 0.9.1",
        (
            "http://jabber.org/protocol/caps",
            "http://jabber.org/protocol/disco#info",
            "http://jabber.org/protocol/disco#items",
            "http://jabber.org/protocol/muc",
        ),
    )
    assert exodus.version == "QgayPKawpkPSDYmwT/WM94uAlu0="


def test_the_focus_says_what_callers_look_for() -> None:
    result = st.iq("a@b", "c@d", "result", "1")
    disco.put_info(result, disco.FOCUS, "")
    features = disco.features_of(result)
    assert {
        "urn:xmpp:jingle:1",
        "urn:xmpp:jingle:apps:rtp:1",
        "urn:xmpp:jingle:apps:rtp:audio",
        "urn:xmpp:jingle:apps:rtp:video",
        "urn:xmpp:jingle:transports:ice-udp:1",
        "urn:xmpp:jingle:apps:dtls:0",
        "urn:xmpp:jingle-message:0",
        "urn:xmpp:jingle:apps:grouping:0",
    } <= features
    assert list(disco.FOCUS.features) == sorted(disco.FOCUS.features)


# --- Jingle messages ---------------------------------------------------------------------------------------

JMI = some.builds(
    jmi.Jmi,
    verb=some.sampled_from([verb for verb in jmi.Verb if verb is not jmi.Verb.PROPOSE]),
    sid=some.text(string.ascii_letters, min_size=1, max_size=128),
    reason=some.sampled_from(["", "busy", "decline"]),
) | some.builds(
    jmi.Jmi,
    verb=some.just(jmi.Verb.PROPOSE),
    sid=some.text(string.ascii_letters, min_size=1, max_size=128),
    media=some.lists(some.sampled_from(["audio", "video"]), min_size=1, max_size=3).map(tuple),
)


@given(JMI)
def test_jingle_messages_are_read_back(news: jmi.Jmi) -> None:
    assert jmi.find_jmi(jmi.put_jmi(st.message("a@b", "c@d", "chat"), news)) == news


@pytest.mark.parametrize(
    "inner",
    [
        "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>",
        "<propose xmlns='urn:xmpp:jingle-message:0' id='1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='smell'/></propose>",
        "<proceed xmlns='urn:xmpp:jingle-message:0'/>",
        f"<proceed xmlns='urn:xmpp:jingle-message:0' id='{'x' * 129}'/>",
        "<explode xmlns='urn:xmpp:jingle-message:0' id='1'/>",
    ],
)
def test_jingle_messages_nobody_may_send(inner: str) -> None:
    with pytest.raises(Malformed):
        jmi.find_jmi(said("x", inner))


# --- stanzas ----------------------------------------------------------------------------------------------


@given(some.text(max_size=200), some.text(max_size=50))
def test_any_text_leaves_a_well_formed_stanza(body: str, id: str) -> None:
    message = st.message("a@b", "c@d", "chat", id=id)
    st.add(message, st.CLIENT, "body", body)
    back = fromstring(st.serialize(message))
    assert back.tag == st.MESSAGE
    kept = "".join(c for c in body if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
    kept = "".join(c for c in kept if not 0xD800 <= ord(c) < 0xE000)
    got = back.findtext(st.BODY) or ""
    assert got.replace("\r\n", "\n").replace("\r", "\n") == kept.replace("\r\n", "\n").replace(
        "\r", "\n"
    )


@pytest.mark.parametrize("text", ["", None, "@host", "a@", "x" * 4000])
def test_addresses_that_are_none(text: str | None) -> None:
    with pytest.raises(Malformed):
        st.parse_jid(text)


def test_addresses() -> None:
    jid = st.parse_jid("Bob@Call.Test/Pc @home")
    assert (jid.node, jid.domain, jid.resource) == ("bob", "call.test", "Pc @home")
    assert str(jid) == "bob@call.test/Pc @home"


@pytest.mark.parametrize(
    ("host", "tls", "allowed"),
    [
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("localhost", False, True),
        ("192.0.2.1", False, False),
        ("xmpp.example.org", False, False),
        ("localhost.example.org", False, False),
        ("xmpp.example.org", True, True),
    ],
)
def test_the_secret_stays_on_the_machine_or_under_tls(host: str, tls: bool, allowed: bool) -> None:
    """S40."""
    if allowed:
        link.refuse_plain_secret(host, tls)
    else:
        with pytest.raises(Refused, match=r"xmpp\.tls"):
            link.refuse_plain_secret(host, tls)


# --- commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("!conf", ("help", "")),
        ("!CONF Status", ("status", "")),
        ("!conf mute  @Bob Smith ", ("mute", "@Bob Smith")),
        ("!confuse mute", None),
        ("see !conf help", None),
    ],
)
def test_what_is_a_command(text: str, found: tuple[str, str] | None) -> None:
    assert commands.split(text) == found


async def test_help_names_every_command() -> None:
    table = commands.Commands(House().context, lambda conference, jid: None)
    answer = await commands.TABLE["help"].act(table, None)  # type: ignore[arg-type]
    assert all(f"!conf {word}" in answer for word in commands.TABLE)


async def test_the_policy_is_shown_to_all_and_ruled_by_the_conference() -> None:
    house = House(CONFERENCE)
    table = commands.Commands(house.context, lambda conference, jid: None)
    by = Actor(Account(Network.XMPP, "ann@call.test"), Role.MODERATOR, "Ann")

    async def ask(rest: str) -> str:
        asked = commands.Asked(by, "policy", rest, CONFERENCE, None)  # type: ignore[arg-type]
        return await table.run(asked)

    assert (await ask("")).count("(as configured)") == 4
    assert "For example: quiet-video 20" in await ask("quiet-video soon")
    assert house.submitted == []
    await ask("quiet-video 20")
    assert house.submitted == [RuleStreams(by, StreamRule.QUIET_VIDEO, 20)]
    house.refuse = lambda command: Refused("Only a moderator")
    assert await ask("default") == "Only a moderator"
