"""Somebody who starts the demonstration and tries every line it prints, then presses Ctrl-C.

Run it as a program: `python -m tests.peers.newcomer COMMAND...`; it prints one JSON object: what was seen, step by step.
It looks at processes by their command line, so the demonstration's folder must be nobody else's.
Not here: judging (tests/scenarios/test_newcomer.py), a network namespace (the caller's).
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Page

from tests.peers import guestpage
from tests.peers.browser import Browser, Look, hears, open_browser
from tests.peers.process import PeerProcess

READY_S = 120.0
STEP_S = 40.0
END_S = 30.0
ALICE, GUEST, BOB = Look(520, (200, 40, 40)), Look(700, (40, 160, 60)), Look(900, (40, 60, 200))
Wait = Callable[[], Awaitable[bool]]


async def _within(look: Wait, seconds: float = STEP_S) -> bool:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if await look():
            return True
        await asyncio.sleep(0.3)
    return False


class Printed:
    """What the demonstration says on its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.text = ""
        self._process = process

    async def read(self) -> None:
        stream = self._process.stdout
        while stream is not None and (line := await stream.readline()):
            self.text += line.decode(errors="replace")

    def find(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        if found is None:
            raise RuntimeError(f"nothing like {pattern!r} in:\n{self.text}")
        return found.group(1)


async def _conf_help(base: str, room: str) -> bool:
    """As alice, with no more than the printed homeserver, account and room."""
    async with aiohttp.ClientSession() as http:

        async def call(method: str, path: str, token: str = "", body: Any = None) -> Any:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url = f"{base}/_matrix/client/v3/{path}"
            async with http.request(method, url, headers=headers, json=body) as answer:
                return await answer.json()

        who = {"type": "m.id.user", "user": "alice"}
        asked = {"type": "m.login.password", "identifier": who, "password": "parley-demo"}
        token = (await call("POST", "login", body=asked))["access_token"]
        line = {"msgtype": "m.text", "body": "!conf help"}
        await call("PUT", f"rooms/{room}/send/m.room.message/one", token, line)

        async def is_answered() -> bool:
            page = await call("GET", f"rooms/{room}/messages?dir=b&limit=20", token)
            return any(
                "!conf mute" in str(event["content"].get("body", "")) for event in page["chunk"]
            )

        return await _within(is_answered)


async def _sign_in(page: Page, link: str, pictures: Path) -> None:
    """Element Call's own way: sign in as alice, then the printed link, then join."""
    base = link.partition("/room/")[0]
    await page.goto(f"{base}/login")
    await page.locator("input").nth(0).fill("alice")
    await page.locator("input[type=password]").fill("parley-demo")
    await page.get_by_role("button", name="Login").click()
    await page.wait_for_url(lambda url: "/login" not in url, timeout=STEP_S * 1000)
    await _enter(page, link, pictures)


async def _enter(page: Page, link: str, pictures: Path) -> None:
    await page.goto(link)
    await page.screenshot(path=pictures / "element-call-lobby.png")
    button = page.get_by_role("button", name="Join call")
    await button.click(timeout=STEP_S * 1000)
    await button.wait_for(state="hidden", timeout=STEP_S * 1000)


async def _as_guest_of_element_call(page: Page, link: str) -> bool:
    """The printed link, a name, Continue, and the lobby's Join call."""
    await page.goto(link)
    await page.locator("input").first.fill("Visitor")
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("button", name="Join call").click(timeout=STEP_S * 1000)
    await page.get_by_role("button", name="End call").wait_for(timeout=STEP_S * 1000)
    return True


async def _talk(printed: Printed, pictures: Path, seen: dict[str, Any]) -> None:
    element_call = printed.find(r"Element Call +open +(\S+)")
    guest_link = printed.find(r"Guest link +open +(\S+)")
    jid = printed.find(r"XMPP +account (\S+) /")
    port = printed.find(r"server 127\.0\.0\.1:(\d+)")
    muc, focus = printed.find(r"MUC +(\S+)"), printed.find(r"call +(\S+@\S+)")
    folder = Path(printed.find(r"Logs and configuration: (\S+)"))
    ca = json.loads((folder / "demo.json").read_text())["ca"]
    arguments = [
        *("--jid", jid, "--password", "parley-demo", "--port", port, "--ca", ca),
        *("--muc", muc, "--nick", "Bob", "--call", focus, "--tone-hz", str(BOB.tone_hz)),
    ]
    async with contextlib.AsyncExitStack() as clients:

        async def browser(look: Look, name: str) -> Browser:
            log = pictures / f"{name}.log"
            return await clients.enter_async_context(open_browser(look, log=log))

        alice, guest, visitor = (
            await browser(ALICE, "alice"),
            await browser(GUEST, "guest"),
            await browser(Look(1100, (160, 160, 30)), "visitor"),
        )
        try:
            await guestpage.join(guest, guest_link, "Guest")
            await _sign_in(alice.page, element_call, pictures)
            bob = await clients.enter_async_context(
                PeerProcess("tests.peers.jingle", arguments, pictures / "bob.log")
            )

            async def xmpp_hears_the_guest() -> bool:
                tones = [tone for heard in await bob.ask("peaks") for tone in heard["tones"]]
                return hears(tones, GUEST.tone_hz)

            async def guest_hears_both() -> bool:
                peaks = await guest.peaks()
                return hears(peaks, ALICE.tone_hz) and hears(peaks, BOB.tone_hz)

            seen["guest hears Element Call and XMPP"] = await _within(guest_hears_both)
            for other in (alice, guest):
                await other.speak(other is guest)
            seen["XMPP hears the guest"] = await _within(xmpp_hears_the_guest)
            seen["Element Call as a guest"] = await _as_guest_of_element_call(
                visitor.page, element_call
            )
        finally:
            for person, name in ((alice, "alice"), (guest, "guest"), (visitor, "visitor")):
                with contextlib.suppress(Exception):
                    await person.page.screenshot(path=pictures / f"{name}.png")


def _left_over(folder: str) -> list[str]:
    """Command lines of processes that have to do with this demonstration."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
            here = os.readlink(process / "ns/net") == os.readlink("/proc/self/ns/net")
            ours = any(
                word in line for word in (folder, "synapse.app.homeserver", "prosody", "-m sfu")
            )
            if here and ours and int(process.name) != os.getpid():
                found.append(line.strip())
    return found


async def main() -> None:
    pictures = Path(sys.argv[1])
    seen: dict[str, Any] = {}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *sys.argv[2:],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # its group gets what Ctrl-C sends
    )
    printed = Printed(process)
    reading = asyncio.create_task(printed.read())

    async def is_ready() -> bool:
        return "Ctrl-C" in printed.text or process.returncode is not None

    try:
        await _within(is_ready, READY_S)
        seen["seconds from the command to the text"] = round(time.monotonic() - began, 1)
        seen["seconds to start"] = float(printed.find(r"Ready after ([\d.]+) s"))
        server = printed.find(r"Matrix client +server +(\S+)")
        room = printed.find(r"room +(!\S+)")
        seen["!conf help is answered"] = await _conf_help(server, room)
        await _talk(printed, pictures, seen)
    except Exception as why:
        seen["error"] = repr(why)
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    seen["seconds to stop"] = round(time.monotonic() - began, 1)
    reading.cancel()
    with contextlib.suppress(RuntimeError):
        seen["left over"] = _left_over(printed.find(r"Logs and configuration: (\S+)"))
    (pictures / "printed.txt").write_text(printed.text)
    print(json.dumps(seen, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
