"""The input of a rule (Case) and its result (Judgement with Advice)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.spec import FIELDS, PoolSpec, Profile
from snakepit.pools.broker.status import GrowthStatus, PoolStatus, UsageStatus, WorkerStatus

ADVISED, FINE, TOO_LITTLE, NONE = "advised", "fine", "not enough evidence", "does not apply"


def said_span(seconds: float) -> str:
    """
    >>> said_span(9.96), said_span(60.0), said_span(151.2), said_span(600.0)
    ('10 s', '1 minute', '2.5 minutes', '10 minutes')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = f"{seconds / 60:.1f}".removesuffix(".0")
    return f"{minutes} minute{'s' * (minutes != '1')}"


@dataclass(frozen=True, slots=True)
class Enough:
    """Evidence that figures over time need before anything is advised."""

    calls: int = 50
    seconds: float = 60.0
    idle_seconds: float = 300.0  # for fewer workers: a short lull is no reason


ENOUGH = Enough()


@dataclass(frozen=True, slots=True)
class Capacity:
    """Where the broker runs. None: not known."""

    cores: float | None = None  # that it may use
    free_mb: float | None = None


NOT_KNOWN = Capacity()


@dataclass(frozen=True, slots=True)
class Advice:
    """`values` are to be set, `before` are the present ones; the same advice has the same `key`."""

    key: str
    pool: str
    title: str
    evidence: str
    values: Mapping[str, Any]
    before: Mapping[str, Any]
    cost: str = ""

    @property
    def rule(self) -> str:
        return self.key.partition(":")[0]

    @property
    def change(self) -> str:
        """ "size 4 to 6, +420 MiB" """
        fields = ", ".join(
            f"{name} {_said(self.before[name])} to {_said(value)}" for name, value in self.values.items()
        )
        return fields + (f", {self.cost}" if self.cost else "")

    @property
    def sentence(self) -> str:
        return f"{self.evidence}: {self.change}"

    def plain(self) -> dict[str, Any]:
        changes = [{"field": name, "from": self.before[name], "to": value} for name, value in self.values.items()]
        return {
            "id": self.key, "rule": self.rule, "pool": self.pool, "title": self.title, "evidence": self.evidence,
            "changes": changes, "cost": self.cost, "sentence": self.sentence,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of one rule for one pool."""

    rule: str
    pool: str
    verdict: str
    evidence: str
    advice: Advice | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One pool: its status, its workers and its definition."""

    pool: PoolStatus
    spec: PoolSpec
    workers: tuple[WorkerStatus, ...] = ()
    machine: Capacity = NOT_KNOWN
    enough: Enough = ENOUGH

    # Judgements

    def fine(self, rule: str, evidence: str) -> Judgement:
        return Judgement(rule, self.spec.name, FINE, evidence)

    def none(self, rule: str, why: str) -> Judgement:
        return Judgement(rule, self.spec.name, NONE, why)

    def too_little(self, rule: str, what: str) -> Judgement:
        return Judgement(rule, self.spec.name, TOO_LITTLE, what)

    def advise(self, rule: str, title: str, evidence: str, values: Mapping[str, Any], cost: str = "") -> Judgement:
        """Advise these values, within the ranges of their fields; fine, if that changes nothing."""
        bounded = {name: _bounded(name, value) for name, value in values.items()}
        before = {name: _plain(getattr(self.spec, name)) for name in bounded}
        if bounded == before:
            return self.fine(rule, f"{evidence}; no field has room for more")
        name = self.spec.name
        advice = Advice(f"{rule}:{name}", name, title, evidence, bounded, before, cost)
        return Judgement(rule, name, ADVISED, evidence, advice)

    # Figures; None where they are not known

    @property
    def usage(self) -> UsageStatus:
        return self.pool.usage

    def lacks(self, calls: int, seconds: float) -> str:
        """What the window lacks of this evidence; empty: nothing."""
        have, long = self.usage.answered, self.usage.seconds
        if have >= calls and long >= seconds:
            return ""
        return f"{have:,} calls, {said_span(long)}; needs {calls:,} calls and {said_span(seconds)}"

    @property
    def each_mb(self) -> float | None:
        """Memory of a ready worker, on average; None: no worker is measured."""
        known = [worker.memory_mb for worker in self.workers if worker.state == "ready" and worker.memory_mb > 0]
        return sum(known) / len(known) if known else None

    @property
    def loaded_mb(self) -> float | None:
        """The same without what it grew with its calls: that is no memory that workers could share."""
        ready = [worker for worker in self.workers if worker.state == "ready" and worker.memory_mb > 0]
        known = [max(0.0, worker.memory_mb - grown_mb(worker.growth)) for worker in ready]
        return sum(known) / len(known) if known else None

    @property
    def load_seconds(self) -> float | None:
        return self.pool.load_seconds or None

    @property
    def turned_away(self) -> int:
        """Calls in the window that never got a slot."""
        return self.usage.refused + self.usage.timed_out

    @property
    def served_per_second(self) -> float | None:
        """Calls in the window that got a slot."""
        if self.usage.seconds <= 0:
            return None
        return max(0, self.usage.answered - self.turned_away) / self.usage.seconds

    @property
    def run_seconds(self) -> float | None:
        """Run time of a call, on average since the broker started."""
        count = sum(one.count for one in self.pool.run_times)
        return sum(one.seconds for one in self.pool.run_times) / count if count else None

    @property
    def cpu_share(self) -> float | None:
        """Share of a call's run time that it uses a CPU; the rest is waiting."""
        cpu, run = self.usage.cpu_per_call, self.run_seconds
        return None if cpu is None or not run else min(1.0, cpu / run)

    @property
    def cores_used(self) -> float | None:
        cpu, rate = self.usage.cpu_per_call, self.served_per_second
        return None if cpu is None or rate is None else cpu * rate

    def memory_cost(self, size: int) -> str:
        """ "+420 MiB" for so many workers; empty: not known."""
        each = self.each_mb
        return "" if each is None else f"{each * (size - self.spec.size):+,.0f} MiB"

    @property
    def slots(self) -> int:
        return self.spec.threads if self.spec.profile == Profile.THREAD else 1


def grown_mb(growth: GrowthStatus) -> float:
    """MiB that a worker grew with its calls; 0 if it is not known."""
    return max(0.0, (growth.mb_per_1000_calls or 0.0) * growth.calls / 1000)


def rounded_down(value: float) -> int:
    """Round down to one digit and zeros, because advice is not more exact than that.

    >>> rounded_down(5019.6), rounded_down(0.3)
    (5000, 1)
    """
    whole = max(1, int(value))
    power = 10 ** (len(str(whole)) - 1)
    return int(whole // power * power)


def rounded_up(value: float) -> int:
    """
    >>> rounded_up(41.0), rounded_up(40.0), rounded_up(0.3)
    (50, 40, 1)
    """
    whole = max(1, math.ceil(value))
    power = 10 ** (len(str(whole)) - 1)
    return int(-(-whole // power) * power)


def _bounded(name: str, value: Any) -> Any:
    low, high = FIELDS[name].metadata.get("low"), FIELDS[name].metadata.get("high")
    if low is None or isinstance(value, str):
        return value
    return type(value)(min(max(value, low), high))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
