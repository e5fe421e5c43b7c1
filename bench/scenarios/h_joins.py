"""H: join storms through the public protocol, until the first packet: one room of 200, and twenty rooms of ten.

`parley` and its worker share one CPU, the clients have the other; what counts is the CPU time of both servers.
In one room everybody is told of everybody, so that work grows with the square; rooms of ten show what a join costs.
"""

from typing import Final

from bench.cast import Cast, video
from bench.goals import Goal, at_least, told
from bench.publicstage import public_stage
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting

AT_ONCE: Final = 32
PACKETS_PER_S: Final = 30
CASTS: Final = {
    "rooms": Cast(rooms=20, listeners=10, media=(video(PACKETS_PER_S),)),
    "one_room": Cast(rooms=1, listeners=200, media=(video(PACKETS_PER_S),)),
}


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    return {name: await _storm(cast) for name, cast in CASTS.items()}


async def _storm(cast: Cast) -> Result:
    async with public_stage(cast) as scene:
        await scene.speak()
        await scene.join(AT_ONCE)
    worker, joins = scene.worker_cpu, len(scene.listeners)
    cpu_s = scene.control_cpu_s + worker.process_s
    first, joined = sorted(scene.first_ms), sorted(scene.joined_ms)
    return {
        "joins": joins,
        "at_once": AT_ONCE,
        "wall_s": scene.wall_s,
        "joins_per_s": joins / scene.wall_s,
        "cpu_s": cpu_s,
        "joins_per_cpu_s": joins / cpu_s,
        "worker_joins_per_cpu_s": joins / worker.process_s,
        "control_cpu_ms_per_join": scene.control_cpu_s * 1e3 / joins,
        "control_loop_cpu_ms_per_join": scene.control_loop_s * 1e3 / joins,
        "worker_cpu_ms_per_join": worker.process_s * 1e3 / joins,
        "worker_python_cpu_ms_per_join": worker.control_s * 1e3 / joins,
        "joined_p50_ms": joined[joins // 2],
        "first_packet_p50_ms": first[joins // 2],
        "first_packet_p95_ms": first[joins * 95 // 100],
    }


def goals(found: Result, ceiling: float) -> list[Goal]:
    rooms, one = found["rooms"], found["one_room"]
    return [
        at_least(
            "joins per second and core, worker with DTLS",
            rooms["worker_joins_per_cpu_s"],
            100,
            digits=0,
        ),
        at_least(
            "joins per second and core, worker and control plane",
            rooms["joins_per_cpu_s"],
            100,
            digits=0,
        ),
        told("the same into one room", one["joins_per_cpu_s"], digits=0),
        told("worker per join", rooms["worker_cpu_ms_per_join"], "ms CPU"),
        told("worker per join, Python", rooms["worker_python_cpu_ms_per_join"], "ms CPU"),
        told("control plane per join", rooms["control_cpu_ms_per_join"], "ms CPU"),
        told(
            "of that its event loop; the rest is database threads",
            rooms["control_loop_cpu_ms_per_join"],
            "ms CPU",
        ),
        told("control plane per join into one room", one["control_cpu_ms_per_join"], "ms CPU"),
        told("first packet, p50", rooms["first_packet_p50_ms"], "ms", 0),
    ]


SCENARIO: Final = Scenario("H", "join storm, 32 at a time", run, goals, "LiveKit protocol")
