"""A media worker without media: it keeps the promises of `sfu.protocol` that the adapter relies on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sfu import client, protocol
from sfu.description import Description, DescriptionType, Downstream, MediaKind, Profile

EACH = Profile("each", (), ())
COMPACT = Profile("compact", (), (), downstream=Downstream.COMPACT)
OFFER = Description(DescriptionType.OFFER, ())

ERRORS: dict[str, type[client.ClientError]] = {
    error.code: error
    for error in (
        client.Refused,
        client.PeerMalformed,
        client.WorkerUnavailable,
        client.UnknownSession,
        client.UnknownTrack,
        client.ChannelGone,
        client.WorkerBug,
    )
}


@dataclass
class FakeWorker:
    """`commands` in order of arrival. State: sessions, tracks with gates, subscriptions."""

    commands: list[protocol.Command] = field(default_factory=list)
    sessions: dict[str, protocol.SessionState] = field(default_factory=dict)
    tracks: dict[str, protocol.TrackState] = field(default_factory=dict)
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    away: bool = False
    inbox: "asyncio.Queue[client.Happening]" = field(default_factory=asyncio.Queue)

    async def request(self, command: protocol.Command) -> protocol.Reply:
        if self.away:
            raise client.WorkerUnavailable("worker")
        reply = self.carry_out(command)
        await asyncio.sleep(0)
        if isinstance(reply, protocol.Failure):
            raise ERRORS[reply.code](reply.text)
        return reply

    async def events(self) -> AsyncIterator[client.Happening]:
        yield self.adopted()
        while True:
            yield await self.inbox.get()

    def adopted(self) -> client.Adopted:
        snapshot = self.carry_out(protocol.TakeSnapshot())
        assert isinstance(snapshot, protocol.Snapshot)
        return client.Adopted("1", 0, snapshot)

    def tell(self, *events: client.Happening) -> None:
        for event in events:
            self.inbox.put_nowait(event)

    def of(self, kind: type[protocol.Command]) -> list[protocol.Command]:
        return [command for command in self.commands if isinstance(command, kind)]

    def carry_out(self, command: protocol.Command) -> protocol.Reply:  # noqa: C901 - dispatch
        self.commands.append(command)
        session = getattr(command, "session", None)
        if session is not None and not isinstance(command, protocol.Open):
            state = self.sessions.get(session)
            if state is None or state.state == "closed":
                return protocol.Failure("unknown_session")
        match command:
            case protocol.Open():
                state = protocol.SessionState(command.session, command.group, "new")
                self.sessions[command.session] = state
            case protocol.Close():
                self._close(command.session)
            case protocol.Expect():
                self.tracks[command.track] = protocol.TrackState(
                    command.track, command.session, command.kind, command.source, False, True
                )
            case protocol.Unexpect(track=track):
                self.tracks.pop(track, None)
                self.subscriptions = {s for s in self.subscriptions if s[1] != track}
            case protocol.Gate(track=track, open=is_open):
                old = self.tracks.get(track)
                if old is None:
                    return protocol.Failure("unknown_track")
                self.tracks[track] = protocol.TrackState(
                    old.track, old.session, old.kind, old.source, old.live, is_open
                )
            case protocol.Subscribe(session=name, track=track):
                if track not in self.tracks:
                    return protocol.Failure("unknown_track")
                self.subscriptions.add((name, track))
            case protocol.Unsubscribe(session=name, track=track):
                self.subscriptions.discard((name, track))
            case protocol.Offer() | protocol.MakeOffer():
                return protocol.Described(Description(DescriptionType.ANSWER, ()))
            case protocol.Forget(sessions=names):
                for name in names:
                    self.sessions.pop(name, None)
            case protocol.TakeSnapshot():
                return protocol.Snapshot(
                    0,
                    tuple(self.sessions.values()),
                    tuple(self.tracks.values()),
                    tuple(protocol.SubscriptionState(*s) for s in sorted(self.subscriptions)),
                )
            case _:
                pass
        return protocol.Done()

    def _close(self, name: str) -> None:
        self.sessions.pop(name, None)
        gone = {t for t, state in self.tracks.items() if state.session == name}
        for track in gone:
            del self.tracks[track]
        self.subscriptions = {s for s in self.subscriptions if s[0] != name and s[1] not in gone}


def expect(session: str, track: str, kind: MediaKind = MediaKind.AUDIO) -> protocol.Expect:
    return protocol.Expect(session, track, kind, "microphone")
