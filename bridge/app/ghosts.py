"""Identities without a Matrix gateway: computed, so that the same person looks the same after a restart.

Not here: ghosts with accounts of their own (`bridge.gateways.matrix`).
"""

from bridge.conference.ids import Account, Identity, LegId, Network
from bridge.conference.ports import ConferenceRecord


class ComputedGhosts:
    """Keeps `ports.Ghosts`.

    A token's subject and a guest's id are identities themselves: joining again replaces the older leg, as
    LiveKit clients expect. Other accounts may call with several devices at once.
    """

    async def ensure(
        self, conference: ConferenceRecord, account: Account, name: str, leg: LegId
    ) -> Identity:
        if account.network in (Network.TOKEN, Network.WEB):
            return Identity(account.address)
        return Identity(f"{account.address}/{leg}")
