"""Negotiation over two connections (`/rtc`): we offer what goes down, the client offers what it publishes.

Fact sheet section 2.4: the subscriber connection comes first and carries our data channels; never are two
of our offers outstanding; the publisher connection exists only if the client publishes.
Not here: the other way (`single`).
"""

import logging
import time
from typing import Final

from livekit.protocol import rtc

from bridge.conference.errors import Unavailable
from bridge.conference.ids import ConferenceId, LegId
from bridge.gateway import Context, NegotiationWanted
from bridge.gateways.livekit import profiles
from bridge.gateways.livekit.negotiation import (
    Send,
    Told,
    read_description,
    spell,
    tracks_down,
)
from bridge.gateways.livekit.publishing import Publications
from bridge.gateways.livekit.state import WireState
from sfu.description import DescriptionType

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 15.0  # after it a new offer may replace the lost one


class Dual:
    """Keeps `negotiation.Negotiator`."""

    def __init__(
        self,
        context: Context,
        conference: ConferenceId,
        leg: LegId,
        state: WireState,
        publications: Publications,
        send: Send,
        told: Told,
    ) -> None:
        self._context = context
        self._conference = conference
        self._leg = leg
        self._subscriber = f"{leg}.sub"
        self._publisher = f"{leg}.pub"
        self._state = state
        self._publications = publications
        self._send = send
        self._told = told
        self._offered_s: float | None = None  # an offer of ours is outstanding since
        self._is_stale = False  # something changed since that offer
        self._down: dict[str, str] = {}

    @property
    def sessions(self) -> tuple[str, ...]:
        return (self._subscriber, *((self._publisher,) if self._state.has_publisher else ()))

    @property
    def down(self) -> str:
        return self._subscriber

    async def open(self) -> None:
        await self._context.media.open(
            self._conference,
            self._leg,
            self._subscriber,
            profiles.subscriber(self._context.config.livekit.video_codecs),
            receives=True,
            auto_subscribe=self._state.auto_subscribe,
        )

    async def begin(self) -> None:
        await self._offer()

    async def resume(self) -> None:
        await self._offer(restart_ice=True)

    async def for_publishing(self) -> str:
        if not self._state.has_publisher:
            await self._context.media.open(
                self._conference,
                self._leg,
                self._publisher,
                profiles.publisher(self._context.config.livekit.video_codecs),
                receives=False,
            )
            self._state.has_publisher = True
        return self._publisher

    async def offer(self, description: rtc.SessionDescription) -> None:
        offer = await read_description(description, DescriptionType.OFFER)
        session = await self.for_publishing()
        ended = await self._publications.match(offer)
        answer = await self._context.media.offer(session, self._publications.preferred(offer))
        self._state.descriptions += 1
        answer = self._publications.pausing(answer)
        spelled = spell(answer, description.id, self._publisher, self._state.descriptions)
        self._send(rtc.SignalResponse(answer=spelled))
        await self._publications.unpublish(ended)

    async def answer(self, description: rtc.SessionDescription) -> None:
        if self._offered_s is None or description.id not in (0, self._state.offers):
            log.info("stale answer ignored")
            return
        answer = await read_description(description, DescriptionType.ANSWER)
        await self._context.media.answer(self._subscriber, answer)
        self._offered_s = None
        if self._is_stale:
            await self._offer()

    async def wanted(self, signal: NegotiationWanted) -> None:
        if signal.session == self._subscriber and (
            signal.audios or signal.videos or signal.changed
        ):
            await self._offer()

    def session_of(self, target: int) -> str | None:
        if target == rtc.SignalTarget.SUBSCRIBER:
            return self._subscriber
        return self._publisher if self._state.has_publisher else None

    async def _offer(self, *, restart_ice: bool = False) -> None:
        now_s = time.monotonic()
        if self._offered_s is not None and not restart_ice:
            if now_s - self._offered_s < ANSWER_TIMEOUT_S:
                self._is_stale = True
                return
            raise Unavailable("The client did not answer an offer.")
        self._is_stale = False
        self._offered_s = now_s
        offer = await self._context.media.make_offer(self._subscriber, restart_ice=restart_ice)
        self._state.offers += 1
        self._state.descriptions += 1
        spelled = spell(offer, self._state.offers, self._subscriber, self._state.descriptions)
        self._send(rtc.SignalResponse(offer=spelled))
        down = tracks_down(offer)
        self._told({track for mid, track in down.items() if self._down.get(mid) != track})
        self._down = down
