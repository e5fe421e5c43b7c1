"""`python -m sfu`: one media worker process.

Everything it will ever run is imported here at start, so an upgrade on disk cannot change a running worker.
The lock is taken before the port is bound.
Not here: what a worker does (`sfu.worker`), how long it lives (`sfu.process`).
"""

import argparse
import asyncio
import gc
import ipaddress
import logging
import sys
from pathlib import Path

from sfu.ice import address_filter, offered
from sfu.lock import Locked, LockFile
from sfu.native import NativePlane, local_addresses
from sfu.process import serve
from sfu.redact import FieldFormatter, Redaction

MAX_SHARDS = 64  # the engine's
EXIT_LOCKED = 3  # another worker holds the lock
EXIT_PORT = 4  # the UDP port cannot be bound
EXIT_FILES = 5  # the state directory is not usable
EXIT_ADDRESSES = 6  # the filters leave no address to offer


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _filter(text: str) -> str:
    address_filter(text)
    return text


def _shards(text: str) -> int:
    shards = int(text)
    if not 0 <= shards <= MAX_SHARDS:
        raise ValueError(text)
    return shards


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m sfu", description="Parley's media worker")
    parser.add_argument("--socket", type=Path, required=True, help="path of the control socket")
    parser.add_argument("--lock", type=Path, required=True, help="path of the lock file")
    parser.add_argument(
        "--listen", type=_address, nargs="+", default=["127.0.0.1"], metavar="ADDRESS"
    )
    parser.add_argument("--port", type=int, default=0, help="port, UDP and TCP; 0 = any")
    parser.add_argument(
        "--advertise",
        type=_address,
        nargs="*",
        default=[],
        metavar="ADDRESS",
        help="addresses in candidates; default: those of --listen, a wildcard being all of ours",
    )
    for name, meaning in (
        ("--allow", "whose addresses may be offered; default: all"),
        ("--deny", "whose addresses are not offered"),
    ):
        parser.add_argument(
            name,
            type=_filter,
            nargs="*",
            default=[],
            metavar="FILTER",
            help=f"networks and interfaces (docker*) {meaning}",
        )
    parser.add_argument(
        "--tcp",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take ICE over TCP on the same port number",
    )
    parser.add_argument(
        "--dscp",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="mark audio EF and video AF41",
    )
    parser.add_argument(
        "--shards",
        type=_shards,
        default=1,
        help="data-plane threads; 0 = one for each CPU that we may use",
    )
    parser.add_argument(
        "--orphan-s", type=float, default=600.0, help="seconds without an owner before we end"
    )
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if argv is None else argv)
    handler = logging.StreamHandler()
    handler.addFilter(Redaction())
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
    logging.getLogger("aiortc").setLevel(logging.WARNING)  # its DEBUG is a line per packet
    log = logging.getLogger("sfu")
    try:
        lock = LockFile(options.lock)
    except Locked:
        log.error("another worker holds the lock")
        return EXIT_LOCKED
    except OSError as why:
        log.error("the lock file cannot be opened: %s", why.strerror)
        return EXIT_FILES
    try:
        addresses = offered(
            tuple(options.listen),
            tuple(options.advertise),
            local_addresses(),
            allow=tuple(options.allow),
            deny=tuple(options.deny),
        )
    except OSError as why:
        log.error("the interfaces cannot be listed: %s", why.strerror)
        addresses = ()
    if not addresses:
        log.error("no address is left to offer: look at --listen, --allow and --deny")
        lock.release()
        return EXIT_ADDRESSES
    try:
        plane = NativePlane(
            tuple(options.listen),
            options.port,
            tcp=options.tcp,
            dscp=options.dscp,
            shards=options.shards,
        )
    except OSError as why:
        log.error("the port cannot be bound: %s", why.strerror)
        lock.release()
        return EXIT_PORT
    gc.freeze()  # what is loaded stays: a full collection would walk it again and again
    try:
        asyncio.run(
            serve(plane, options.socket, addresses, tcp=options.tcp, orphan_s=options.orphan_s)
        )
    except OSError as why:
        log.error("the control socket cannot be opened: %s", why.strerror)
        return EXIT_FILES
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
