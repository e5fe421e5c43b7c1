"""The guest page as a guest without a mouse meets it: Tab, Enter and typing from the lobby to the goodbye.

WCAG 2.2 by axe-core (nothing serious or critical), reflow at 360 px and at 200 %, invitations that are no good,
a content security policy under which nothing foreign runs (S46).
Not here: media between clients (test_livekit_browser), what crosses to other networks (test_three_worlds).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from playwright.async_api import Page

from bridge.gateways.web import invite
from tests.peers import guestpage
from tests.peers.browser import Browser, Look, hears, open_browser
from tests.peers.parley import Parley

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

AXE = Path(__file__).resolve().parents[1] / "peers/web/node_modules/axe-core/axe.min.js"
ANN, BEN = Look(520, (200, 40, 40)), Look(900, (40, 60, 200))
DESK = {"width": 1000, "height": 700}
PHONE = {"width": 360, "height": 640}
ZOOMED = {"width": 500, "height": 350}  # what a browser at 200 % makes of DESK
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SELF_CAPTION = "(you)"
SAVED_BPS = 400_000  # web/src/budget.ts


@pytest.fixture
async def parley(tmp_path: Path) -> AsyncIterator[Parley]:
    sections = {"conferences": [{"slug": "demo", "title": "Demo"}]}
    async with Parley(tmp_path / "parley", sections) as server:
        yield server


@dataclass(slots=True)
class Console:
    """What a page complained about."""

    lines: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        page.on("console", lambda m: self.lines.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.lines.append(str(error)))

    @property
    def violations(self) -> list[str]:
        return [line for line in self.lines if "Content Security Policy" in line]


async def within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> None:
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


async def findings(page: Page) -> list[str]:
    """Rule and element of everything that axe calls serious or critical.

    The isolated world of the debugger runs it: the page's own policy would not let it in.
    """
    debugger = await page.context.new_cdp_session(page)
    frame = (await debugger.send("Page.getFrameTree"))["frameTree"]["frame"]["id"]
    world = await debugger.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})
    script = AXE.read_text() + (
        "; axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations"
        ".filter((v) => ['serious', 'critical'].includes(v.impact))"
        ".map((v) => v.id + ': ' + v.nodes.map((n) => n.target.join(' ')).join(', ')))"
    )
    answer: dict[str, Any] = await debugger.send(
        "Runtime.evaluate",
        {
            "expression": script,
            "contextId": world["executionContextId"],
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    await debugger.detach()
    assert "exceptionDetails" not in answer, answer
    found: list[str] = answer["result"]["value"]
    return found


async def assert_good(page: Page, where: str) -> None:
    """Accessible in both colour schemes, and nothing is cut off at the side."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await asyncio.sleep(0.3)  # colours fade
        assert await findings(page) == [], f"{where}, {scheme}"
    await page.emulate_media(color_scheme="light")
    for size in (PHONE, ZOOMED, DESK):
        await page.set_viewport_size({"width": size["width"], "height": size["height"]})
        await asyncio.sleep(0.2)
        assert await page.evaluate(OVERFLOW) <= 0, f"{where} scrolls sideways at {size}"


async def pressed(browser: Browser, name: str) -> bool:
    button = browser.page.get_by_role("button", name=name, exact=True)
    return await button.get_attribute("aria-pressed") == "true"


async def captions(browser: Browser) -> str:
    return "; ".join(await guestpage.people(browser))


async def test_axe_finds_what_is_wrong() -> None:
    """Else an empty list of findings would mean nothing."""
    async with open_browser(ANN) as browser:
        await browser.page.set_content("<html><body><main><button></button></main></body></html>")
        assert any(line.startswith("button-name") for line in await findings(browser.page))


async def choose_another_microphone(browser: Browser) -> None:
    """By arrow key in the list of devices."""
    page = browser.page
    for _ in range(guestpage.MAX_TABS):
        if await page.evaluate(
            "document.activeElement.closest('label')?.innerText.startsWith('Microphone') ?? false"
        ):
            break
        await page.keyboard.press("Tab")
    before = await page.evaluate("document.activeElement.selectedIndex")
    await page.keyboard.press("ArrowDown")
    assert await page.evaluate("document.activeElement.selectedIndex") == before + 1


async def meet(ann: Browser, ben: Browser) -> None:
    async def both_ways() -> bool:
        heard = hears(await ann.peaks(), BEN.tone_hz) and hears(await ben.peaks(), ANN.tone_hz)
        return heard and await ann.sees(BEN.rgb) and await ben.sees(ANN.rgb)

    await within(20, both_ways, "sound and picture both ways")


async def mute_and_unmute(ann: Browser, ben: Browser) -> None:
    async def is_muted() -> bool:
        return "Ann, muted" in await captions(ben)

    async def is_not_muted() -> bool:
        return not await is_muted()

    async def is_heard() -> bool:
        return hears(await ben.peaks(), ANN.tone_hz)

    await guestpage.press(ann.page, "Microphone")
    await within(5, is_muted, "muted at the other end")
    assert not await pressed(ann, "Microphone")
    await asyncio.sleep(1)  # what was under way
    assert not await is_heard()
    await ann.page.keyboard.press("Enter")
    await within(5, is_not_muted, "unmuted at the other end")
    assert await pressed(ann, "Microphone")
    await within(5, is_heard, "heard again")


async def camera_off_and_on(ann: Browser, ben: Browser) -> None:
    shown = ben.page.locator("figure:not(.self) video")

    async def is_hidden() -> bool:
        return await shown.count() == 0

    async def is_shown() -> bool:
        return await shown.count() == 1

    await guestpage.press(ann.page, "Camera")
    await within(5, is_hidden, "initials instead of a picture")
    await ann.page.keyboard.press("Enter")
    await within(10, is_shown, "a picture again")
    await within(10, lambda: ben.sees(ANN.rgb), "the colour again")


async def share_the_screen(ann: Browser, ben: Browser) -> None:
    async def is_there() -> bool:
        return "Ann, screen" in await captions(ben)

    async def is_gone() -> bool:
        return not await is_there()

    await guestpage.press(ann.page, "Share screen")
    await within(10, is_there, "the screen")
    assert await pressed(ann, "Share screen")
    await assert_good(ann.page, "call with a screen")
    widths: list[float] = await ben.page.locator("figure").evaluate_all(
        "(all) => all.sort((a, b) => b.classList.contains('screen') - a.classList.contains('screen'))"
        ".map((one) => one.getBoundingClientRect().width)"
    )
    assert len(widths) == 3
    assert widths[0] > 2 * max(widths[1:]), "the screen is the large one"
    await guestpage.press(ann.page, "Share screen")
    await within(5, is_gone, "the end of the screen")


async def save_data(ann: Browser, parley: Parley) -> None:
    """MP32: the button, and what the worker then sends Ann at most."""

    async def most_bps() -> set[int]:
        url = f"http://127.0.0.1:{parley.ops_port}/stats?detail=1"
        async with ClientSession() as http, http.get(url) as answer:
            found = await answer.json()
        return {row["available_outgoing_bitrate_bps"] for row in found["sessions"]}

    async def is_saving() -> bool:
        return SAVED_BPS in await most_bps()

    async def is_not_saving() -> bool:
        return not await is_saving()

    await guestpage.press(ann.page, "Save data")
    await within(5, is_saving, "a budget in the worker")
    assert await pressed(ann, "Save data")
    await assert_good(ann.page, "call that saves data")
    await ann.page.keyboard.press("Enter")
    await within(5, is_not_saving, "the budget lifted")
    assert not await pressed(ann, "Save data")


async def chat(ann: Browser, ben: Browser) -> None:
    """Open, send; the other is told while his is closed; Escape gives the focus back to the button."""
    page = ann.page
    await guestpage.say(ann, "hello by keyboard")

    async def read() -> bool:
        return any("hello by keyboard" in line for line in await guestpage.texts(ben))

    await within(5, read, "the line")
    assert await ben.page.get_by_role("button", name="Chat (1 new)").count() == 1
    await assert_good(page, "call with chat")
    await page.keyboard.press("Escape")
    assert not await page.get_by_role("complementary", name="Chat").is_visible()
    assert (await page.evaluate("document.activeElement.innerText")).strip() == "Chat"


async def test_the_whole_way_by_tab_and_enter(parley: Parley) -> None:
    link = await parley.invite("demo")
    async with open_browser(ANN) as ann, open_browser(BEN) as ben:
        page, console = ann.page, Console()
        console.listen(page)
        await page.goto(link)
        await page.get_by_text("This is how others will see you.").wait_for(timeout=20_000)
        preview = page.get_by_label("Your camera", exact=True)
        await within(5, lambda: preview.evaluate("(v) => v.videoWidth > 0"), "the preview")
        await assert_good(page, "lobby")
        await choose_another_microphone(ann)
        await guestpage.tab_to(page, "Your name")
        await page.keyboard.type("Ann")
        await page.keyboard.press("Enter")
        await page.get_by_role("toolbar", name="Call controls").wait_for(timeout=20_000)
        await guestpage.join(ben, link, "Ben")
        await meet(ann, ben)
        await assert_good(page, "call")
        await mute_and_unmute(ann, ben)
        await camera_off_and_on(ann, ben)
        await share_the_screen(ann, ben)
        await save_data(ann, parley)
        await chat(ann, ben)
        await guestpage.leave(ann)
        await assert_good(page, "goodbye")

        async def ben_is_alone() -> bool:
            return await guestpage.people(ben) == [f"Ben {SELF_CAPTION}"]

        await within(5, ben_is_alone, "gone at the other end")
        await guestpage.press(page, "Join again")
        await page.get_by_role("button", name="Join the call").wait_for(timeout=10_000)
        assert console.lines == []


async def test_bad_invitations_get_a_sentence(parley: Parley) -> None:
    day_s = 86_400
    old = invite.mint(parley.invite_secret, "demo", ttl_s=60, now_s=int(time.time()) - day_s)
    gone = invite.mint(parley.invite_secret, "no-such", ttl_s=60, now_s=int(time.time()))
    sentences = {
        old: "This invitation has expired. Ask for a new link.",
        "garbage": "This invitation is not valid.",
        "%E2%82": "This invitation is not valid.",  # no UTF-8
        "%2e%2e%2f": "This invitation is not valid.",
        gone: "This conference does not exist any more.",
    }
    async with open_browser(ANN) as browser:
        for token, sentence in sentences.items():
            await browser.page.goto(f"{parley.url}/j/{token}")
            await browser.page.get_by_role("heading", name=sentence).wait_for(timeout=10_000)
        await assert_good(browser.page, "refusal")


async def test_nothing_foreign_runs(parley: Parley) -> None:
    async with open_browser(ANN) as browser:
        page, console = browser.page, Console()
        console.listen(page)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await guestpage.join(browser, await parley.invite("demo"), "<img src=x onerror=alert(1)>")
        await guestpage.say(browser, "<script>document.title = 'mine'</script>")
        await page.get_by_text("<script>document.title = 'mine'</script>").wait_for(timeout=5_000)
        assert await page.title() == "Demo - Parley"
        assert console.violations == []
        strangers = [url for url in asked if not url.startswith((parley.url, "data:", "blob:"))]
        assert strangers == []
        # And the policy is one: what an intruder would try is stopped.
        for attempt in (
            "const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)",
            "const s = document.createElement('script'); s.src = 'http://localhost:1/x.js'; document.body.append(s)",
            "document.body.setAttribute('onclick', 'window.owned = 1'); document.body.click()",
        ):
            known = len(console.violations)
            await page.evaluate(f"() => {{ {attempt} }}")
            await asyncio.sleep(0.3)
            assert len(console.violations) > known, attempt
        assert not await page.evaluate("'owned' in window")
