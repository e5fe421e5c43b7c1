"""Stand-ins for what the app hands to the gateway: everything in memory, everything recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from bridge.conference.commands import Command, Join, Leave
from bridge.conference.errors import Unavailable
from bridge.conference.events import Event, Leg, Said
from bridge.conference.ids import (
    Account,
    Actor,
    ConferenceId,
    Identity,
    LegId,
    Network,
    Place,
    Role,
)
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.config import Config, XmppSection
from bridge.gateway import Context, InboxRow, OutboxRow
from bridge.gateways.xmpp import profiles
from bridge.gateways.xmpp.stanza import serialize
from sfu.description import (
    Candidate,
    Description,
    DescriptionType,
    Direction,
    Fingerprint,
    MediaKind,
    Profile,
    Section,
    Setup,
    Transport,
)

DOMAIN = "conf.call.test"
MUC = "demo@muc.call.test"
CONFERENCE = ConferenceRecord(
    ConferenceId("c_demo"), "demo", "room", "Demo", (Place(Network.XMPP, MUC),)
)
FINGERPRINT = Fingerprint("sha-256", ":".join(["AB"] * 32))


def xml(text: str) -> Element:
    return fromstring(text)


@dataclass
class FakeWire:
    """The stream: records what is sent; `answer` decides about requests."""

    domain: str = DOMAIN
    sent: list[Element] = field(default_factory=list)
    asked: list[Element] = field(default_factory=list)
    answer: Callable[[Element], Element] = lambda iq: Element(
        "{jabber:client}iq", {"type": "result"}
    )
    is_up: bool = True

    def send(self, stanza: Element) -> None:
        if not self.is_up:
            raise Unavailable("down")
        self.sent.append(stanza)

    async def request(self, iq: Element, *, timeout_s: float) -> Element:
        if not self.is_up:
            raise Unavailable("down")
        self.asked.append(iq)
        await asyncio.sleep(0)
        return self.answer(iq)

    def text(self) -> str:
        return "\n".join(serialize(one) for one in (*self.sent, *self.asked))


class FakeStore:
    """Keeps `Store`, `Inbox`, `Legs` and `Directory` together."""

    def __init__(self, *records: ConferenceRecord) -> None:
        self.records = list(records or (CONFERENCE,))
        self.values: dict[tuple[str, str], Mapping[str, object]] = {}
        self.lines: list[InboxRow] = []
        self.seen: set[str] = set()
        self.finished: set[int] = set()
        self.dead_rows: dict[int, str] = {}
        self.saved: dict[LegId, Mapping[str, object]] = {}
        self._more = asyncio.Event()

    # Store and Inbox share the name `put`: the first argument after the gateway tells them apart.
    async def get(self, gateway: str, key: str) -> Mapping[str, object] | None:
        return self.values.get((gateway, key))

    async def put(self, gateway: str, key: str, value: Any) -> bool:
        if isinstance(value, Mapping):
            self.values[gateway, key] = value
            return True
        new = False
        for source_id, payload in value:
            if source_id not in self.seen:
                self.seen.add(source_id)
                self.lines.append(InboxRow(len(self.lines) + 1, gateway, source_id, payload))
                new = True
        self._more.set()
        return new

    async def delete(self, gateway: str, key: str) -> None:
        self.values.pop((gateway, key), None)

    async def items(self, gateway: str, prefix: str) -> Sequence[tuple[str, Mapping[str, object]]]:
        return [
            (k, v) for (g, k), v in self.values.items() if g == gateway and k.startswith(prefix)
        ]

    async def rows(self, gateway: str) -> AsyncIterator[InboxRow]:
        at = 0
        while True:
            while at < len(self.lines):
                row = self.lines[at]
                at += 1
                if row.id not in self.finished and row.id not in self.dead_rows:
                    yield row
            self._more.clear()
            await self._more.wait()

    async def done(self, row: int) -> None:
        self.finished.add(row)

    async def dead(self, row: int, why: str) -> None:
        self.dead_rows[row] = why

    async def save(
        self, conference: ConferenceId, leg: LegId, gateway: str, wire_state: Mapping[str, object]
    ) -> None:
        self.saved[leg] = wire_state

    async def forget(self, leg: LegId) -> None:
        self.saved.pop(leg, None)

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        return next((r for r in self.records if r.id == conference), None)

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return next((r for r in self.records if r.slug == slug), None)

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        return next((r for r in self.records if place in r.places), None)

    async def all(self) -> Sequence[ConferenceRecord]:
        return self.records


def transport(ufrag: str) -> Transport:
    return Transport(
        ufrag,
        "p" * 24,
        (FINGERPRINT,),
        Setup.ACTIVE,
        (Candidate("1", 1, "udp", 2130706431, "127.0.0.1", 8470),),
    )


class FakeMedia:
    """Answers any offer with itself, mirrored; records the order of calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.profile: Profile | None = None
        self.described: list[Description] = []
        self.fault: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def record(*args: Any, **kwargs: Any) -> None:
            self.calls.append(name)

        return record

    async def open(
        self, conference: ConferenceId, leg: LegId, session: str, profile: Profile, **kwargs: Any
    ) -> None:
        self.calls.append("open")
        self.profile = profile

    async def expect(self, session: str, track: str, kind: Any, source: Any, **kwargs: Any) -> None:
        self.calls.append(f"expect {kwargs.get('mid')}")

    async def offer(self, session: str, description: Description) -> Description:
        self.calls.append("offer")
        self.described.append(description)
        if self.fault is not None:
            raise self.fault
        sections = tuple(
            Section(
                section.mid,
                section.kind,
                section.direction.reversed,
                transport(f"ufrag{index}{len(self.described)}"),
                section.codecs[:1],
            )
            for index, section in enumerate(description.sections)
        )
        return Description(DescriptionType.ANSWER, sections, description.bundle)

    async def make_offer(self, session: str, *, restart_ice: bool = False) -> Description:
        self.calls.append("make_offer")
        row = self.profile or profiles.DINO
        sections = tuple(
            Section(name, kind, Direction.SENDRECV, transport(f"ufrag{name}"), codecs)
            for name, kind, codecs in (
                ("0", MediaKind.AUDIO, row.audio),
                ("1", MediaKind.VIDEO, row.video),
            )
        )
        return Description(DescriptionType.OFFER, sections, ("0", "1") if row.bundle else ())

    async def answer(self, session: str, description: Description) -> None:
        self.calls.append("answer")
        self.described.append(description)


class House:
    """A fake app: a context whose focus accepts everything."""

    def __init__(
        self, *records: ConferenceRecord, port: int = 5347, secret: str = "s" * 32
    ) -> None:
        self.store = FakeStore(*records)
        self.media = FakeMedia()
        self.submitted: list[Command] = []
        self.causes: list[Cause | None] = []
        self.legs: list[Leg] = []
        self.refuse: Callable[[Command], Exception | None] = lambda command: None
        config = Config(
            xmpp=XmppSection(component=DOMAIN, secret=secret, port=port, admins=("root@else.test",))
        )
        store: Any = self.store
        self.context = Context(
            config=config,
            submit=self.submit,
            view=lambda conference: self.legs,
            media=self.media,  # type: ignore[arg-type]
            directory=store,
            legs=store,
            inbox=store,
            outbox=store,
            store=store,
            http=None,  # type: ignore[arg-type]
            fetch=None,  # type: ignore[arg-type]
        )

    async def submit(
        self, conference: ConferenceId, command: Command, cause: Cause | None
    ) -> tuple[Event, ...]:
        await asyncio.sleep(0)
        fault = self.refuse(command)
        if fault is not None:
            raise fault
        self.submitted.append(command)
        self.causes.append(cause)
        match command:
            case Join():
                self.legs.append(make_leg(command))
            case Leave(leg=leg):
                self.legs[:] = [one for one in self.legs if one.id != leg]
            case _:
                pass
        if cause is not None:
            await self.store.done(cause.inbox_id)
        return ()

    def of(self, kind: type) -> list[Any]:
        return [command for command in self.submitted if isinstance(command, kind)]


def make_leg(join: Join) -> Leg:
    return Leg(
        join.leg,
        join.gateway,
        join.account,
        Identity(f"id:{join.leg}"),
        join.name,
        join.role,
        join.receives,
    )


def line(
    text: str,
    key: str,
    *,
    name: str = "Alice",
    address: str = "@alice:hs.test",
    attempts: int = 0,
    at_ms: int = 0,
    record: ConferenceRecord = CONFERENCE,
) -> OutboxRow:
    said = Said(
        message_id=key,
        by=Actor(Account(Network.MATRIX, address), Role.MEMBER, name),
        text=text,
        source_id=key,
        source="matrix",
        origin=Place(Network.MATRIX, "!r:hs.test"),
        avatar="",
        is_emote=False,
        at_ms=at_ms,
    )
    return OutboxRow(1, record, record.places[0], said, key, attempts)


async def until(
    claim: Callable[[], object], *, timeout_s: float = 5.0, step_s: float = 0.01
) -> None:
    """Wait until the claim holds; TimeoutError otherwise."""
    async with asyncio.timeout(timeout_s):
        while not claim():  # noqa: ASYNC110 - any claim, not an event
            await asyncio.sleep(step_s)
