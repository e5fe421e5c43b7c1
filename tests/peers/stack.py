"""The whole thing on loopback: Synapse, Prosody, parley with its worker, Element Call; a bound room and MUC.

The demonstration and the scenarios use the same stack, so that what a newcomer starts is what is tested.
Not here: clients.
"""

import contextlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.peers import elementcall
from tests.peers.parley import Parley
from tests.peers.prosody import Prosody
from tests.peers.synapse import Synapse, User

TITLE = "Demo"
SLUG = "demo"


@dataclass(frozen=True, slots=True)
class Ports:
    """0 = any free port. The demonstration fixes them, so that its links stay the same."""

    synapse: int = 0
    parley: int = 0
    element_call: int = 0


@dataclass(slots=True)
class Stack:
    """Everything that runs, and the accounts that exist."""

    folder: Path
    synapse: Synapse
    prosody: Prosody
    parley: Parley
    element_call: str
    alice: User
    room: str
    muc: str

    @property
    def focus(self) -> str:
        """What an XMPP client calls."""
        return f"{SLUG}@{self.prosody.component}"

    def session(self, user: User) -> elementcall.Session:
        return elementcall.Session(user.mxid, user.device, user.token, self.synapse.url)

    async def matrix_token(self, user: User) -> tuple[str, str]:
        """(url, token) from our MatrixRTC endpoint, as a client in compatibility mode asks for it."""
        body = {
            "room": self.room,
            "openid_token": await user.openid(),
            "device_id": user.device,
        }
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.parley.url}/sfu/get", json=body) as answer,
        ):
            answer.raise_for_status()
            found = await answer.json()
        return found["url"], found["jwt"]

    async def publish_membership(self, user: User) -> str:
        """What Element Call writes when it joins (state form); returns the event id."""
        content = {
            "application": "m.call",
            "call_id": "",
            "scope": "m.room",
            "device_id": user.device,
            "membershipID": f"{user.mxid}:{user.device}",
            "expires": 14_400_000,
            "m.call.intent": "video",
            "focus_active": {"type": "livekit", "focus_selection": "multi_sfu"},
            "foci_preferred": [{"type": "livekit", "livekit_service_url": self.parley.url}],
        }
        key = f"_{user.mxid}_{user.device}_m.call"
        return await user.put_state(self.room, "org.matrix.msc3401.call.member", content, key)


def _sections(
    synapse: Synapse, prosody: Prosody, parley: Parley, room: str, muc: str
) -> dict[str, object]:
    return {
        "matrix": {
            "homeserver": synapse.url,
            "server_name": synapse.server_name,
            "as_token": synapse.as_token,
            "hs_token": synapse.hs_token,
            "livekit_service_url": parley.url,
            "allow_private_federation": True,
            "federation_overrides": {synapse.server_name: synapse.url},
            "admins": [f"@alice:{synapse.server_name}"],
        },
        "xmpp": {
            "component": prosody.component,
            "secret": prosody.component_secret,
            "host": "127.0.0.1",
            "port": prosody.component_port,
            "admins": [f"operator@{prosody.domain}"],
        },
        "conferences": [{"slug": SLUG, "title": TITLE, "matrix": [room], "xmpp": [muc]}],
    }


def own_addresses() -> tuple[str, ...]:
    """Loopback, and this machine's own address if it has one.

    COMPAT: libnice 0.1.21 (Dino) sends from a real interface only and never reaches 127.0.0.1. The packets
    between two programs of one machine do not leave it.
    """
    own = ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(
            ("198.51.100.1", 9)
        )  # a documentation address: asks for a route, sends nothing
        own = str(probe.getsockname()[0])
    return ("127.0.0.1",) if own.startswith("127.") or not own else ("127.0.0.1", own)


@contextlib.asynccontextmanager
async def running_stack(
    *,
    ports: Ports | None = None,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda _line: None,
    log_level: str = "info",
    media_addresses: Sequence[str] = ("127.0.0.1",),
) -> AsyncIterator[Stack]:
    """Start everything in order; end everything in reverse, also after a failure.

    A given `folder` keeps logs and configuration; otherwise a temporary one is removed. Media listens on
    `media_addresses` (`own_addresses` for Dino), everything else on loopback only.
    """
    ports = ports or Ports()
    home = folder or Path(tempfile.mkdtemp(prefix="parley-stack-"))
    home.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            stack.callback(shutil.rmtree, home, ignore_errors=True)
        parley = Parley(home / "parley", log_level=log_level)
        if ports.parley:
            parley.public_port = ports.parley
        tell("Synapse")
        synapse = await stack.enter_async_context(
            Synapse(appservice_url=parley.internal_url, service_url=parley.url, port=ports.synapse)
        )
        tell("Prosody")
        prosody = await stack.enter_async_context(Prosody())
        alice = await synapse.register("alice", display_name="Alice", password="parley-demo")
        room = await alice.create_room(name=TITLE, public=True)
        muc = f"{SLUG}@{prosody.muc}"
        parley.sections = {
            **_sections(synapse, prosody, parley, room, muc),
            "media": {"listen": list(media_addresses), "port": parley.media_port},
        }
        tell("parley and its media worker")
        await stack.enter_async_context(parley)
        tell("Element Call")
        page = await stack.enter_async_context(
            elementcall.serve(synapse.url, synapse.server_name, ports.element_call)
        )
        yield Stack(home, synapse, prosody, parley, page, alice, room, muc)
