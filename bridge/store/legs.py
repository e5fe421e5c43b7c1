"""Gateways' durable notes about their legs (`gateway.Legs`)."""

from collections.abc import Mapping

from bridge.conference.ids import ConferenceId, LegId


class SqlLegs:
    """Keeps `gateway.Legs`."""

    async def save(
        self, conference: ConferenceId, leg: LegId, gateway: str, wire_state: Mapping[str, object]
    ) -> None:
        raise NotImplementedError

    async def forget(self, leg: LegId) -> None:
        raise NotImplementedError

    async def load(self, conference: ConferenceId) -> Mapping[LegId, Mapping[str, object]]:
        """wire_state of every leg that `Journal.restore` returns (empty if the gateway never saved one)."""
        raise NotImplementedError
