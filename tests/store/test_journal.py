"""One commit per command: state, audit, outbox and the inbox row stand or fall together."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from bridge.conference.errors import IllegalTransition, Malformed, Refused
from bridge.conference.events import (
    Bound,
    Ended,
    Joined,
    Left,
    LegChanged,
    MuteRuled,
    Said,
    StreamsRuled,
    TrackMuted,
    TrackPublished,
    TrackUnpublished,
    Unbound,
)
from bridge.conference.ids import (
    Account,
    ConferenceId,
    LeaveReason,
    LegId,
    LegState,
    Network,
    Place,
    TrackKind,
)
from bridge.conference.ports import Cause, ConferenceRecord, MuteRule, Restored
from bridge.conference.streams import AS_CONFIGURED, StreamChoice, StreamRule
from bridge.config import Config
from bridge.store import Stores, open_store
from bridge.store.tables import audit
from bridge.store.values import Unreadable, dumps, from_text, to_text
from tests.store.people import ALICE, BOB, BY, MUC, ROOM, leg, said, track

OTHER_MUC = Place(Network.XMPP, "other@muc.test")


@pytest.fixture
async def record(stores: Stores) -> ConferenceRecord:
    made = await stores.directory.create(room="r1", slug="demo")
    await stores.journal.commit(made, [Bound(ROOM, BY), Bound(MUC, BY), Bound(OTHER_MUC, BY)])
    return made


async def restored(stores: Stores, record: ConferenceRecord) -> Restored:
    found = await stores.journal.restore(record.id)
    assert found is not None
    return found


async def test_an_unknown_conference_has_nothing(stores: Stores) -> None:
    assert await stores.journal.restore(ConferenceId("c_none")) is None
    assert await stores.journal.live() == []


async def test_legs_and_tracks_follow_the_events(stores: Stores, record: ConferenceRecord) -> None:
    one, two = leg("PA_1", joined_ms=2), leg("PA_2", joined_ms=1)
    await stores.journal.commit(record, [Joined(one, True), Joined(two, False)])
    assert (await restored(stores, record)).legs == (two, one)  # in order of joining
    assert await stores.journal.live() == [record.id]

    sound, picture = track(one), track(one, "TR_2")
    # The core may or may not have put the track into the leg already: same result.
    await stores.journal.commit(record, [TrackPublished(one, sound)])
    with_both = replace(one, tracks=(sound, picture))
    await stores.journal.commit(record, [TrackPublished(with_both, picture)])
    muted = replace(sound, muted=True)
    await stores.journal.commit(record, [TrackMuted(with_both, muted, False)])
    assert (await restored(stores, record)).legs[1].tracks == (muted, picture)
    await stores.journal.commit(
        record, [TrackUnpublished(replace(with_both, tracks=(muted, picture)), picture)]
    )
    assert (await restored(stores, record)).legs[1].tracks == (muted,)

    lost = replace(two, state=LegState.LOST, version=7)
    await stores.journal.commit(record, [LegChanged(lost)])
    assert (await restored(stores, record)).legs[0] == lost
    await stores.journal.commit(record, [Left(lost, LeaveReason.LOST, False)])
    assert [x.id for x in (await restored(stores, record)).legs] == ["PA_1"]
    await stores.journal.commit(record, [Ended(BY)])
    assert (await restored(stores, record)).legs == ()
    assert await stores.journal.live() == []


async def test_mutes_are_kept_per_kind(stores: Stores, record: ConferenceRecord) -> None:
    await stores.journal.commit(record, [MuteRuled(BOB, None, True, BY)])
    await stores.journal.commit(record, [MuteRuled(BOB, TrackKind.AUDIO, True, BY)])  # again
    await stores.journal.commit(record, [MuteRuled(ALICE, TrackKind.AUDIO, True, BY)])
    await stores.journal.commit(record, [MuteRuled(BOB, TrackKind.AUDIO, False, BY)])
    assert set((await restored(stores, record)).mutes) == {
        MuteRule(BOB, TrackKind.VIDEO),
        MuteRule(ALICE, TrackKind.AUDIO),
    }
    await stores.journal.commit(record, [MuteRuled(BOB, None, False, BY)])
    assert (await restored(stores, record)).mutes == (MuteRule(ALICE, TrackKind.AUDIO),)


async def test_a_choice_of_moderators_survives_a_restart(config: Config) -> None:
    stores = await open_store(config)
    record = await stores.directory.create(room="r1", slug="tea")
    assert record.streams == AS_CONFIGURED
    choice = StreamChoice(last_n=5, audience=True)
    ruled = StreamsRuled(choice, StreamRule.AUDIENCE, 1, BY)
    await stores.journal.commit(record, [Bound(MUC, BY), ruled])
    await stores.close()
    stores = await open_store(config)
    assert (await restored(stores, record)).record.streams == choice
    for found in (await stores.directory.by_slug("tea"), await stores.directory.by_place(MUC)):
        assert found is not None
        assert found.streams == choice
    await stores.journal.commit(record, [StreamsRuled(AS_CONFIGURED, None, None, BY)])
    assert (await restored(stores, record)).record.streams == AS_CONFIGURED
    query = select(audit).order_by(audit.c.id)
    rows = await stores._database.read(lambda db: db.execute(query).all())
    assert [(row.event, row.target, row.detail) for row in rows[1:]] == [
        ("StreamsRuled", "audience", '{"value":1}'),
        ("StreamsRuled", "all", '{"value":null}'),
    ]
    await stores.close()


async def test_a_place_belongs_to_one_conference(stores: Stores, record: ConferenceRecord) -> None:
    other = await stores.directory.create(room="r2")
    joined = Joined(leg(), True)
    with pytest.raises(Refused, match=r"demo@muc\.test is linked to another conference already"):
        await stores.journal.commit(other, [joined, Bound(MUC, BY)])
    assert await stores.journal.live() == []  # nothing of the commit stands
    await stores.journal.commit(record, [Bound(MUC, BY)])  # again: harmless
    await stores.journal.commit(other, [Unbound(MUC, BY)])  # not the holder: nothing happens
    assert (await restored(stores, record)).record.places == (ROOM, MUC, OTHER_MUC)
    await stores.journal.commit(record, [Unbound(MUC, BY)])
    await stores.journal.commit(other, [Bound(MUC, BY)])
    found = await stores.directory.by_place(MUC)
    assert found is not None
    assert found.id == other.id


async def test_binding_makes_an_automatic_conference_a_lasting_one(stores: Stores) -> None:
    made = await stores.directory.create(room="auto", auto=True)
    assert made.auto
    await stores.journal.commit(made, [Bound(MUC, BY)])
    assert not (await restored(stores, made)).record.auto


@pytest.mark.parametrize(
    ("origin", "expected"),
    [(ROOM, [MUC, OTHER_MUC]), (MUC, [ROOM, OTHER_MUC]), (None, [ROOM, MUC, OTHER_MUC])],
)
async def test_a_line_goes_to_every_place_but_its_own(
    stores: Stores, record: ConferenceRecord, origin: Place | None, expected: list[Place]
) -> None:
    assert await stores.journal.commit(record, [said("e1", origin=origin)])
    assert set(await stores.outbox.places()) == set(expected)


async def test_a_line_is_said_once(stores: Stores, record: ConferenceRecord) -> None:
    await stores.inbox.put("matrix", "t1", [("a", {}), ("b", {})])
    rows = stores.inbox.rows("matrix")
    first, second = await anext(rows), await anext(rows)
    await rows.aclose()  # type: ignore[attr-defined]
    line = said("e1")
    assert await stores.journal.commit(record, [line], Cause(first.id))
    # A repetition under another message id and with other state beside it: all of it is dropped.
    again = replace(line, message_id="m-other", text="changed")
    assert not await stores.journal.commit(record, [Joined(leg(), True), again], Cause(second.id))
    assert await stores.journal.live() == []
    row = await stores.outbox.next(MUC)
    assert row is not None
    assert row.said == line
    await stores.outbox.confirm(row.id, "x")
    assert await stores.outbox.next(MUC) is None
    # Both inbox rows are done: a new reader gets neither.
    await stores.inbox.put("matrix", "t2", [("c", {})])
    rows = stores.inbox.rows("matrix")
    assert (await anext(rows)).source_id == "c"
    await rows.aclose()  # type: ignore[attr-defined]


async def test_the_same_id_of_another_source_is_another_line(
    stores: Stores, record: ConferenceRecord
) -> None:
    assert await stores.journal.commit(record, [said("e1")])
    other = replace(said("e1", message_id="m2"), source="xmpp")
    assert await stores.journal.commit(record, [other])


async def test_a_conference_that_is_not_in_sql_is_our_mistake(stores: Stores) -> None:
    nowhere = ConferenceRecord(ConferenceId("c_none"), "s", "r")
    with pytest.raises(IllegalTransition):
        await stores.journal.commit(nowhere, [Joined(leg(), True)])


async def test_the_audit_names_who_did_what_and_quotes_nobody(
    stores: Stores, record: ConferenceRecord
) -> None:
    one = leg()
    sound = track(one, forced=True, muted=True)
    await stores.journal.commit(
        record,
        [
            Joined(one, True),
            MuteRuled(ALICE, TrackKind.AUDIO, True, BY),
            TrackMuted(one, sound, False, BY),
            TrackMuted(one, sound, False),  # by herself: not worth a row
            said("e1", "canary"),
            Left(one, LeaveReason.REMOVED, True, BY),
            Unbound(MUC, BY),
            Ended(BY),
        ],
    )
    query = select(audit).order_by(audit.c.id)
    rows = await stores._database.read(lambda db: db.execute(query).all())
    assert [row.event for row in rows[3:]] == [
        *("Joined", "MuteRuled", "TrackMuted", "Left", "Unbound", "Ended"),
    ]
    assert rows[4].by == "matrix:@alice:hs.test"
    assert rows[4].target == "matrix:@alice:hs.test"
    assert rows[0].target == "matrix:!room:hs.test"
    assert "canary" not in str(rows)


async def test_wire_state_lives_as_long_as_its_leg(config: Config) -> None:
    stores = await open_store(config)
    record = await stores.directory.create(room="r1")
    one, two = leg("PA_1"), leg("PA_2")
    await stores.legs.save(record.id, one.id, "livekit", {"v": 1, "mids": ["0", "1"]})
    assert await stores.legs.load(record.id) == {}  # not joined yet
    await stores.journal.commit(record, [Joined(one, True), Joined(two, False)])
    await stores.legs.save(record.id, one.id, "livekit", {"v": 2})
    await stores.journal.commit(record, [LegChanged(one)])
    await stores.legs.save(record.id, LegId("PA_3"), "livekit", {"v": 1})
    await stores.close()
    stores = await open_store(config)
    assert await stores.legs.load(record.id) == {one.id: {"v": 2}, two.id: {}}
    await stores.journal.commit(record, [Joined(leg("PA_3"), False)])
    assert (await stores.legs.load(record.id))[LegId("PA_3")] == {}  # its notes went at the start
    await stores.legs.forget(two.id)
    await stores.journal.commit(record, [Left(one, LeaveReason.LEFT, False)])
    assert set(await stores.legs.load(record.id)) == {"PA_3"}
    await stores.close()


# Anything a peer may put into a name: NUL, lone surrogates, bidi marks, SQL.
_names = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ["\0", "\ud800", "'; DROP TABLE legs; --", "%_\\", "\u202e", "💥"]
)


@given(name=_names, text=_names)
def test_core_values_survive_json(name: str, text: str) -> None:
    one = replace(leg(), name=name, tracks=(track(leg(), name=text),))
    assert from_text(to_text(one), type(one)) == one
    line = said("e", text)
    assert from_text(to_text(line), Said) == line
    assert to_text(line).isascii()


def test_newer_fields_are_ignored_and_newer_versions_refused() -> None:
    text = to_text(said("e"))
    newer = text.replace('"text":', '"mood":"new","text":')
    assert from_text(newer, Said) == said("e")
    for broken in (text.replace('{"v":1', '{"v":2'), "[]", "{}", "x", dumps({"v": 1, "value": {}})):
        with pytest.raises(Unreadable):
            from_text(broken, Said)


@given(name=_names, text=_names, source_id=_names)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_string_breaks_a_commit(
    stores: Stores, name: str, text: str, source_id: str
) -> None:
    """S43, on both databases: strings of peers in every column that takes them."""
    record = await stores.directory.create(room="strings", slug="strings")
    await stores.journal.commit(record, [Bound(OTHER_MUC, BY)])
    one = replace(leg(), name=name)
    line = said(source_id, text, origin=None, message_id=f"m-{hash(source_id)}")
    await stores.inbox.put("xmpp", source_id, [(source_id, {"body": text})])
    fresh = await stores.journal.commit(record, [Joined(one, True), line])
    await stores.legs.save(record.id, one.id, "livekit", {"name": name})
    if fresh:
        found = await stores.journal.restore(record.id)
        assert found is not None
        assert found.legs == (one,)
        row = await stores.outbox.next(OTHER_MUC)
        assert row is not None
        assert row.said == line
        await stores.outbox.dead(row.id, name)
    assert (await stores.legs.load(record.id))[one.id] == {"name": name}


@pytest.mark.parametrize("address", ["a\0b", "a\ud800b"])
async def test_an_account_that_no_column_takes_is_refused_cleanly(
    stores: Stores, config: Config, address: str
) -> None:
    """A NUL is nothing to PostgreSQL, half a surrogate pair to neither. It must not look like an outage."""
    record = await stores.directory.create(room="r9")
    rule = MuteRuled(Account(Network.WEB, address), TrackKind.AUDIO, True, BY)
    if "\0" in address and "sqlite" in config.database.url:
        await stores.journal.commit(record, [rule])
        kept = (await restored(stores, record)).mutes
        assert kept == (MuteRule(rule.target, TrackKind.AUDIO),)
        return
    with pytest.raises(Malformed) as caught:
        await stores.journal.commit(record, [rule])
    assert "a\0b" not in str(caught.value.__cause__)
    assert await stores.journal.commit(record, [Joined(leg(), True)])  # the connection is well
