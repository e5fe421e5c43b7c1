"""The demonstration: the whole stack on this machine, what to open and type, until Ctrl-C.

Everything listens on loopback; media, which admits nobody without a key, also on this machine's address (for Dino).

`--check` does it unattended: a native LiveKit client with a Matrix account and an XMPP Jingle client exchange
media and a line of text; it prints what each saw and ends with exit code 0 or 1.
Not here: setting things up (`make setup`), the stack itself (tests.peers.stack).
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from pathlib import Path

from demo import check
from tests.peers.elementcall import room_link
from tests.peers.stack import Ports, Stack, own_addresses, running_stack

HOME = Path(__file__).resolve().parents[1] / ".run" / "demo"
PORTS = Ports(synapse=8008, parley=8480, element_call=8090)


def _tell(line: str) -> None:
    print(f"  starting {line}", flush=True)


async def _describe(stack: Stack, guest: str) -> str:
    ec = room_link(stack.element_call, stack.room, stack.synapse.server_name)
    return f"""
Everybody below is in one conference, "Demo".

  Element Call   open    {ec}
                 (choose a name; or sign in as alice, password parley-demo)
  Matrix client  server  {stack.synapse.url}   account alice / parley-demo
                 room    {stack.room}   (type: !conf help)
  Guest link     open    {guest}
  XMPP           account bob@{stack.prosody.domain} / parley-demo   server 127.0.0.1:{stack.prosody.c2s_port}
                 MUC     {stack.muc}
                 call    {stack.focus}
  Dino           run     make dino     (in another terminal)

Logs and configuration: {stack.folder}
Ctrl-C stops everything.
"""


def _save_for_others(stack: Stack, guest: str) -> None:
    """`make dino` reads this."""
    (HOME / "demo.json").write_text(
        json.dumps(
            {
                "xmpp_domain": stack.prosody.domain,
                "c2s_port": stack.prosody.c2s_port,
                "ca": str(stack.prosody.ca),
                "focus": stack.focus,
                "muc": stack.muc,
                "jid": f"bob@{stack.prosody.domain}",
                "password": "parley-demo",
                "guest": guest,
            }
        )
    )


async def _run(unattended: bool) -> int:
    began = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    ports = Ports() if unattended else PORTS
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    media = ("127.0.0.1",) if unattended else own_addresses()
    async with running_stack(ports=ports, folder=HOME, tell=_tell, media_addresses=media) as stack:
        await stack.prosody.register("bob", "parley-demo")
        guest = await stack.parley.invite("demo")
        print(f"Ready after {time.monotonic() - began:.1f} s.", flush=True)
        if unattended:
            return await check.run(stack)
        _save_for_others(stack, guest)
        print(await _describe(stack, guest), flush=True)
        await stopped.wait()
        print("Stopping.", flush=True)
    return 0


def main() -> None:
    options = argparse.ArgumentParser(prog="demo")
    options.add_argument("--check", action="store_true", help="one call, unattended")
    sys.exit(asyncio.run(_run(options.parse_args().check)))


if __name__ == "__main__":
    main()
