"""Which conference is meant (`ports.Directory`)."""

from collections.abc import Sequence

from bridge.conference.ids import ConferenceId, Place
from bridge.conference.ports import ConferenceRecord


class SqlDirectory:
    """Keeps `ports.Directory`."""

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        raise NotImplementedError

    async def by_room(self, room: str) -> ConferenceRecord | None:
        raise NotImplementedError

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        raise NotImplementedError

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        raise NotImplementedError

    async def all(self) -> Sequence[ConferenceRecord]:
        raise NotImplementedError

    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        """The conference of this room, made if absent. An `auto` one becomes a named one when asked for
        with `auto=False`. Raises `Refused` when another conference has the slug."""
        raise NotImplementedError
