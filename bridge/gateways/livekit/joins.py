"""What a client says when it opens the signalling socket: `/rtc` (query) and `/rtc/v1` (join_request).

LiveKit protocol 17, as sent by client-sdk-js 2.22 and rust-sdks of 2026: `join_request` is URL-safe base64
of a `WrappedJoinRequest`, whose inner bytes may be gzip. Every size is checked before the next step (S23).
Not here: the token (`tokens`), what follows (`device`).
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from livekit.protocol.rtc import (
    AddTrackRequest,
    JoinRequest,
    SessionDescription,
    SyncState,
    WrappedJoinRequest,
)

from bridge.conference.errors import Malformed
from bridge.gateways.livekit import frames
from bridge.gateways.livekit.grants import MAX_ATTRIBUTES, MAX_METADATA, MAX_NAME

MAX_PARAMETER: Final = 96 * 1024  # characters; an 18 kB offer of 7 sections gzips to 2.4 kB
MAX_TRACKS: Final = 32  # announced in the join request


@dataclass(frozen=True, slots=True)
class Ask:
    """How the client wants to take part. Protobuf values are already bounded."""

    is_single: bool
    auto_subscribe: bool = True
    reconnects: bool = False
    participant_sid: str = ""
    metadata: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    offer: SessionDescription | None = None
    tracks: tuple[AddTrackRequest, ...] = ()
    sync_state: SyncState | None = None


def read_query(query: Mapping[str, str]) -> Ask:
    """The older way (`/rtc`): two connections, everything in the query."""
    return Ask(
        is_single=False,
        auto_subscribe=query.get("auto_subscribe", "1") in ("1", "true"),
        reconnects=query.get("reconnect", "0") in ("1", "true"),
        participant_sid=query.get("sid", "")[:MAX_NAME],
    )


async def read_join_request(parameter: str) -> Ask:
    """The way of `/rtc/v1`: one connection, a protobuf in the query."""
    if not parameter or len(parameter) > MAX_PARAMETER:
        raise Malformed("join_request is missing or too long")
    try:
        raw = base64.b64decode(
            parameter + "=" * (-len(parameter) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError) as why:
        raise Malformed("join_request is not base64") from why
    wrapped = await frames.read_message(WrappedJoinRequest, raw, frames.MAX_SDP_BYTES)
    inner = wrapped.join_request
    if wrapped.compression == WrappedJoinRequest.GZIP:
        inner = frames.inflate(inner, frames.MAX_SDP_BYTES)
    elif wrapped.compression != WrappedJoinRequest.NONE:
        raise Malformed("unknown compression")
    return _ask(await frames.read_message(JoinRequest, inner, frames.MAX_SDP_BYTES))


def _ask(join: JoinRequest) -> Ask:
    attributes = tuple(join.participant_attributes.items())
    if (
        len(join.metadata) > MAX_METADATA
        or len(attributes) > MAX_ATTRIBUTES
        or any(len(key) + len(value) > MAX_NAME for key, value in attributes)
    ):
        raise Malformed("metadata or attributes too long")
    if len(join.add_track_requests) > MAX_TRACKS:
        raise Malformed("too many tracks")
    settings = join.connection_settings
    has_settings = join.HasField("connection_settings")
    return Ask(
        is_single=True,
        auto_subscribe=settings.auto_subscribe if has_settings else True,
        reconnects=join.reconnect,
        participant_sid=join.participant_sid[:MAX_NAME],
        metadata=join.metadata,
        attributes=attributes,
        offer=join.publisher_offer if join.HasField("publisher_offer") else None,
        tracks=tuple(join.add_track_requests),
        sync_state=join.sync_state if join.HasField("sync_state") else None,
    )
