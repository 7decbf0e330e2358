"""The pools that live on this node, by their rows and the name and labels of the node."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

from snakepit.pools import conf
from snakepit.pools.broker.placement import find_nodes_problem, is_placed
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.models.observed import Node
from snakepit.pools.models.pool import Pool

FRESH = timedelta(seconds=20)  # a living broker writes every five seconds


def is_hosted(nodes: Any) -> bool:
    """Whether a pool with these `nodes` lives on this node. A row with an invalid value lives on no node."""
    return find_nodes_problem(nodes) is None and is_placed(nodes, conf.node_name(), conf.node_labels())


def hosted(rows: QuerySet[Pool] | None = None) -> list[str]:
    """The names of the enabled pools that live on this node, in order."""
    rows = Pool.objects.all() if rows is None else rows
    found = rows.filter(enabled=True).order_by("name").values_list("name", "nodes")
    return [name for name, nodes in found if is_hosted(nodes)]


def placed() -> set[str]:
    """The names of the pools that do not live on every node."""
    return set(Pool.objects.exclude(nodes=[]).values_list("name", flat=True))


def is_draining() -> bool:
    """Whether the broker of this node takes no calls, as it wrote itself a moment ago."""
    own = Node.objects.filter(name=conf.node_name(), draining=True, stopped=False)
    return own.seen_within(FRESH).exists()


def hosted_with(specs: Mapping[str, PoolSpec]) -> list[str]:
    """As `hosted`, with the pools of the settings that no broker has written as rows yet."""
    known = set(Pool.objects.values_list("name", flat=True))
    unwritten = [name for name, spec in specs.items() if name not in known and spec.enabled and is_hosted(spec.nodes)]
    return sorted([*hosted(), *unwritten])
