"""`make bench-quick`: the ceiling probe and one publisher to 100 real receivers, in less than a minute.

The last two lines are for machines: `join_p50_ms=...` and `ratio=... mode=... receivers=real`.
Not here: how it is measured (`bench.stage`), all the scenarios (`python -m bench`).
"""

import argparse
import asyncio
import sys
from typing import Any, Final

from bench import machine
from bench.cast import PACKET_BYTES, Cast, video
from bench.ceiling import ceiling
from bench.load import ROOT
from bench.stage import JOINS_AT_ONCE, Setting, stage

RECEIVERS: Final = 100
JOIN_RATE: Final = 300  # packets/s while people join: 30 frames/s, 2.9 Mbit/s
MEASURE_S: Final = 8.0
GSO_COPIES_PER_SEND: Final = 1.2  # below, hardly any message was cut into datagrams


def say(line: str) -> None:
    print(line, flush=True)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def mode(found: dict[str, Any]) -> str:
    return "gso" if found["copies_per_send"] >= GSO_COPIES_PER_SEND else "sendmmsg"


async def measure(receivers: int, seconds: float, shards: int = 1) -> dict[str, Any]:
    load_before = machine.load_average()
    cast = Cast(listeners=receivers, media=(video(JOIN_RATE),), is_unlimited=True)
    async with ceiling() as best:
        say(f"ceiling: {best.mean:,.0f} copies per CPU-second (rewrite, GCM, sendmmsg)")
        async with stage(cast, Setting(shards)) as scene:
            await scene.join()
            saturated = await scene.saturate(seconds)
    say(f"ceiling: {best.found[-1]:,.0f} copies per CPU-second afterwards")
    return {
        "receivers": receivers,
        "shards": shards,
        "packet_bytes": PACKET_BYTES,
        "joins_at_once": JOINS_AT_ONCE,
        "load_average_before": load_before,
        "ceiling_copies_per_cpu_s": best.found,
        "join_p50_ms": quantile(scene.join_ms, 0.5),
        "join_p95_ms": quantile(scene.join_ms, 0.95),
        "handshake_p50_ms": quantile(scene.handshake_ms, 0.5),
        "handshake_p95_ms": quantile(scene.handshake_ms, 0.95),
        "control_cpu_ms_per_join": scene.join_cpu.control_s * 1e3 / receivers,
        "mode": mode(saturated),
        "ratio": saturated["copies_per_cpu_s"] / best.mean,
        "saturated": saturated,
    }


def tell(found: dict[str, Any]) -> None:
    run = found["saturated"]
    say(
        f"joins: p50 {found['join_p50_ms']:.0f} ms, p95 {found['join_p95_ms']:.0f} ms to the first decrypted packet; "
        f"to the end of the handshake {found['handshake_p50_ms']:.0f} / {found['handshake_p95_ms']:.0f} ms; "
        f"{found['control_cpu_ms_per_join']:.1f} ms of worker CPU each, the data-plane thread apart"
    )
    say(
        f"fan-out: {run['copies']:,} copies of {run['copy_bytes']:.0f} bytes read by {found['receivers']} receivers "
        f"in {run['wall_s']:.1f} s ({run['copies_per_s']:,.0f}/s), {run['lost']} missing; "
        f"{run['opened']:,} decrypted as a sample, {run['forged']} failed"
    )
    say(
        f"worker: {run['server_cpu_s']:.2f} CPU-s, {run['engine_cpu_s']:.2f} of them in the data-plane threads, which "
        f"ran or were ready to {run['engine_busy']:.0%} of the time; {run['copies_per_cpu_s']:,.0f} copies per "
        f"CPU-second, {run['copies_per_send']:.1f} per message; {run['resident_bytes'] / 2**20:.0f} MiB resident"
    )
    say(f"load average {found['load_average_before']:.1f} before, {run['load_average']:.1f} after")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quick", description=__doc__)
    parser.add_argument("--receivers", type=int, default=RECEIVERS)
    parser.add_argument("--seconds", type=float, default=MEASURE_S, help="of saturation")
    parser.add_argument("--shards", type=int, default=1, help="data-plane threads of the worker")
    options = parser.parse_args(argv)
    found = asyncio.run(measure(options.receivers, options.seconds, options.shards))
    path = machine.save("quick", found)
    tell(found)
    say(f"stored in {path.relative_to(ROOT)}")
    say(f"join_p50_ms={found['join_p50_ms']:.0f}")
    say(f"ratio={found['ratio']:.2f} mode={found['mode']} receivers=real")
    return 0


if __name__ == "__main__":
    sys.exit(main())
