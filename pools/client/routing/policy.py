"""Which nodes a call tries, in which order, and which failures let it try another. Facts in, order out; no I/O.

1. The node of this host, if it serves the pool.
2. Nodes with a free slot; then those without. In each group by chance, in proportion to what they have.

A call with an affinity: nodes with a free slot, then those without, in each group in the order of its key.

By chance, because many processes decide on the same reports: the one best node would get the calls of all of them.

>>> from random import Random
>>> busy, idle = PoolLoad(slots=4, free=0, waiting=3), PoolLoad(slots=4, free=4, waiting=0)
>>> nodes = [NodeReport("a", pools={"p": busy}), NodeReport("b", pools={"p": idle}), NodeReport("c", serving=False)]
>>> order(nodes, "p", frozenset(), Random(1).random)
['b', 'a']
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import log

from snakepit.pools.broker.errors import (
    NOT_STARTED,
    UNKNOWN,
    BrokerError,
    BrokerUnreachable,
    CommandSuspended,
    NodeDraining,
    PoolFailed,
    PoolUnknown,
    QueueFull,
    QueueTimeout,
    ShuttingDown,
)

AWAY = (BrokerUnreachable, NodeDraining, ShuttingDown)  # the node takes no calls
UNFIT = (PoolUnknown, PoolFailed)  # the node takes none for this pool
FULL = (QueueFull, QueueTimeout, CommandSuspended)  # it takes some, but not this one now
# If every node refuses: the error that says most about the pool.
TELLING: tuple[type[BrokerError], ...] = (
    QueueFull, QueueTimeout, CommandSuspended, PoolFailed, NodeDraining, ShuttingDown, BrokerUnreachable, PoolUnknown,
)  # fmt: skip
MOST_REPEATS = 2  # times that a call which may have run is sent again; its command must be idempotent


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What a node reported about a pool. `sent`: calls that this process sent there since."""

    slots: int
    free: int
    waiting: int
    fit: bool = True  # it has not failed
    sent: int = 0

    @property
    def open(self) -> int:
        """The slots that it reported as free: a node cannot draw more calls by a number that cannot be true."""
        return max(0, min(self.free, self.slots))

    @property
    def left(self) -> int:
        """Estimate of the slots that are still free."""
        return max(0, self.open - self.sent)

    @property
    def ratio(self) -> float:
        """Calls for each slot."""
        return max(0, self.slots - self.free + self.waiting + self.sent) / max(1, self.slots)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as its last report shows it."""

    name: str
    own: bool = False  # the broker of this host
    serving: bool = True  # it answered, and is not drained
    answers: bool = True  # else `pools` are those of its last report
    pools: Mapping[str, PoolLoad] = field(default_factory=dict)


def order(nodes: Iterable[NodeReport], pool: str, tried: Collection[str], chance: Callable[[], float]) -> list[str]:
    """Return the names of the nodes that may take a call, the best first. `chance` is a number from 0 to 1."""
    fit = [(node, load) for node, load in _fit(nodes, pool) if node.name not in tried]
    ranked = sorted(((_rank(node, load), _draw(load, chance()), node.name) for node, load in fit))
    return [name for _, _, name in ranked]


def order_by_key(nodes: Iterable[NodeReport], pool: str, key: str) -> list[str]:
    """Return the names of the nodes that may take a call with this affinity, the best first.

    Rendezvous hashing: each node has a score for the key, and the highest one is first. Every process finds the same
    node. Only the keys of a node that leaves move, and only to a node that joins. A node whose last report has no free
    slot comes behind the others: the call does not wait for its node.

    >>> idle = {"p": PoolLoad(slots=4, free=4, waiting=0)}
    >>> nodes = [NodeReport(name, pools=idle) for name in ("a", "b", "c")]
    >>> order_by_key(nodes, "p", "user-7"), order_by_key(nodes[1:], "p", "user-7")
    (['c', 'a', 'b'], ['c', 'b'])
    """
    ranked = sorted((not load.open, -_score(key, node.name), node.name) for node, load in _fit(nodes, pool))
    return [name for _, _, name in ranked]


def _score(key: str, node: str) -> int:
    return int.from_bytes(blake2b(f"{key}\0{node}".encode(), digest_size=8).digest())


def _fit(nodes: Iterable[NodeReport], pool: str) -> list[tuple[NodeReport, PoolLoad]]:
    """The nodes that may take calls of a pool."""
    return [(node, load) for node in nodes if node.serving and (load := node.pools.get(pool)) is not None and load.fit]


def _rank(node: NodeReport, load: PoolLoad) -> int:
    if node.own:
        return 0
    return 1 if load.left else 2


def _draw(load: PoolLoad, chance: float) -> float:
    """A time that passes until a node comes, exponential with its weight as the rate: the first one is chosen."""
    weight = load.left if load.left else max(1, load.slots) / (1.0 + load.ratio) ** 2
    return -log(1.0 - chance) / weight


def may_move(error: BrokerError) -> bool:
    """Whether another node may take a call that failed so: it never began there."""
    return error.outcome == NOT_STARTED and isinstance(error, (*AWAY, *UNFIT, *FULL))


def may_repeat(error: BrokerError) -> bool:
    """Whether a call may have run on a node that is gone now. Only an idempotent command may run again."""
    return error.outcome == UNKNOWN and isinstance(error, BrokerUnreachable)


def most_telling(errors: Iterable[BrokerError]) -> BrokerError:
    """The error of a call that every node refused. If it may have run on one of them, that is its outcome."""
    known = list(errors)
    for error in known:
        if error.outcome != NOT_STARTED:
            return error
    full = [error for error in known if isinstance(error, QueueFull)]
    if full:
        return min(full, key=lambda error: error.retry_after)
    return min(known, key=lambda error: next((at for at, kind in enumerate(TELLING) if isinstance(error, kind)), 99))
