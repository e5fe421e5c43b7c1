"""The people of a scenario: one interface over every kind of client, so that any pair can be asserted.

Not here: the clients themselves (tests.peers), what must hold (the scenarios).
"""

from dataclasses import dataclass
from typing import Any, Protocol

from tests.peers import guestpage
from tests.peers.browser import Browser, Look, hears, near
from tests.peers.process import PeerProcess
from tests.peers.stack import Stack
from tests.peers.synapse import User


class Person(Protocol):
    """Somebody in the conference, with a sound and a look of their own."""

    name: str
    look: Look

    async def peaks(self) -> list[list[float]]:
        """[Hz, dB] of every tone heard right now."""

    async def colours(self) -> list[list[int]]:
        """Every colour seen right now."""

    async def speak(self, on: bool) -> None:
        """Sound or silence at the source; nothing is signalled."""

    async def reception(self) -> dict[str, tuple[int, int]]:
        """Stream -> (RTP packets received, sequence numbers missing), since it began."""

    async def say(self, text: str) -> None: ...
    async def texts(self) -> list[str]:
        """Every line received so far (own lines may be among them)."""


async def person_hears(listener: Person, speaker: Person) -> bool:
    return hears(await listener.peaks(), speaker.look.tone_hz)


async def person_sees(viewer: Person, shown: Person) -> bool:
    return any(near(colour, shown.look.rgb) for colour in await viewer.colours())


@dataclass(slots=True)
class ElementCallPerson:
    """Calls with Element Call, chats with the same Matrix account."""

    name: str
    look: Look
    browser: Browser
    user: User
    room: str

    async def peaks(self) -> list[list[float]]:
        return await self.browser.peaks()

    async def colours(self) -> list[list[int]]:
        return [seen["rgb"] for seen in await self.browser.colours()]

    async def speak(self, on: bool) -> None:
        await self.browser.speak(on)

    async def reception(self) -> dict[str, tuple[int, int]]:
        return {
            f"{row['kind']} {row['ssrc']}": (row["received"], row["lost"])
            for row in await self.browser.reception()
        }

    async def say(self, text: str) -> None:
        await self.user.say(self.room, text)

    async def texts(self) -> list[str]:
        return [
            str(event["content"].get("body", ""))
            for event in await self.user.history(self.room, 100)
            if event["type"] == "m.room.message"
        ]


@dataclass(slots=True)
class GuestPerson:
    """Uses our page, by keyboard."""

    name: str
    look: Look
    browser: Browser

    async def peaks(self) -> list[list[float]]:
        return await self.browser.peaks()

    async def colours(self) -> list[list[int]]:
        return [seen["rgb"] for seen in await self.browser.colours()]

    async def speak(self, on: bool) -> None:
        await self.browser.speak(on)

    async def reception(self) -> dict[str, tuple[int, int]]:
        return {
            f"{row['kind']} {row['ssrc']}": (row["received"], row["lost"])
            for row in await self.browser.reception()
        }

    async def say(self, text: str) -> None:
        await guestpage.say(self.browser, text)

    async def texts(self) -> list[str]:
        return await guestpage.texts(self.browser)


@dataclass(slots=True)
class ProcessPerson:
    """A native or Jingle client in a process of its own (same JSON lines)."""

    name: str
    look: Look
    process: PeerProcess

    async def peaks(self) -> list[list[float]]:
        return [tone for heard in await self.process.ask("peaks") for tone in heard["tones"]]

    async def colours(self) -> list[list[int]]:
        return [seen["rgb"] for seen in await self.process.ask("colours") if seen["rgb"]]

    async def speak(self, on: bool) -> None:
        await self.process.ask("speak", on=on)

    async def reception(self) -> dict[str, tuple[int, int]]:
        return {
            f"{row['kind']} {row.get('identity', number)}": (row["received"], row["lost"])
            for number, row in enumerate(await self.process.ask("statistics"))
            if row.get("received")
        }

    async def say(self, text: str) -> None:
        await self.process.ask("say", text=text)

    async def texts(self) -> list[str]:
        return [line["text"] for line in await self.process.ask("texts")]

    async def ask(self, do: str, **details: Any) -> Any:
        return await self.process.ask(do, **details)


def native_arguments(url: str, token: str, look: Look) -> list[str]:
    red, green, blue = look.rgb
    return [
        "--url",
        url,
        "--token",
        token,
        "--tone-hz",
        str(look.tone_hz),
        "--rgb",
        f"{red},{green},{blue}",
    ]


def plain_token(stack: Stack, identity: str, name: str, room: str) -> str:
    """As any LiveKit back end would mint it: no word of Parley in it."""
    from livekit import api

    return (
        api.AccessToken(stack.parley.api_key, stack.parley.api_secret)
        .with_identity(identity)
        .with_name(name)
        .with_grants(api.VideoGrants(room_join=True, room=room))
        .to_jwt()
    )


def jingle_arguments(
    stack: Stack, user: str, look: Look, *, call: bool = False, plain: bool = False
) -> list[str]:
    """`user` must be registered with the demonstration's password; it joins the MUC under its name."""
    red, green, blue = look.rgb
    server = stack.prosody
    arguments = [
        *("--jid", f"{user}@{server.domain}", "--password", "parley-demo"),
        *("--port", str(server.c2s_port), "--ca", str(server.ca)),
        *("--muc", stack.muc, "--nick", user.title()),
        *("--tone-hz", str(look.tone_hz), "--rgb", f"{red},{green},{blue}"),
    ]
    if plain:
        arguments.append("--plain")
    if call:
        arguments += ["--call", stack.focus]
    return arguments
