"""The text format of metrics, and what the ops listener serves."""

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from bridge.app.statistics import Statistics
from bridge.config import HttpSection, Listen
from bridge.http import Http, Listener
from bridge.media.statistics import Gatherer
from bridge.ops.health import Health
from bridge.ops.metrics import Metric, render
from tests.media.test_statistics import read


def test_a_family_is_help_type_and_samples() -> None:
    metric = Metric("a_total", "counter", "What\nit is.", (({}, 1.0), ({"who": 'a "b" \\'}, 0.25)))
    assert render([metric]) == (
        "# HELP a_total What\\nit is.\n"
        "# TYPE a_total counter\n"
        "a_total 1\n"
        'a_total{who="a \\"b\\" \\\\"} 0.25\n'
    )
    with pytest.raises(ValueError, match="bad name"):
        render([Metric("bad name", "gauge", "", ())])


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_label_never_breaks_the_line(label: str, value: float) -> None:
    text = render([Metric("a", "gauge", label, (({"l": label}, value),))])
    assert len(text.rstrip("\n").split("\n")) == 3


async def test_the_ops_listener_tells_prometheus_and_people() -> None:
    any_port = Listen(port=0)
    http = Http(HttpSection(public=any_port, internal=any_port, ops=any_port))
    gatherer = Gatherer()
    Statistics(http, Health(), gatherer, lambda conference: "standup")
    async with http.serve(), ClientSession() as session:
        base = f"http://127.0.0.1:{http.port(Listener.OPS)}"
        async with session.get(f"{base}/metrics") as answer:
            assert "parley_media_sessions{" not in await answer.text()
        gatherer.take(read(1_000), 1.0)
        gatherer.take(read(126_000), 2.0)
        async with session.get(f"{base}/metrics") as answer:
            text = await answer.text()
            assert answer.content_type == "text/plain"
        assert 'parley_media_sent_bps{conference="standup"} 1000000' in text
        assert 'parley_media_dropped_total{reason="malformed"} 7' in text
        assert 'parley_media_thread_cpu_used{shard="0"} 0.5' in text
        assert 'parley_media_thread_late_total{shard="0"} 3' in text
        async with session.get(f"{base}/stats") as answer:
            document = await answer.json()
        assert document["conferences"][0]["slug"] == "standup"
        assert document["conferences"][0]["sent_bps"] == 1_000_000
        assert "tracks" not in document
        async with session.get(f"{base}/stats?detail=1") as answer:
            document = await answer.json()
        assert document["tracks"][0]["layers"][0]["freeze_count"] == 2
        assert document["sessions"][0]["queue_delay_s"] == 0.0, "defaults are said too"
        public = f"http://127.0.0.1:{http.port(Listener.PUBLIC)}"
        async with session.get(f"{public}/metrics") as answer:
            assert answer.status == 404
