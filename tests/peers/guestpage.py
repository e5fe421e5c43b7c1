"""Our guest page in a headless Chromium, used as a person without a mouse would: Tab, Enter, typing.

Not here: what the page is made of (`web/`), what is asserted.
"""

from playwright.async_api import Page

from tests.peers.browser import Browser

MAX_TABS = 40  # no control of the page is further away


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the control of this accessible name has the focus; raises when it cannot be reached."""
    for _ in range(MAX_TABS):
        focused = await page.evaluate(
            "(() => { const e = document.activeElement; if (!e) return '';"
            " const label = e.labels?.[0]?.innerText ?? '';"
            " return (e.getAttribute('aria-label') || label || e.innerText || '').trim(); })()"
        )
        if focused.startswith(name):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"no way to {name!r} by Tab")


async def press(page: Page, name: str) -> None:
    """Reach a control by Tab and press Enter."""
    await tab_to(page, name)
    await page.keyboard.press("Enter")


async def join(browser: Browser, link: str, name: str) -> None:
    """Open an invitation, give a name, join; returns when the call's controls are there."""
    page = browser.page
    await page.goto(link)
    await page.get_by_text("This is how others will see you.").wait_for(timeout=20_000)
    await tab_to(page, "Your name")
    await page.keyboard.type(name)
    await press(page, "Join the call")
    await page.get_by_role("toolbar", name="Call controls").wait_for(timeout=20_000)


async def say(browser: Browser, text: str) -> None:
    page = browser.page
    if not await page.get_by_role("complementary", name="Chat").is_visible():
        await press(page, "Chat")
    await tab_to(page, "Message")
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


async def texts(browser: Browser) -> list[str]:
    """Every line of the chat, name first."""
    found: list[str] = await browser.page.locator(".lines li").all_inner_texts()
    if not found:
        found = await browser.page.evaluate(
            "[...document.querySelectorAll('.lines li')].map((line) => line.textContent)"
        )
    return found


async def people(browser: Browser) -> list[str]:
    """The captions of the tiles."""
    found: list[str] = await browser.page.locator("figcaption").all_inner_texts()
    return found


async def leave(browser: Browser) -> None:
    await press(browser.page, "Leave")
    await browser.page.get_by_text("You left the call.").wait_for(timeout=10_000)
