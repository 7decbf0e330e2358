"""Estimates what a machine can carry for a pool, from measured load and cost. Pure: facts in, an estimate out.

    a call's run time ──▶ calls/s of a worker ──┬─▶ the present size ──┐
    its CPU time, cores ────────────────────────┼─▶ CPU ───────────────┼─▶ the lowest binds first
    memory of a worker, free memory ────────────┴─▶ memory ────────────┘

A limit without evidence has no number; the estimate then names no limit that binds first.

>>> one = ScalingFacts("ocr", size=2, ready=2, answered=900, served=900, seconds=600.0, run_seconds=0.2, runs=900,
...             cpu_per_call=0.05, cpu_calls=800, each_mb=100.0, measured=2, cores=2.0, free_mb=5000.0)
>>> found = scale(one)
>>> found.sentence
'the size binds first, at 10 calls/s with 2 workers; the machine carries 40 calls/s with 8 workers, then CPU binds'
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from snakepit.pools.broker.spec import FIELDS, PoolSpec, Profile
from snakepit.pools.broker.stats.usage import CPU_CALLS
from snakepit.pools.broker.status import BrokerStatus, PoolStatus
from snakepit.pools.diagnostics.advice import NOT_KNOWN, TOO_LITTLE, Capacity, Case, Enough, said_span
from snakepit.pools.diagnostics.rules import CORES

ENOUGH = Enough(calls=100, seconds=60.0)
MEASURED = "measured"
SIZE, CPU, MEMORY, LARGEST = "size", "CPU", "memory", "largest size"
BROKER = 500.0  # calls/s, from which on the broker's own work is no small change


@dataclass(frozen=True, slots=True)
class ScalingFacts:
    """A pool as it was measured. None: not known. Seconds, MiB (PSS), cores."""

    pool: str
    profile: str = str(Profile.PROCESS)
    size: int = 1
    ready: int = 0
    threads: int = 1  # slots of a worker
    answered: int = 0
    served: int = 0  # carried out: neither refused nor timed out in the queue
    seconds: float = 0.0  # of the window that the counts are of
    busy: float | None = None
    wait_p95: float | None = None
    run_seconds: float | None = None  # of a call, since the broker began
    runs: int = 0
    cpu_per_call: float | None = None
    cpu_calls: int = 0
    each_mb: float | None = None  # of a ready worker
    measured: int = 0  # workers that this is the mean of
    template_mb: float | None = None
    factor: float | None = None  # slots of a worker that compute together
    cores: float | None = None
    others: float = 0.0  # cores that the other pools of this broker use
    free_mb: float | None = None
    node: str = ""  # the node that was measured

    @property
    def is_threaded(self) -> bool:
        return self.profile == Profile.THREAD and self.threads > 1


@dataclass(frozen=True, slots=True)
class ScalingLimit:
    """What one resource allows. Without numbers, `evidence` is what is missing."""

    resource: str
    evidence: str
    calls_per_second: float | None = None
    workers: int | None = None

    @property
    def is_known(self) -> bool:
        return self.calls_per_second is not None


@dataclass(frozen=True, slots=True)
class ScalingEstimate:
    """`limits` begin with the present size; `binds` and `carries` are empty without enough evidence."""

    facts: ScalingFacts
    limits: tuple[ScalingLimit, ...]
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    binds: str = ""
    carries: ScalingLimit | None = None  # what the machine can carry, and the resource that ends it

    @property
    def verdict(self) -> str:
        return TOO_LITTLE if self.lacks else MEASURED

    @property
    def sentence(self) -> str:
        if self.carries is None:
            return f"{TOO_LITTLE}: {'; '.join(self.lacks)}"
        most = _said(self.carries, self.facts)
        if self.binds != SIZE:
            return f"{self.binds} binds first, at {most}"
        present = _said(self.limits[0], self.facts)
        end = self.carries.resource
        return f"the size binds first, at {present}; the machine carries {most.replace(' at ', ' ')}, then {end} binds"

    def plain(self) -> dict[str, Any]:
        return {
            "pool": self.facts.pool,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "binds": self.binds or None,
            "carries": asdict(self.carries) if self.carries else None,
            "limits": [asdict(one) for one in self.limits],
            "lacks": list(self.lacks),
            "notes": list(self.notes),
            "facts": asdict(self.facts),
        }


def gather(status: BrokerStatus, pool: str, machine: Capacity = NOT_KNOWN) -> ScalingFacts:
    """The measured figures of a pool. Raises KeyError if the status has no such pool."""
    found = status.pool(pool)
    if found is None:
        raise KeyError(pool)
    case = _case(status, found, machine)
    usage, rate = found.usage, case.served_per_second
    ready = [one for one in case.workers if one.state == "ready"]
    return ScalingFacts(
        pool=pool,
        node=status.node.name,
        profile=found.profile,
        size=found.size,
        ready=len(ready),
        threads=max((one.capacity for one in ready), default=1),
        answered=usage.answered,
        served=round((rate or 0.0) * usage.seconds),
        seconds=usage.seconds,
        busy=usage.busy,
        wait_p95=usage.wait_p95,
        run_seconds=case.run_seconds,
        runs=sum(one.count for one in found.run_times),
        cpu_per_call=usage.cpu_per_call,
        cpu_calls=usage.cpu_calls,
        each_mb=case.each_mb,
        measured=sum(one.memory_mb > 0 for one in ready),
        template_mb=found.template.memory_mb if found.template.memory_mb >= 0 else None,
        factor=found.parallelism or None,
        cores=machine.cores,
        others=sum(_case(status, one, machine).cores_used or 0.0 for one in status.pools if one.name != pool),
        free_mb=machine.free_mb,
    )


def _case(status: BrokerStatus, pool: PoolStatus, machine: Capacity) -> Case:
    spec = PoolSpec(name=pool.name, adapter=pool.adapter, size=pool.size)
    return Case(pool, spec, status.workers_of(pool.name), machine)


def scale(facts: ScalingFacts, enough: Enough = ENOUGH) -> ScalingEstimate:
    """The limit that binds first, in calls a second; or the missing evidence."""
    each, lack = _of_a_worker(facts, enough)
    if each is None:
        limits = tuple(ScalingLimit(name, lack) for name in (SIZE, CPU, MEMORY))
        return ScalingEstimate(facts, limits, lacks=(lack,))
    most = int(FIELDS["size"].metadata["high"])
    size = ScalingLimit(SIZE, lack or _runs(facts), facts.size * each, facts.size)
    machine = (_cpu(facts, each), _memory(facts, each))
    limits = (size, *machine, ScalingLimit(LARGEST, f"a definition takes at most {most} workers", most * each, most))
    if lacks := tuple(one.evidence for one in machine if not one.is_known):
        return ScalingEstimate(facts, limits, lacks, _notes(facts, None))
    carries = min(limits[1:], key=lambda one: one.calls_per_second or 0.0)
    binds = min((carries, size), key=lambda one: one.calls_per_second or 0.0).resource
    return ScalingEstimate(facts, limits, (), _notes(facts, carries), binds, carries)


def _of_a_worker(facts: ScalingFacts, enough: Enough) -> tuple[float | None, str]:
    """Calls a second that one worker can carry; or None and what is missing."""
    if facts.served < enough.calls or facts.seconds < enough.seconds:
        had = f"{facts.served:,} calls in {said_span(facts.seconds)}"
        if facts.served < enough.calls:
            return None, f"{had}; needs {enough.calls:,}"
        return None, f"{had}; needs {said_span(enough.seconds)}"
    if not facts.run_seconds:
        return None, "no run of a call has been timed; needs one"
    by_slots = facts.threads / facts.run_seconds
    if not facts.is_threaded:
        return by_slots, ""
    if facts.factor is None:
        return None, "the parallelism is not measured yet; needs one ready worker"
    if not facts.cpu_per_call:
        return None, _cpu_lack(facts)
    if by_slots <= (by_factor := facts.factor / facts.cpu_per_call):
        return by_slots, ""
    return by_factor, (
        f"{facts.threads} threads a worker, of which {facts.factor:.1f} compute together; "
        f"a call computes for {facts.cpu_per_call:.4g} s"
    )


def _cpu(facts: ScalingFacts, each: float) -> ScalingLimit:
    if facts.cores is None:
        return ScalingLimit(CPU, "the cores of the broker's machine are not known here; ask on it")
    if not facts.cpu_per_call:
        return ScalingLimit(CPU, _cpu_lack(facts))
    cores = max(0.0, facts.cores - facts.others)
    taken = f" less {facts.others:.2g} that other pools use" if facts.others >= 0.01 else ""
    evidence = f"{facts.cpu_per_call:.4g} s of CPU a call, of {facts.cpu_calls:,} calls; {facts.cores:g} cores{taken}"
    rate = cores / facts.cpu_per_call
    return ScalingLimit(CPU, evidence, rate, _workers(rate, each))


def _memory(facts: ScalingFacts, each: float) -> ScalingLimit:
    if facts.each_mb is None:
        return ScalingLimit(MEMORY, "no worker's memory is measured; needs one sweep after the first is ready")
    if facts.free_mb is None:
        return ScalingLimit(MEMORY, "the free memory of the broker's machine is not known here; ask on it")
    workers = memory_capacity(facts) or 0
    evidence = f"{facts.each_mb:,.0f} MiB a worker, of {facts.measured}; {facts.free_mb:,.0f} MiB are free"
    if facts.template_mb is not None:
        evidence += f" beside the template's {facts.template_mb:,.0f} MiB"
    return ScalingLimit(MEMORY, evidence, workers * each, workers)


def memory_capacity(facts: ScalingFacts) -> int | None:
    """The workers that the machine's memory holds, with those that are ready; None: not known."""
    if facts.each_mb is None or facts.free_mb is None:
        return None
    return facts.ready + int(facts.free_mb // facts.each_mb)


def memory_sentence(facts: ScalingFacts) -> str:
    """How many workers the memory holds; empty: not known."""
    capacity = memory_capacity(facts)
    if capacity is None or facts.each_mb is None or facts.free_mb is None:
        return ""
    workers = f"{capacity:,} worker{'s' * (capacity != 1)} of {facts.pool}"
    evidence = f"{facts.each_mb:,.0f} MiB each, of {facts.measured} measured; {facts.free_mb:,.0f} MiB are free"
    return f"The memory of {facts.node or 'this node'} holds about {workers} ({evidence})."


def memory_warning(facts: ScalingFacts, size: int) -> str:
    """What is wrong with a larger size that the memory does not hold; empty: it fits, or this is not known."""
    capacity = memory_capacity(facts)
    if capacity is None or size <= max(capacity, facts.size):
        return ""
    return f"{memory_sentence(facts)} {size:,} do not fit: further starts fail, or the system ends processes."


def _workers(rate: float, each: float) -> int:
    """Workers for this rate; rounded first, so that a rounding error adds no worker."""
    return max(1, math.ceil(round(rate / each, 6)))


def _runs(facts: ScalingFacts) -> str:
    return f"a call runs for {facts.run_seconds:.4g} s, of {facts.runs:,} calls; {facts.threads} together in a worker"


def _cpu_lack(facts: ScalingFacts) -> str:
    if facts.cpu_per_call is not None:
        return f"{facts.cpu_calls:,} calls used less CPU time than can be measured; needs more calls"
    return f"CPU time is known of {facts.cpu_calls} calls; needs {CPU_CALLS}"


def _notes(facts: ScalingFacts, carries: ScalingLimit | None) -> tuple[str, ...]:
    found = []
    cpu, cores = facts.cpu_per_call, facts.cores
    if cpu and cores and (used := cpu * facts.served / facts.seconds + facts.others) >= CORES * cores:
        found.append(
            f"{used:.1f} of {cores:g} cores compute now: a call's run time holds its wait for a core, "
            "and fewer workers may carry the same"
        )
    if carries and (carries.calls_per_second or 0.0) >= BROKER:
        found.append(f"the broker's own work is not counted; measure before you rely on more than {BROKER:g} calls/s")
    return tuple(found)


def _said(limit: ScalingLimit, facts: ScalingFacts) -> str:
    workers = limit.workers or 0
    threads = f" of {facts.threads} threads" if facts.is_threaded else ""
    return f"{said_rate(limit.calls_per_second or 0.0)} with {workers} worker{'s' * (workers != 1)}{threads}"


def said_rate(rate: float) -> str:
    """
    >>> said_rate(9.846), said_rate(4999.6)
    ('9.85 calls/s', '5,000 calls/s')
    """
    return f"{rate:.3g} calls/s" if rate < 100 else f"{rate:,.0f} calls/s"
