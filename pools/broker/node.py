"""The node of a broker: its fixed facts, and whether it takes calls.

serving ─▶ drained ─▶ serving       an operator's order, in memory: a restarted broker serves
    └─▶ stopping ◀─┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from snakepit.pools.broker import errors

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What does not change while a broker runs."""

    name: str
    version: str
    pid: int
    address: str
    python: str
    boot: str  # four hex digits, different for each start of the broker
    sweep_interval: float = 15.0
    labels: tuple[str, ...] = ()  # key=value, as its settings say
    advertised: tuple[str, ...] = ()  # addresses by which other hosts reach the broker


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator's order to take no new calls."""

    since: float  # seconds since the epoch
    actor: str
    reason: str


class OpenSession(Protocol):
    """An open session of a client."""

    def leave(self) -> asyncio.Task[Any] | None:
        """End the session when the broker has stopped; return the task that does so."""
        ...


class NodeState:
    """Whether calls are accepted. Accepted calls are finished either way."""

    def __init__(self, facts: NodeFacts, started_at: float) -> None:
        self.facts = facts
        self.started_at = started_at  # seconds since the epoch
        self.serving = True  # neither drained nor stopping
        self.stopping = False
        self.drained: Drain | None = None

    def drain(self, actor: str, reason: str, at: float) -> None:
        """Start a drain. A repeated order keeps its start and takes the new actor and reason."""
        order = Drain(at, actor, reason)
        self.drained = replace(order, since=self.drained.since) if self.drained else order
        self.serving = False

    def resume(self) -> None:
        self.drained = None
        self.serving = not self.stopping

    def stop(self) -> None:
        self.stopping, self.serving = True, False

    def refusal(self) -> errors.BrokerError | None:
        """Return the error of a new call, or None if it is accepted."""
        if self.stopping:
            return errors.ShuttingDown()
        if self.drained is None:
            return None
        actor, why = self.drained.actor or "an operator", self.drained.reason or "no reason given"
        message = f"Node {self.facts.name} is drained by {actor}: {why}. It takes no calls."
        return errors.NodeDraining(message, details={"node": self.facts.name})
