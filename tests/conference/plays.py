"""Commands as hypothesis draws them: few names, so that interleavings collide often."""

from hypothesis import strategies as st

from bridge.conference import commands as c
from bridge.conference.conference import Conference
from bridge.conference.ids import (
    Account,
    Actor,
    ConferenceId,
    Identity,
    LeaveReason,
    LegId,
    LegState,
    Network,
    Place,
    Receives,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.ports import ConferenceRecord, Restored
from bridge.conference.streams import StreamRule

ROOM = Place(Network.MATRIX, "!room:a.example")
MUC = Place(Network.XMPP, "room@muc.b.example")
RECORD = ConferenceRecord(ConferenceId("c_1"), slug="tea", room="tea", places=(ROOM,))
PEOPLE = (
    Account(Network.MATRIX, "@ann:a.example"),
    Account(Network.XMPP, "bob@b.example"),
    Account(Network.WEB, "guest-1"),
)
ANN, BOB, GUEST = PEOPLE


def conference() -> Conference:
    return Conference(Restored(RECORD))


def actor(account: Account = ANN, role: Role = Role.OWNER) -> Actor:
    return Actor(account, role, "Somebody")


def join(
    leg: str = "PA_1",
    account: Account = ANN,
    *,
    identity: str | None = None,
    role: Role = Role.MEMBER,
    name: str = "Ann",
    can_publish: bool = True,
    hidden: bool = False,
    receives: Receives = Receives.EACH,
    gateway: str = "livekit",
) -> c.Join:
    return c.Join(
        leg=LegId(leg),
        gateway=gateway,
        account=account,
        name=name,
        role=role,
        receives=receives,
        identity=Identity(identity or f"{account.address}/{leg}"),
        can_publish=can_publish,
        hidden=hidden,
    )


def publish(
    leg: str = "PA_1",
    track: str = "TR_1",
    kind: TrackKind = TrackKind.AUDIO,
    *,
    muted: bool = False,
) -> c.Publish:
    source = TrackSource.MICROPHONE if kind is TrackKind.AUDIO else TrackSource.CAMERA
    return c.Publish(LegId(leg), TrackId(track), kind, source, muted=muted)


def say(text: str = "hello", *, account: Account = ANN, role: Role = Role.MEMBER) -> c.Say:
    return c.Say(Actor(account, role), text, source_id="$1", source="matrix", origin=ROOM)


_legs = st.sampled_from([LegId(f"PA_{n}") for n in range(5)])
_tracks = st.sampled_from([TrackId(f"TR_{n}") for n in range(6)])
_accounts = st.sampled_from(PEOPLE)
_identities = st.sampled_from([Identity(f"id-{n}") for n in range(4)])
_kinds = st.sampled_from(TrackKind)
_rulings = st.sampled_from([None, *TrackKind])
actors = st.builds(Actor, _accounts, st.sampled_from(Role), st.just("x"))
_places = st.sampled_from([ROOM, MUC])

any_command: st.SearchStrategy[c.Command] = st.one_of(
    st.builds(
        c.Join,
        leg=_legs,
        gateway=st.just("livekit"),
        account=_accounts,
        name=st.text(max_size=8),
        role=st.sampled_from(Role),
        receives=st.sampled_from(Receives),
        identity=_identities,
        can_publish=st.booleans(),
        hidden=st.booleans(),
    ),
    st.builds(c.Leave, _legs, st.sampled_from(LeaveReason)),
    st.builds(c.SetLegState, _legs, st.sampled_from([LegState.ACTIVE, LegState.LOST])),
    st.builds(c.Rename, _accounts, st.text(max_size=8)),
    st.builds(c.Publish, _legs, _tracks, _kinds, st.sampled_from(TrackSource), muted=st.booleans()),
    st.builds(c.Unpublish, _legs, _tracks),
    st.builds(c.SetMuted, _legs, _tracks, st.booleans()),
    st.builds(c.Mute, actors, _accounts, _rulings),
    st.builds(c.Unmute, actors, _accounts, _rulings),
    st.builds(c.Remove, actors, _accounts),
    st.builds(
        c.Say,
        actors,
        st.text(max_size=20),
        st.text(max_size=4),
        st.just("matrix"),
        st.sampled_from([None, ROOM, MUC]),
    ),
    st.builds(c.Bind, actors, _places),
    st.builds(c.Unbind, actors, _places),
    st.builds(
        c.RuleStreams,
        actors,
        st.sampled_from([None, *StreamRule]),
        st.sampled_from([None, 0, 1, 17]),
    ),
    st.builds(c.End, actors),
)
plays = st.lists(any_command, max_size=60)
