"""What must survive a restart of a LiveKit leg: the versioned `wire_state` (house.md section 7).

Written through `Legs.save` before the peer is told, so that a client's resume finds everything it was told.
Pure. Not here: when it is saved (`publishing`, `device`), the leg itself (the conference).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.conference.errors import Malformed
from bridge.gateways.livekit.grants import (
    PRIVATE_CLAIM,
    Claims,
    claim_of,
    private_claim_of,
    read_claims,
)

VERSION: Final = 1


@dataclass(slots=True)
class WireState:
    """One leg's memory. `cids`: track -> names its section may arrive under; `mids`: section -> track.

    `codecs`: track -> encoding name that it shall be sent in. `steady`: tracks that are sent through silence, too.
    """

    claims: Claims
    is_single: bool
    auto_subscribe: bool = True
    metadata: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    bump: int = 0  # changes of metadata: added to the participant's version
    cids: dict[str, list[str]] = field(default_factory=dict)
    codecs: dict[str, str] = field(default_factory=dict)
    mids: dict[str, str] = field(default_factory=dict)
    steady: list[str] = field(default_factory=list)
    has_publisher: bool = False  # of a dual connection: its second session is open
    offers: int = 0  # id of our last offer (dual)
    descriptions: int = 0  # session-version of our last SDP

    def forget(self, track: str) -> None:
        """It ended; sections that carried it may go on for a while."""
        self.cids.pop(track, None)
        self.codecs.pop(track, None)
        self.steady = [name for name in self.steady if name != track]

    def to_json(self) -> dict[str, object]:
        claims = self.claims
        token: dict[str, object] = {
            "iss": claims.issuer,
            "sub": claims.subject,
            "name": claims.name,
            "video": claim_of(claims.video),
        }
        if claims.account is not None:
            token[PRIVATE_CLAIM] = private_claim_of(claims.account, claims.ranks_as)
        return {
            "v": VERSION,
            "single": self.is_single,
            "auto_subscribe": self.auto_subscribe,
            "token": token,
            "metadata": self.metadata,
            "attributes": dict(self.attributes),
            "bump": self.bump,
            "cids": {track: list(names) for track, names in self.cids.items()},
            "codecs": dict(self.codecs),
            "mids": dict(self.mids),
            "steady": list(self.steady),
            "publisher": self.has_publisher,
            "offers": self.offers,
            "descriptions": self.descriptions,
        }


def from_json(saved: Mapping[str, object]) -> WireState:
    """Raises `Malformed` for a version we do not know: that leg starts over."""
    token = saved.get("token")
    if saved.get("v") != VERSION or not isinstance(token, dict):
        raise Malformed("wire_state of another version")
    state = WireState(
        claims=read_claims(token, trusts_private=True),
        is_single=bool(saved.get("single")),
        auto_subscribe=bool(saved.get("auto_subscribe", True)),
        metadata=str(saved.get("metadata", "")),
        bump=_number(saved, "bump"),
        has_publisher=bool(saved.get("publisher")),
        offers=_number(saved, "offers"),
        descriptions=_number(saved, "descriptions"),
    )
    state.attributes = {k: str(v) for k, v in _table(saved, "attributes").items()}
    state.codecs = {k: str(v) for k, v in _table(saved, "codecs").items()}
    state.mids = {k: str(v) for k, v in _table(saved, "mids").items()}
    steady = saved.get("steady", [])
    state.steady = [str(track) for track in steady] if isinstance(steady, list) else []
    for track, names in _table(saved, "cids").items():
        state.cids[track] = [str(name) for name in names] if isinstance(names, list) else []
    return state


def _number(saved: Mapping[str, object], name: str) -> int:
    value = saved.get(name, 0)
    return value if isinstance(value, int) else 0


def _table(saved: Mapping[str, object], name: str) -> dict[str, object]:
    value = saved.get(name)
    return {str(key): entry for key, entry in value.items()} if isinstance(value, dict) else {}
