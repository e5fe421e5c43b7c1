"""Finding and making conferences."""

import asyncio
import re

import pytest

from bridge.conference.errors import Refused
from bridge.conference.events import Bound
from bridge.conference.ids import Network, Place
from bridge.store import Stores
from tests.store.people import BY, MUC, ROOM


async def test_every_way_to_find_one(stores: Stores) -> None:
    made = await stores.directory.create(room="r1", slug="demo", title="Demo")
    assert re.fullmatch(r"c_[0-9a-z]{26}", made.id)
    await stores.journal.commit(made, [Bound(ROOM, BY), Bound(MUC, BY)])
    found = await stores.directory.by_id(made.id)
    assert found is not None
    assert (found.slug, found.room, found.title, found.auto) == ("demo", "r1", "Demo", False)
    assert found.places == (ROOM, MUC)
    assert await stores.directory.by_room("r1") == found
    assert await stores.directory.by_slug("demo") == found
    assert await stores.directory.by_place(MUC) == found
    assert await stores.directory.by_place(Place(Network.MATRIX, MUC.address)) is None
    assert await stores.directory.by_room("R1") is None
    second = await stores.directory.create(room="r2")
    assert list(await stores.directory.all()) == [found, second]


async def test_making_the_same_room_twice_gives_the_same_conference(stores: Stores) -> None:
    many = await asyncio.gather(*(stores.directory.create(room="r1") for _ in range(8)))
    assert len({one.id for one in many}) == 1
    assert re.fullmatch(r"[0-9a-z]{8}", many[0].slug)


async def test_a_slug_belongs_to_one_conference(stores: Stores) -> None:
    await stores.directory.create(room="r1", slug="demo")
    with pytest.raises(Refused, match="another conference is called 'demo' already"):
        await stores.directory.create(room="r2", slug="demo")
    assert await stores.directory.by_room("r2") is None


async def test_an_automatic_conference_becomes_a_named_one(stores: Stores) -> None:
    auto = await stores.directory.create(room="r1", auto=True)
    assert auto.auto
    assert await stores.directory.create(room="r1", auto=True) == auto
    named = await stores.directory.create(room="r1", slug="demo", title="Demo")
    assert (named.id, named.slug, named.title, named.auto) == (auto.id, "demo", "Demo", False)
    await stores.directory.create(room="r2", auto=True)
    with pytest.raises(Refused):
        await stores.directory.create(room="r2", slug="demo")
    # A named one keeps its name when it is merely met again.
    assert await stores.directory.create(room="r1", auto=True) == named
