"""The scenarios, one small module each: who takes part, what is measured, what is wanted.

Not here: how people join and send (`bench.stage`), the table (`bench.__main__`).
"""

from bench.scenarios import (
    a_fanout,
    b_meeting,
    c_speakers,
    d_rooms,
    e_twelve,
    f_viewers,
    g_idle,
    h_joins,
    i_poor_network,
    j_janus,
    k_shards,
)
from bench.scenarios.scenario import Scenario

ALL: dict[str, Scenario] = {
    one.letter: one
    for one in (
        a_fanout.SCENARIO,
        b_meeting.SCENARIO,
        c_speakers.SCENARIO,
        d_rooms.SCENARIO,
        e_twelve.SCENARIO,
        f_viewers.SCENARIO,
        g_idle.SCENARIO,
        h_joins.SCENARIO,
        i_poor_network.SCENARIO,
        j_janus.SCENARIO,
        k_shards.SCENARIO,
    )
}
