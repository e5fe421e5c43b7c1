"""What an access token says, as values: the `video` grant, our private claim, names.

LiveKit access tokens (claims `video`, `name`, `metadata`, `attributes`, 2026-08); the claim `parley` is ours.
Pure: decoded JSON in, value out, `Malformed` for the wrong shape.
Not here: signatures and times (`tokens`), what a role may do (`bridge.conference.policy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridge.conference.errors import Malformed
from bridge.conference.ids import Account, Network, Role

MAX_NAME: Final = 512  # characters of a room, subject or display name
MAX_METADATA: Final = 4096  # characters; LiveKit allows more, every participant pays for it
MAX_ATTRIBUTES: Final = 64

PRIVATE_CLAIM: Final = "parley"


@dataclass(frozen=True, slots=True)
class VideoGrant:
    """LiveKit's `video` claim, as far as we act on it. An unset right to publish or subscribe is allowed."""

    room: str
    room_join: bool = True
    room_admin: bool = False
    can_publish: bool = True
    can_subscribe: bool = True
    can_publish_data: bool = True
    can_publish_sources: tuple[str, ...] = ()
    can_update_own_metadata: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token. `account` and `role` are set in tokens that we minted for a known account."""

    issuer: str
    subject: str
    video: VideoGrant
    name: str = ""
    metadata: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    account: Account | None = None
    role: Role | None = None

    @property
    def acts_as(self) -> Account:
        """Whose leg this is: the account in our own claim, else the subject of a foreign token."""
        return self.account or Account(Network.TOKEN, self.subject)

    @property
    def ranks_as(self) -> Role:
        if self.role is not None:
            return self.role
        return Role.MODERATOR if self.video.room_admin else Role.GUEST

    @property
    def is_matrix(self) -> bool:
        """Then the subject is the MatrixRTC identity."""
        return self.account is not None and self.account.network is Network.MATRIX


def read_claims(payload: Mapping[str, object], *, trusts_private: bool) -> Claims:
    """The claims of a token whose signature and times are already checked."""
    account, role = None, None
    if trusts_private and PRIVATE_CLAIM in payload:
        account, role = _read_private(payload[PRIVATE_CLAIM])
    attributes = _mapping(payload.get("attributes", {}), "attributes")
    if len(attributes) > MAX_ATTRIBUTES:
        raise Malformed("too many attributes in the token")
    return Claims(
        issuer=_text(payload, "iss", MAX_NAME),
        subject=_text(payload, "sub", MAX_NAME),
        video=_read_video(payload.get("video")),
        name=_text(payload, "name", MAX_NAME, default=""),
        metadata=_text(payload, "metadata", MAX_METADATA, default=""),
        attributes=tuple((key, _text(attributes, key, MAX_NAME)) for key in attributes),
        account=account,
        role=role,
    )


def claim_of(grant: VideoGrant) -> dict[str, object]:
    """The `video` claim of this grant."""
    claim: dict[str, object] = {
        "roomJoin": grant.room_join,
        "room": grant.room,
        "canPublish": grant.can_publish,
        "canSubscribe": grant.can_subscribe,
        "canPublishData": grant.can_publish_data,
        "canUpdateOwnMetadata": grant.can_update_own_metadata,
        "roomCreate": False,
    }
    if grant.can_publish_sources:
        claim["canPublishSources"] = list(grant.can_publish_sources)
    if grant.room_admin:
        claim["roomAdmin"] = True
    if grant.hidden:
        claim["hidden"] = True
    return claim


def private_claim_of(account: Account, role: Role) -> dict[str, object]:
    return {"network": account.network.value, "address": account.address, "role": int(role)}


def _read_video(value: object) -> VideoGrant:
    video = _mapping(value, "video")
    sources = video.get("canPublishSources", [])
    if not isinstance(sources, list) or len(sources) > 8:
        raise Malformed("canPublishSources is not a short list")
    return VideoGrant(
        room=_text(video, "room", MAX_NAME, default=""),
        room_join=_flag(video, "roomJoin", default=False),
        room_admin=_flag(video, "roomAdmin", default=False),
        can_publish=_flag(video, "canPublish", default=True),
        can_subscribe=_flag(video, "canSubscribe", default=True),
        can_publish_data=_flag(
            video, "canPublishData", default=_flag(video, "canPublish", default=True)
        ),
        can_publish_sources=tuple(str(source).lower()[:32] for source in sources),
        can_update_own_metadata=_flag(video, "canUpdateOwnMetadata", default=False),
        hidden=_flag(video, "hidden", default=False),
    )


def _read_private(value: object) -> tuple[Account, Role]:
    claim = _mapping(value, PRIVATE_CLAIM)
    rank = claim.get("role")
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise Malformed("role is not a number")
    try:
        network = Network(_text(claim, "network", MAX_NAME))
        account = Account(network, _text(claim, "address", MAX_NAME))
        role = Role(rank)
    except ValueError:
        raise Malformed("unknown network or role in the token") from None
    return account, role


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    return value


def _flag(claim: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = claim.get(name, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Malformed(f"{name} is not a boolean")
    return value


def _text(claim: Mapping[str, object], name: str, most: int, default: str | None = None) -> str:
    value = claim.get(name, default)
    if not isinstance(value, str) or len(value) > most or (default is None and not value):
        raise Malformed(f"{name} is not a usable string")
    if "\x00" in value:
        raise Malformed(f"{name} has a NUL")
    return value
