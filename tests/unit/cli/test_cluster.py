"""What `snakepit status --all-nodes` prints."""

from __future__ import annotations

import io

from snakepit.pools.broker.status import PoolHistograms
from snakepit.pools.cli import cluster
from snakepit.pools.cli.output import terminal
from snakepit.pools.client.cluster_status import NodeAnswer, merge
from tests.statuses import pool, status

FOUND = merge([
    NodeAnswer(
        "n1",
        status([pool("digits", size=2, ready=2, finished=7)], histograms={"digits": PoolHistograms({40: 7})}),
        own=True,
    ),
    NodeAnswer("n2", status([pool("digits", state="failed", reason="cannot import", finished=1)])),
    NodeAnswer("n3", None, "no answer within 0.8 s"),
])  # fmt: skip


def test_each_table_names_the_node_and_a_silent_node_has_no_figures() -> None:
    out = io.StringIO()
    console = terminal(width=100, file=out)
    console.print(cluster._nodes(console, FOUND))
    console.print(cluster._pools(console, FOUND))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert ["n1", "(this", "host)", "live", "2/2", "0", "1/1", "0", "-"] in rows
    assert ["n3", "not", "answering", "-", "-", "-", "-", "-"] in rows
    assert ["digits", "failed", "3/3", "0", "2/2", "0", "8", "-"] in rows
    assert ["on", "n2", "failed", "1/1", "0", "1/1", "0", "1", "-"] in rows


def test_the_reason_of_a_state_is_shown_with_its_node() -> None:
    found = cluster.lines(FOUND.pools[0])
    assert found[0].startswith("digits: calls p95 ")
    assert found[1:] == ["digits on n2: failed: cannot import"]
