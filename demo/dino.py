"""`make dino`: Dino, set up for the running demonstration, on the display of whoever types it.

The account is filled in, the conference is a contact, its chat room is open, the demonstration's certificate
is trusted by this Dino only. `--headless` shows what happens without a display: a call, and screenshots.
Not here: how it is done (`tests.peers.dinohome`, `tests.peers.dino`), the demonstration (`demo`).
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.peers import dino, dinohome, xmppaccount
from tests.peers.stack import own_addresses

RUN = Path(__file__).resolve().parents[1] / ".run"
NOTES = RUN / "demo" / "demo.json"
HOME = RUN / "dino"
LOOK_S = 5.0

_NO_DISPLAY = """There is no display here (DISPLAY and WAYLAND_DISPLAY are empty). Either
  - run `make dino` in a terminal of your desktop, or over `ssh -X`, or
  - run `make dino HEADLESS=1`: a Dino on a display of its own calls the conference;
    its screen is saved every 5 s as {file}"""
_SHOWN = """Dino is {jid}. In its list:
  {muc:<22} the chat room; type: !conf help
  {focus:<22} the conference; call it with the handset in the header
Audio uses your microphone and loudspeaker. Ctrl-C, or closing Dino, ends it."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What the running demonstration says about itself."""

    login: dinohome.Login
    focus: str
    muc: str

    @property
    def is_there(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.login.port), 2),
        ):
            return self.login.ca.exists()
        return False


def _read() -> Demo | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        notes = json.loads(NOTES.read_text())
        login = dinohome.Login(
            notes["jid"], notes["password"], int(notes["c2s_port"]), Path(notes["ca"])
        )
        return Demo(login, notes["focus"], notes["muc"])
    return None


def _why_not(headless: bool) -> str:
    reason = dino.why_not() if headless else dinohome.why_not()
    if reason:
        return reason
    if not headless and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return _NO_DISPLAY.format(file=HOME / "screen.png")
    if len(own_addresses()) == 1:
        return "This machine has no network address besides loopback, and Dino's media needs one."
    return ""


async def _shown(demo: Demo, stopped: asyncio.Event) -> int:
    """Dino on this display, until it is closed. Its D-Bus session is its own: another Dino stays apart."""
    bus_folder = Path(tempfile.mkdtemp(prefix="dino-bus-"))
    bus = f"unix:path={bus_folder}/bus"
    home = dinohome.DinoHome(HOME, demo.login, (demo.focus,), {"DBUS_SESSION_BUS_ADDRESS": bus})
    async with contextlib.AsyncExitStack() as ends:
        ends.callback(shutil.rmtree, bus_folder, ignore_errors=True)
        log = ends.enter_context((HOME / "dino.log").open("wb"))
        if shutil.which("dbus-daemon"):
            daemon = await asyncio.create_subprocess_exec(
                *("dbus-daemon", "--session", "--nofork", f"--address={bus}"),
                stdout=log,
                stderr=log,
            )
            ends.push_async_callback(dinohome.end, daemon)
        await home.create()
        address = await ends.enter_async_context(dinohome.reachable(demo.login.port))
        client = await asyncio.create_subprocess_exec(
            *home.command("--print-xmpp=all", address=address),
            env=home.variables(),
            stdout=log,
            stderr=log,
        )
        ends.push_async_callback(dinohome.end, client)
        print(_SHOWN.format(jid=demo.login.jid, muc=demo.muc, focus=demo.focus), flush=True)
        closed, asked = asyncio.create_task(client.wait()), asyncio.create_task(stopped.wait())
        await asyncio.wait((closed, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if stopped.is_set():
            await dinohome.end(client)
        code = await closed
        if code and not stopped.is_set():
            print(f"Dino ended with {code}, see {HOME / 'dino.log'}")
        return 0 if stopped.is_set() else code


async def _headless(demo: Demo, stopped: asyncio.Event) -> int:
    screen = HOME / "screen.png"
    async with dino.Dino(demo.login, demo.focus, HOME) as client:
        print(f"Dino is online as {demo.login.jid} and calls {demo.focus}.", flush=True)
        await client.call()
        print(f"Its screen: {screen}   (Ctrl-C ends it)", flush=True)
        while not stopped.is_set():
            await client.screenshot(screen)
            tones = await client.tones()
            heard = ", ".join(f"{hz:.0f} Hz" for hz, _ in tones) or "silence"
            print(f"  it sends {client.tone_hz} Hz and hears {heard}", flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), LOOK_S)
    return 0


async def _run(headless: bool) -> int:
    demo = _read()
    if demo is None or not demo.is_there:
        print("The demonstration does not run. Start it in another terminal: make run")
        return 1
    reason = _why_not(headless)
    if reason:
        print(reason)
        return 1
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    shutil.rmtree(HOME, ignore_errors=True)  # every demonstration is a new server
    HOME.mkdir(parents=True)
    login = demo.login
    await xmppaccount.set_up(
        login.jid,
        login.password,
        login.port,
        login.ca,
        contacts=[demo.focus],
        rooms=[(demo.muc, login.jid.partition("@")[0].title())],
    )
    return await (_headless if headless else _shown)(demo, stopped)


def main() -> None:
    options = argparse.ArgumentParser(prog="demo.dino")
    options.add_argument("--headless", action="store_true", help="no display: call, screenshots")
    sys.exit(asyncio.run(_run(options.parse_args().headless)))


if __name__ == "__main__":
    main()
