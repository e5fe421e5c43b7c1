"""Negotiation over one connection (`/rtc/v1`): the client offers, always.

Fact sheet section 2.3: each `offer{id}` gets an `answer` with the same id (0 = none). For more media
downwards we send `media_sections_requirement`; the client adds that many recvonly sections and offers.
Not here: the other way (`dual`).
"""

from livekit.protocol import rtc

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
from sfu.description import Description, DescriptionType, MediaKind

_KINDS = (MediaKind.AUDIO, MediaKind.VIDEO)


class Requirement:
    """How many sections are missing, and for how many the client was asked. Pure."""

    def __init__(self) -> None:
        self._missing = dict.fromkeys(_KINDS, 0)
        self._asked = dict.fromkeys(_KINDS, 0)
        self._sections = dict.fromkeys(_KINDS, 0)
        self._is_forced = False  # sent since the last answer, so an offer is on its way

    def want(self, audios: int, videos: int) -> None:
        self._missing = {MediaKind.AUDIO: audios, MediaKind.VIDEO: videos}

    def offered(self, offer: Description) -> None:
        """Sections that arrived are no longer awaited."""
        for kind in _KINDS:
            count = sum(1 for s in offer.sections if s.kind is kind and s.direction.receives)
            arrived = max(0, count - self._sections[kind])
            self._sections[kind] = max(count, self._sections[kind])
            self._asked[kind] = max(0, self._asked[kind] - arrived)

    def answered(self, fresh: dict[MediaKind, int]) -> None:
        """`fresh`: tracks that found a section with this answer."""
        for kind in _KINDS:
            self._missing[kind] = max(0, self._missing[kind] - fresh.get(kind, 0))
        self._is_forced = False

    def ask(self, *, force: bool) -> tuple[int, int] | None:
        """What to ask for now, or None. With `force` the client shall offer again in any case."""
        more = {kind: max(0, self._missing[kind] - self._asked[kind]) for kind in _KINDS}
        if not any(more.values()) and (not force or self._is_forced):
            return None
        for kind in _KINDS:
            self._asked[kind] += more[kind]
        self._is_forced = True
        return more[MediaKind.AUDIO], more[MediaKind.VIDEO]

    def restart(self) -> None:
        """The signalling was cut: nobody knows what the client heard."""
        self._asked = dict.fromkeys(_KINDS, 0)
        self._is_forced = False


class Single:
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
        self._session = str(leg)
        self._leg = leg
        self._state = state
        self._publications = publications
        self._send = send
        self._told = told
        self._requirement = Requirement()
        self._has_answered = bool(state.descriptions)
        self._down: dict[str, str] = {}

    @property
    def sessions(self) -> tuple[str, ...]:
        return (self._session,)

    @property
    def down(self) -> str:
        return self._session

    async def open(self) -> None:
        await self._context.media.open(
            self._conference,
            self._leg,
            self._session,
            profiles.single(self._context.config.livekit.video_codecs),
            receives=True,
            auto_subscribe=self._state.auto_subscribe,
        )

    async def begin(self) -> None:
        """The client's offer came with the join request, or comes next."""

    async def resume(self) -> None:
        """The client offers an ICE restart by itself."""
        self._requirement.restart()

    async def for_publishing(self) -> str:
        return self._session

    async def offer(self, description: rtc.SessionDescription) -> None:
        offer = await read_description(description, DescriptionType.OFFER)
        self._requirement.offered(offer)
        ended = await self._publications.match(offer)
        answer = await self._context.media.offer(self._session, self._publications.preferred(offer))
        answer = self._publications.pausing(answer)
        self._state.descriptions += 1
        number, version = description.id, self._state.descriptions
        self._send(rtc.SignalResponse(answer=spell(answer, number, self._session, version)))
        self._has_answered = True
        down = tracks_down(answer)
        fresh = {mid: track for mid, track in down.items() if self._down.get(mid) != track}
        self._down = down
        kinds = {s.mid: s.kind for s in answer.sections}
        counts = {kind: sum(1 for mid in fresh if kinds[mid] is kind) for kind in _KINDS}
        self._requirement.answered(counts)
        self._told(set(fresh.values()))
        await self._publications.unpublish(ended)
        self._ask(force=False)

    async def answer(self, description: rtc.SessionDescription) -> None:
        """We never offer here; a stray answer changes nothing."""

    async def wanted(self, signal: NegotiationWanted) -> None:
        self._requirement.want(signal.audios, signal.videos)
        self._ask(force=signal.changed)

    def session_of(self, target: int) -> str | None:
        return self._session

    def _ask(self, *, force: bool) -> None:
        if not self._has_answered:
            return  # the client's first offer is on its way and is served by its answer
        more = self._requirement.ask(force=force)
        if more is not None:
            need = rtc.MediaSectionsRequirement(num_audios=more[0], num_videos=more[1])
            self._send(rtc.SignalResponse(media_sections_requirement=need))
