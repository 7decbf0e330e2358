"""What each node answered last. The status of this host, which is asked more often, replaces its older answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client.cluster_status import NodeAnswer


class NodeAnswers:
    """The answers of the newest round, each with the last time at which its node answered. Empty: there is one node."""

    def __init__(self) -> None:
        self.at = 0.0  # of the newest round
        self._answers: tuple[NodeAnswer, ...] = ()

    def take(self, answers: Iterable[NodeAnswer], at: float) -> None:
        """Take a round."""
        before = {one.name: one.seen_at for one in self._answers}
        self._answers = tuple(replace(one, seen_at=max(one.seen_at, before.get(one.name, 0.0))) for one in answers)
        self.at = at

    def take_own(self, status: BrokerStatus, at: float) -> None:
        """Take a newer status of the node of this host."""
        newer = NodeAnswer(status.node.name, status, own=True, seen_at=at)
        self._answers = tuple(newer if one.own else one for one in self._answers)

    def miss_own(self, reason: str) -> None:
        """Note that the node of this host does not answer any more."""
        self._answers = tuple(replace(one, status=None, reason=reason) if one.own else one for one in self._answers)

    def all(self) -> tuple[NodeAnswer, ...]:
        return self._answers
