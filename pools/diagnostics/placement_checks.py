"""The doctor's check of where pools live: each pool needs a living node that its `nodes` match."""

from __future__ import annotations

from collections.abc import Iterator

from snakepit.pools.broker.placement import is_placed, nodes_text, parse_labels
from snakepit.pools.diagnostics.checks import SILENT, ok, problem, skipped
from snakepit.pools.diagnostics.facts import NodeRowFacts, SystemFacts, Unknown
from snakepit.pools.diagnostics.finding import Finding


def placement(facts: SystemFacts) -> Iterator[Finding]:
    """Each pool that names its nodes has one that lives."""
    placed = [one for one in facts.pools if one.enabled and one.nodes] if isinstance(facts.pools, tuple) else []
    if not placed:
        return
    if isinstance(facts.database, Unknown):
        yield skipped("placement", facts.database.reason)
        return
    living = [row for row in facts.database.nodes if not row.stopped and row.silent < SILENT]
    for pool in placed:
        hosts = [row.name for row in living if is_placed(pool.nodes, row.name, _labels(row))]
        if hosts:
            yield ok("placement", f"{nodes_text(pool.nodes)}: {', '.join(hosts)}", pool.name)
        else:
            yield problem(
                "placement",
                f"no living node is {nodes_text(pool.nodes)}: its calls are refused and its jobs wait",
                "Start a broker on such a node (SNAKEPIT_NODE_LABELS, NODE_NAME), or correct the pool's `nodes`.",
                pool.name,
            )


def _labels(row: NodeRowFacts) -> dict[str, str]:
    return parse_labels(",".join(row.labels))
