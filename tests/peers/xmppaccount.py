"""What a person sets up once in an XMPP account: contacts and rooms that every client of theirs then shows.

Contacts by mutual subscription (RFC 6121 section 3), rooms by bookmark with autojoin (XEP-0402).
Not here: creating the account (`tests.peers.prosody`), clients.
"""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import slixmpp

BOOKMARKS = "urn:xmpp:bookmarks:1"
PUBSUB = "http://jabber.org/protocol/pubsub"
WAIT_S = 20.0


async def set_up(
    jid: str,
    password: str,
    port: int,
    ca: Path,
    *,
    contacts: Sequence[str] = (),
    rooms: Sequence[tuple[str, str]] = (),
) -> None:
    """Log in once, add `contacts` (bare JIDs) and `rooms` ((bare JID, nickname)), log out."""
    client: Any = slixmpp.ClientXMPP(f"{jid}/setup", password)
    client.ssl_context = ssl.create_default_context(cafile=str(ca))
    client.auto_authorize, client.auto_subscribe = True, True
    started, changed = asyncio.Event(), asyncio.Event()

    async def start(_: Any) -> None:
        client.send_presence()
        await client.get_roster()
        started.set()

    client.add_event_handler("session_start", start)
    client.add_event_handler("roster_update", lambda _: changed.set())
    client.connect(host="127.0.0.1", port=port)
    try:
        async with asyncio.timeout(WAIT_S):
            await started.wait()
            for contact in contacts:
                client.send_presence_subscription(contact, ptype="subscribe")
            while not _is_mutual(client, contacts):
                changed.clear()
                await changed.wait()
            for room, nick in rooms:
                await _bookmark(client, room, nick)
    finally:
        await client.disconnect()


def _is_mutual(client: Any, contacts: Sequence[str]) -> bool:
    return all(client.client_roster[c]["subscription"] == "both" for c in contacts)


async def _bookmark(client: Any, room: str, nick: str) -> None:
    pubsub = ET.Element(f"{{{PUBSUB}}}pubsub")
    publish = ET.SubElement(pubsub, f"{{{PUBSUB}}}publish", node=BOOKMARKS)
    item = ET.SubElement(publish, f"{{{PUBSUB}}}item", id=room)
    conference = ET.SubElement(item, f"{{{BOOKMARKS}}}conference", autojoin="true")
    ET.SubElement(conference, f"{{{BOOKMARKS}}}nick").text = nick
    iq = client.make_iq_set()
    iq.append(pubsub)
    await iq.send(timeout=WAIT_S)
