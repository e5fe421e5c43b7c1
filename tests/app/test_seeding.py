"""Conferences of the configuration."""

from collections.abc import Sequence

from bridge.app.seeding import OPERATOR, room_of, seed
from bridge.conference.commands import Bind, Command
from bridge.conference.errors import Refused
from bridge.conference.events import Event
from bridge.conference.ids import ConferenceId, Network, Place
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.config import ConferenceSection

TEA = ConferenceSection(slug="tea", title="Tea", matrix=("!roomid:example.com",), xmpp=("t@muc",))


class MemoryDirectory:
    """Keeps `ports.Directory`."""

    def __init__(self) -> None:
        self.records: list[ConferenceRecord] = []

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        return next((r for r in self.records if r.id == conference), None)

    async def by_room(self, room: str) -> ConferenceRecord | None:
        return next((r for r in self.records if r.room == room), None)

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return next((r for r in self.records if r.slug == slug), None)

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        return next((r for r in self.records if place in r.places), None)

    async def all(self) -> Sequence[ConferenceRecord]:
        return self.records

    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        self.records.append(ConferenceRecord(ConferenceId(f"c_{slug}"), slug, room, title))
        return self.records[-1]


async def test_a_conference_is_made_once_and_bound_to_its_places() -> None:
    directory = MemoryDirectory()
    asked: list[Command] = []

    async def submit(
        conference: ConferenceId, command: Command, cause: Cause | None
    ) -> tuple[Event, ...]:
        asked.append(command)
        if len(asked) == 1:
            raise Refused("another conference has it")
        return ()

    await seed(TEA, directory, submit)
    assert asked == [
        Bind(OPERATOR, Place(Network.MATRIX, "!roomid:example.com")),
        Bind(OPERATOR, Place(Network.XMPP, "t@muc")),
    ]
    await seed(TEA, directory, submit)
    assert [(r.slug, r.room, r.title) for r in directory.records] == [("tea", room_of(TEA), "Tea")]


def test_the_room_is_what_element_call_computes() -> None:
    # Computed apart with: printf '["!roomid:example.com","m.call#ROOM"]' | openssl sha256 -binary | base64
    assert room_of(TEA) == "F4oOprKFBq6JHqy2qYpq6UQQmR7hCvxkQQoUrd0+SbI"
    assert room_of(ConferenceSection(slug="talk", xmpp=("t@muc",))) == "talk"
