"""Values that the store's tests share."""

from typing import Any

from bridge.conference.events import Leg, Said, Track
from bridge.conference.ids import (
    Account,
    Actor,
    Identity,
    LegId,
    Network,
    Place,
    Receives,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)

ALICE = Account(Network.MATRIX, "@alice:hs.test")
BOB = Account(Network.XMPP, "bob@xmpp.test")
BY = Actor(ALICE, Role.OWNER, "Alice")
ROOM = Place(Network.MATRIX, "!room:hs.test")
MUC = Place(Network.XMPP, "demo@muc.test")


def leg(name: str = "PA_1", **more: Any) -> Leg:
    return Leg(
        id=LegId(name),
        gateway="livekit",
        account=ALICE,
        identity=Identity(f"@alice:hs.test:{name}"),
        name="Alice",
        role=Role.OWNER,
        receives=Receives.EACH,
        **more,
    )


def track(of: Leg, name: str = "TR_1", **more: Any) -> Track:
    return Track(TrackId(name), of.id, TrackKind.AUDIO, TrackSource.MICROPHONE, **more)


def said(source_id: str, text: str = "hello", origin: Place | None = ROOM, **more: Any) -> Said:
    return Said(
        message_id=more.pop("message_id", f"m-{source_id}"),
        by=BY,
        text=text,
        source_id=source_id,
        source="matrix",
        origin=origin,
        avatar="",
        is_emote=False,
        at_ms=1,
    )
