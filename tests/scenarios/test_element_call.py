"""G3: an unmodified Element Call with a token from our MatrixRTC service, and a native client it did not know.

The native client has a plain token, so it can be seen in Element Call only as a ghost with a membership. Our
404 at the delegation paths must leave Element Call with its own delayed leave of 18 s (fact sheet section 1.3).
Not here: XMPP, the page (test_three_worlds).
"""

import asyncio
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from tests.peers import elementcall
from tests.peers.browser import Look, open_browser
from tests.peers.process import PeerProcess
from tests.peers.stack import running_stack
from tests.scenarios.cast import (
    ElementCallPerson,
    ProcessPerson,
    native_arguments,
    person_hears,
    person_sees,
    plain_token,
)

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

ALICE, TOM = Look(500, (210, 40, 40)), Look(1300, (180, 50, 200))
DELAY = "org.matrix.msc4140.delay"


async def test_element_call_and_a_plain_token_meet(tmp_path: Path) -> None:
    asked: list[str] = []
    async with (
        running_stack(folder=tmp_path / "stack") as stack,
        open_browser(
            ALICE, storage=elementcall.storage_script(stack.session(stack.alice))
        ) as browser,
    ):
        browser.page.on("request", lambda request: asked.append(request.url))
        await elementcall.join(browser, stack.element_call, stack.room, stack.synapse.server_name)
        alice = ElementCallPerson("alice", ALICE, browser, stack.alice, stack.room)
        url, token = await stack.matrix_token(stack.alice)
        room = jwt.decode(token, options={"verify_signature": False})["video"]["room"]
        plain = plain_token(stack, "tom", "Tom", room)
        process = PeerProcess(
            "tests.peers.native", native_arguments(url, plain, TOM), tmp_path / "tom.log"
        )
        async with process:
            tom = ProcessPerson("tom", TOM, process)
            met = dict.fromkeys(("tom hears", "tom sees", "alice hears", "alice sees"), False)
            began = time.monotonic()
            while not all(met.values()) and time.monotonic() - began < 30:
                met["tom hears"] |= await person_hears(tom, alice)
                met["tom sees"] |= await person_sees(tom, alice)
                met["alice hears"] |= await person_hears(alice, tom)
                met["alice sees"] |= await person_sees(alice, tom)
                await asyncio.sleep(0.5)
            assert all(met.values()), met
            assert await process.ask("identity") == "tom"  # its own name for itself
    paths = [urlsplit(one).path for one in asked]
    assert "/sfu/get" in paths
    assert "/delegate_delayed_leave" in paths  # Element Call asked, and we said 404
    delays = {value for one in asked for value in parse_qs(urlsplit(one).query).get(DELAY, [])}
    assert delays == {"18000"}
