"""One commit for what a command caused (`ports.Journal`)."""

from collections.abc import Sequence

from bridge.conference.events import Event
from bridge.conference.ids import ConferenceId
from bridge.conference.ports import Cause, ConferenceRecord, Restored


class SqlJournal:
    """Keeps `ports.Journal`."""

    async def commit(
        self, conference: ConferenceRecord, events: Sequence[Event], cause: Cause | None = None
    ) -> bool:
        """False: a `Said` among them was committed before; nothing is written but the inbox row's end.

        Raises `Refused` when a `Bound` place belongs to another conference (nothing is written).
        """
        raise NotImplementedError

    async def restore(self, conference: ConferenceId) -> Restored | None:
        raise NotImplementedError

    async def live(self) -> Sequence[ConferenceId]:
        raise NotImplementedError
