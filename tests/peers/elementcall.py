"""Element Call as its makers ship it: the npm package served standalone, driven in a headless Chromium.

The package is built for widgets, but its `dist` also runs by itself when it sits at the root of a port of
its own. A session of an existing Matrix account is put into the browser's storage, so that the account that
calls is the account that chats. Microphone and camera are replaced by a beeping oscillator and a coloured
canvas, one Chromium process per person (fake devices are per process).
Not here: what is asserted (tests/scenarios), the demonstration's link (demo).
"""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from tests.peers.browser import Browser

DIST = Path(__file__).parent / "web/node_modules/@element-hq/element-call-embedded/dist"


@contextlib.asynccontextmanager
async def serve(homeserver_url: str, server_name: str, port: int = 0) -> AsyncIterator[str]:
    """Element Call at http://localhost:<port>/, with this homeserver as its default."""
    config = {
        "default_server_config": {
            "m.homeserver": {"base_url": homeserver_url, "server_name": server_name}
        },
        "features": {"feature_use_device_session_member_events": True},
    }

    async def any_path(request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/config.json":
            return web.json_response(config)
        if "/assets/" in path:
            asset = DIST / "assets" / path.rsplit("/assets/", 1)[1]
            if asset.is_relative_to(DIST / "assets") and asset.is_file():
                return web.FileResponse(asset)
            raise web.HTTPNotFound
        return web.FileResponse(DIST / "index.html")

    app = web.Application()
    app.router.add_get("/{path:.*}", any_path)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    bound = runner.addresses[0][1]
    try:
        yield f"http://localhost:{bound}"
    finally:
        await runner.cleanup()


def room_link(base: str, room_id: str, server_name: str) -> str:
    """What a person opens to join the call of a Matrix room."""
    return f"{base}/room/#/?roomId={quote(room_id)}&viaServers={quote(server_name)}"


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in Matrix account."""

    user_id: str
    device_id: str
    access_token: str
    homeserver_url: str


def storage_script(session: Session) -> str:
    """Puts the session where Element Call looks for it (localStorage `matrix-auth-store`)."""
    stored = {
        "user_id": session.user_id,
        "device_id": session.device_id,
        "access_token": session.access_token,
        "passwordlessUser": False,
    }
    return f"localStorage.setItem('matrix-auth-store', {json.dumps(json.dumps(stored))});"


async def join(browser: Browser, base: str, room_id: str, server_name: str) -> None:
    """Open the room's link and press the button of the lobby."""
    page = browser.page
    await page.goto(room_link(base, room_id, server_name))
    button = page.get_by_role("button", name="Join call")
    await button.wait_for(timeout=30_000)
    await button.click()
    await page.get_by_role("button", name="Join call").wait_for(state="hidden", timeout=30_000)


async def text(browser: Browser) -> str:
    """What the page says, for example "Waiting for media" or a person's name."""
    shown: str = await browser.page.evaluate("document.body.innerText")
    return shown


async def hang_up(browser: Browser) -> None:
    await browser.page.get_by_role("button", name="End call").click()
