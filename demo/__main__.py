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
import socket
import sys
import time
from pathlib import Path

from demo import check
from tests.peers.elementcall import room_link
from tests.peers.stack import Ports, Stack, own_addresses, running_stack

RUN = Path(__file__).resolve().parents[1] / ".run"
HOME = RUN / "demo"
CHECK_HOME = RUN / "check"  # a check leaves a running demonstration alone
PORTS = Ports(synapse=8008, parley=8480, element_call=8090)


class NotFree(Exception):
    """Somebody else listens where we want to."""


def _need_free(ports: Ports) -> None:
    for port, whose in (
        (ports.synapse, "Synapse"),
        (ports.parley, "parley"),
        (ports.element_call, "Element Call"),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as why:
                raise NotFree(
                    f"Port {port}, which {whose} needs, is taken. Is the demonstration running already? "
                    f"`ss -ltnp 'sport = :{port}'` says who has it."
                ) from why


def _tell(line: str) -> None:
    print(f"  starting {line}", flush=True)


async def _describe(stack: Stack, guest: str) -> str:
    ec = room_link(stack.element_call, stack.room, stack.synapse.server_name)
    return f"""
Everybody below is in one conference, "Demo".

  Element Call   open    {ec}
                 (choose a name; or first sign in at {stack.element_call}/login as alice, password parley-demo)
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


async def _check() -> int:
    began = time.monotonic()
    shutil.rmtree(CHECK_HOME, ignore_errors=True)
    async with running_stack(folder=CHECK_HOME, tell=_tell) as stack:
        print(f"Ready after {time.monotonic() - began:.1f} s.", flush=True)
        return await check.run(stack)


async def _serve() -> int:
    _need_free(PORTS)
    began = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    media = own_addresses()
    async with running_stack(ports=PORTS, folder=HOME, tell=_tell, media_addresses=media) as stack:
        await stack.prosody.register("bob", "parley-demo")
        guest = await stack.parley.invite("demo")
        _save_for_others(stack, guest)
        print(f"Ready after {time.monotonic() - began:.1f} s.", flush=True)
        print(await _describe(stack, guest), flush=True)
        await asyncio.Event().wait()  # until Ctrl-C
    return 0


async def _until_stopped(unattended: bool) -> int:
    """Ctrl-C at any moment, also while things start, stops what has started; a second one changes nothing."""
    loop = asyncio.get_running_loop()
    work = loop.create_task(_check() if unattended else _serve())
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        if not is_stopped:
            is_stopped = True
            print("\nStopping.", flush=True)
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await work
    except asyncio.CancelledError:
        print("Everything has stopped.", flush=True)
        return 1 if unattended else 0


def main() -> None:
    options = argparse.ArgumentParser(prog="demo")
    options.add_argument("--check", action="store_true", help="one call, unattended")
    try:
        sys.exit(asyncio.run(_until_stopped(options.parse_args().check)))
    except (NotFree, RuntimeError) as why:
        print(f"\n{why}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
