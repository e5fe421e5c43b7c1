"""Spelling: ghosts never collide, hostile server names never parse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.conference.errors import Malformed
from bridge.conference.ids import Account, LegId, Network
from bridge.gateways.matrix.names import (
    MAX_GHOST_BYTES,
    MAX_NAME_CHARS,
    Namespace,
    clean_name,
    device_of,
    escape_localpart,
    is_user_id,
    parse_room_id,
    parse_server_name,
    parse_user_id,
    room_alias,
    skeleton,
    unescape_localpart,
)

OWN = Namespace("hs.test", "_parley_", "parley")
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ACCOUNTS = st.builds(Account, st.sampled_from([Network.XMPP, Network.WEB, Network.TOKEN]), WORDS)


@given(WORDS)
def test_the_escape_is_reversible_and_fits_a_localpart(text: str) -> None:
    escaped = escape_localpart(text)
    assert unescape_localpart(escaped) == text
    assert set(escaped) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_=")


@given(st.text(max_size=40))
def test_only_our_own_spelling_is_unescaped(text: str) -> None:
    try:
        plain = unescape_localpart(text)
    except Malformed:
        return
    assert escape_localpart(plain) == text


@given(ACCOUNTS, ACCOUNTS)
def test_two_accounts_never_share_a_ghost(one: Account, other: Account) -> None:
    assert (OWN.ghost(one) == OWN.ghost(other)) == (one == other)


@given(
    st.builds(
        Account,
        st.just(Network.XMPP),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=3000),
    )
)
def test_a_ghost_and_its_membership_key_fit(account: Account) -> None:
    ghost = OWN.ghost(account)
    assert is_user_id(ghost)
    assert len(ghost) <= MAX_GHOST_BYTES
    assert len(f"_{ghost}_{device_of(LegId('PA_x'))}_m.call".encode()) <= 255
    told = OWN.account(ghost)
    assert told in (None, account)


def test_an_occupant_and_a_jid_have_readable_ghosts() -> None:
    bob = Account(Network.XMPP, "bob@example.org")
    assert OWN.ghost(bob) == "@_parley_xmpp_bob=40example.org:hs.test"
    assert OWN.account(OWN.ghost(bob)) == bob
    assert OWN.ghost(Account(Network.XMPP, "r@muc/Ab")) == "@_parley_xmpp_r=40muc=2f=41b:hs.test"
    assert OWN.identity(bob, LegId("PA_1")).startswith("@_parley_xmpp_bob=40example.org:hs.test:P")
    alice = Account(Network.MATRIX, "@alice:hs.test")
    assert OWN.identity(alice, LegId("PA_1")).startswith("@alice:hs.test:P")


def test_a_guest_is_one_device_and_others_may_have_several() -> None:
    one, two = LegId("PA_1"), LegId("PA_2")
    for network, is_same in ((Network.WEB, True), (Network.TOKEN, True), (Network.XMPP, False)):
        account = Account(network, "somebody")
        assert (OWN.identity(account, one) == OWN.identity(account, two)) is is_same
        assert OWN.device(account, OWN.identity(account, one)) is not None
        assert OWN.device(Account(network, "else"), OWN.identity(account, one)) is None


def test_our_own_voice_is_known() -> None:
    assert OWN.owns("@parley:hs.test")
    assert OWN.owns("@_parley_xmpp_bob=40example.org:hs.test")
    assert not OWN.owns("@alice:hs.test")
    assert not OWN.owns("@_parley_xmpp_bob:other.test")


def test_the_room_alias_is_that_of_msc4195() -> None:
    vector = "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"
    assert room_alias("!roomid:example.com", "slot1234") == vector
    assert room_alias("!roomid:example.com") == room_alias("!roomid:example.com", "m.call#ROOM")


@pytest.mark.parametrize(
    ("text", "host", "port", "is_literal"),
    [
        ("example.org", "example.org", None, False),
        ("example.org:8448", "example.org", 8448, False),
        ("localhost", "localhost", None, False),
        ("1.2.3.4", "1.2.3.4", None, True),
        ("1.2.3.4:80", "1.2.3.4", 80, True),
        ("[::1]", "[::1]", None, True),
        ("[2001:db8::1]:443", "[2001:db8::1]", 443, True),
    ],
)
def test_server_names_are_taken_apart(
    text: str, host: str, port: int | None, is_literal: bool
) -> None:
    name = parse_server_name(text)
    assert (name.host, name.port, name.is_literal) == (host, port, is_literal)
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 300,
        "user@example.org",
        "example.org/path",
        "example.org?x",
        "example.org#x",
        "example.org:0",
        "example.org:65536",
        "example.org:+80",
        "example.org:80:80",
        "example.org:8 0",
        "example.org:\u0661",  # an Arabic digit
        "ex\u0430mple.org",  # a Cyrillic letter
        "example\u3002org",  # an ideographic full stop, which IDNA maps to a dot
        "example.org\\@evil",
        "example.org\n",
        "example.org%00",
        "-bad.example",
        "::1",
        "[::1",
        "[::1]x",
        "[fe80::1%25eth0]",
        "127.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "1.2.3.4.5",
        "[1.2.3.4]",
        "example..org",
    ],
)
def test_hostile_server_names_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_server_name(text)


@given(st.text(max_size=300))
def test_a_server_name_parses_or_is_malformed(text: str) -> None:
    try:
        name = parse_server_name(text)
    except Malformed:
        return
    assert str(name).rstrip("0123456789:") == text.rstrip("0123456789:")
    assert text.isascii()
    assert not set(text) & set("/@?#\\% \n\r\t")


@given(st.one_of(st.none(), st.integers(), st.text(max_size=300)))
def test_ids_parse_or_are_malformed(value: object) -> None:
    for parse in (parse_user_id, parse_room_id):
        try:
            parse(value)
        except Malformed:
            continue
        assert isinstance(value, str)


@given(st.text(max_size=500))
def test_shown_names_are_harmless_and_stable(text: str) -> None:
    name = clean_name(text)
    assert len(name) <= MAX_NAME_CHARS
    assert name == name.strip()
    assert not set(name) & set("\u202e\u202d\u200b\u200d\ufeff\n\t\x00")
    assert skeleton(name) == skeleton(skeleton(name))


def test_names_that_look_alike_share_a_skeleton() -> None:
    assert skeleton("\u0410lice") == skeleton("Alice")  # a Cyrillic capital A
    assert skeleton("A\u200blice") == skeleton("alice")
    assert skeleton("B0b") == skeleton("bob")
    assert skeleton("Alice") != skeleton("Bob")
    assert clean_name("evil\u202egnp") == "evilgnp"
    assert clean_name("Z\u0301\u0302\u0303\u0304\u0305\u0306x").count("\u0306") == 0
