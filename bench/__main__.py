"""`make bench`: scenario A at several sizes, saturated and at half of that; every result between two ceiling probes.

Not here: the quick gate (`bench.quick`), how a room is measured (`bench.fanout`).
"""

import argparse
import asyncio
import statistics
import sys
from typing import Any, Final

from bench import fanout, machine
from bench.load import ROOT, build
from bench.quick import JOINS_AT_ONCE, probe, quantile, say

SIZES: Final = (10, 100, 300)
MEASURE_S: Final = 6.0


async def measure_size(receivers: int, seconds: float) -> dict[str, Any]:
    """One size: joins, saturation, then half of the rate that was reached."""
    binary = build()
    ceilings = [await probe()]
    async with fanout.room(binary, receivers) as room:
        await fanout.join(room, JOINS_AT_ONCE, say)
        saturated = await fanout.saturate(room, seconds)
        half_rate = max(int(saturated["sent"] / saturated["wall_s"] / 2), 1)
        half = await fanout.offer(room, half_rate, seconds)
    ceilings.append(await probe())
    ceiling = statistics.mean(ceilings)
    return {
        "receivers": receivers,
        "ceiling_copies_per_cpu_s": ceilings,
        "join_p50_ms": quantile(room.join_ms, 0.5),
        "join_p95_ms": quantile(room.join_ms, 0.95),
        "control_cpu_ms_per_join": room.join_cpu.control_s * 1e3 / receivers,
        "ratio": saturated["copies_per_cpu_s"] / ceiling,
        "saturated": saturated,
        "half": half,
    }


def tell(found: dict[str, Any]) -> None:
    full, half = found["saturated"], found["half"]
    say(
        f"{found['receivers']:>5} receivers: {full['copies_per_cpu_s']:>9,.0f} copies per CPU-second, "
        f"ratio {found['ratio']:.2f}, {full['copies_per_send']:.1f} per message, {full['lost']} missing; "
        f"at half the rate {half['copies_per_cpu_s']:>9,.0f}, {half['lost']} missing, from sender to reader "
        f"{half['delay_p50_us'] / 1e3:.1f} / {half['delay_p99_us'] / 1e3:.1f} ms (p50 / p99); "
        f"join p50 {found['join_p50_ms']:.0f} ms; {full['resident_bytes'] / 2**20:.0f} MiB"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--receivers", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=MEASURE_S, help="of each measurement")
    options = parser.parse_args(argv)
    runs = [
        asyncio.run(measure_size(receivers, options.seconds)) for receivers in options.receivers
    ]
    path = machine.save("fanout", {"runs": runs})
    for run in runs:
        tell(run)
    say(f"stored in {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
