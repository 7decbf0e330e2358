"""Utilization of a pool in the last ten minutes: busy share, waits, refusals, CPU time of a call, memory by the hour.

    answers ──▶ counts that only rise ──┐
    one reading a second ──▶ slot time ─┼──▶ a mark every 15 s ──▶ the newest minus the oldest in the window
    samples of the sweeps ──▶ CPU time ─┘

Only counts are kept of a call, so a long history costs as much as a short one.

>>> usage = Usage(now=0.0)
>>> for second in range(1, 61):
...     usage.answered("ok", queued=0.5, ran=1.0)
...     usage.observe(float(second), slots=2, busy=1)
>>> found = usage.status()
>>> found.seconds, found.answered, found.busy, round(found.wait_p95, 1)
(60.0, 60, 0.5, 0.5)
>>> Usage(now=0.0).status().busy is None
True
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from snakepit.pools.broker.ports import Meter
from snakepit.pools.broker.stats.histogram import Histogram, Sparse, quantile, since
from snakepit.pools.broker.status import PoolStatus, UsageStatus, WorkerStatus

SPAN = 600.0  # seconds of the window, at most
STEP = 15.0  # between two marks
TREND_SAMPLES = 4  # of a worker's memory, after its first call, and
TREND_SECONDS = 240.0  # between the first and the last, that a slope needs: a worker that warms up grows too
TREND_KEPT = 32
CPU_CALLS = 20  # that a figure of CPU time needs
REFUSALS = {
    "queue_full": "refused",
    "queue_timeout": "timed_out",
    "deadline_exceeded": "overran",
    "worker_lost": "lost",
}
# Refused whatever the length of the queue: they say nothing about the pool's use, and have a count of their own.
NOT_ADMITTED = frozenset({
    "pool_failed", "pool_paused", "node_draining", "shutting_down", "payload_too_large", "limit_reached",
    "command_unknown", "command_suspended",
})  # fmt: skip
COUNTED = (*REFUSALS.values(), "not_admitted")


@dataclass(frozen=True, slots=True)
class Mark:
    """The counts at one moment; `peak` is that of the interval that ended there."""

    at: float
    answered: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    waits: Sparse = field(default_factory=dict)
    slot_seconds: float = 0.0
    busy_seconds: float = 0.0
    peak: int = 0
    cpu_seconds: float = 0.0
    cpu_calls: int = 0


class WorkerUsage:
    """One worker's memory over time, and its CPU time."""

    __slots__ = ("cpu", "samples", "served")

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self.cpu: float | None = None
        self.served = 0

    def sampled(self, now: float, memory_mb: float) -> None:
        self.samples.append((now, memory_mb))
        if len(self.samples) > TREND_KEPT:
            del self.samples[1:-1:2]  # half as many, over the same time

    @property
    def mb_per_hour(self) -> float | None:
        """The slope of its memory, by least squares; None: not enough evidence.

        >>> one = WorkerUsage()
        >>> for minute in range(5):
        ...     one.sampled(60.0 * minute, 100.0 + minute)
        >>> one.mb_per_hour
        60.0
        """
        if len(self.samples) < TREND_SAMPLES or self.samples[-1][0] - self.samples[0][0] < TREND_SECONDS:
            return None
        count = len(self.samples)
        middle = sum(at for at, _ in self.samples) / count
        level = sum(memory for _, memory in self.samples) / count
        spread = sum((at - middle) ** 2 for at, _ in self.samples)
        return sum((at - middle) * (memory - level) for at, memory in self.samples) / spread * 3600


class Usage:
    """One pool's. Counts rise; the window is the difference between two marks."""

    def __init__(self, now: float) -> None:
        self.workers: dict[str, WorkerUsage] = {}
        self._waits = Histogram()
        self._refusals = dict.fromkeys(COUNTED, 0)
        self._now = Mark(now)
        self._marks: deque[Mark] = deque([Mark(now)])
        self._answered = 0
        self._slot_seconds = self._busy_seconds = self._cpu_seconds = 0.0
        self._cpu_calls = 0
        self._peak = 0
        self._looked_at = now

    def answered(self, code: str, queued: float, ran: float) -> None:
        """A call was answered, with a result or an error."""
        if code in NOT_ADMITTED:
            self._refusals["not_admitted"] += 1
            return
        self._answered += 1
        if ran or code in ("ok", "queue_timeout"):
            self._waits.add(queued)
        if code in REFUSALS:
            self._refusals[REFUSALS[code]] += 1

    def succeeded(self, queued: Sequence[float]) -> None:
        """Calls were answered with a result after waiting so long."""
        self._answered += len(queued)
        self._waits.extend(queued)

    def observe(self, now: float, slots: int, busy: int) -> None:
        """Record the slots and the busy slots of this moment; they count for the time since the last reading."""
        passed, self._looked_at = now - self._looked_at, now
        busy = min(busy, slots)
        self._slot_seconds += passed * slots
        self._busy_seconds += passed * busy
        self._peak = max(self._peak, busy)
        self._now = self._mark(now)
        if now - self._marks[-1].at >= STEP:
            self._marks.append(self._now)
            self._peak = 0
            while len(self._marks) > 2 and now - self._marks[1].at >= SPAN:
                self._marks.popleft()

    def sampled(self, worker: str, now: float, memory_mb: float, cpu_seconds: float | None, served: int) -> None:
        """A worker's memory and CPU time so far, and the calls that it has ended."""
        one = self.workers.setdefault(worker, WorkerUsage())
        if served:  # memory of loading and of the first call is no slope
            one.sampled(now, memory_mb)
        if cpu_seconds is None:
            return
        if one.cpu is not None and served > one.served:
            self._cpu_seconds += max(0.0, cpu_seconds - one.cpu)
            self._cpu_calls += served - one.served
        if one.cpu is None or served > one.served:
            one.cpu, one.served = cpu_seconds, served

    def renew(self, now: float) -> None:
        """Start a new window: figures of the previous definition do not apply to the new one."""
        self._peak, self._looked_at = 0, now
        self._now = self._mark(now)
        self._marks = deque([self._now])

    def keep(self, workers: Iterable[str]) -> None:
        """Discard all workers but these."""
        for gone in self.workers.keys() - set(workers):
            del self.workers[gone]

    def _mark(self, now: float) -> Mark:
        return Mark(
            now, self._answered, dict(self._refusals), self._waits.sparse(), self._slot_seconds, self._busy_seconds,
            self._peak, self._cpu_seconds, self._cpu_calls,
        )  # fmt: skip

    def status(self) -> UsageStatus:
        """Return the window's figures up to the last reading; None where there is no evidence."""
        now, then = self._now, self._marks[0]
        seconds, waits = now.at - then.at, since(now.waits, then.waits)
        slot_seconds, cpu_calls = now.slot_seconds - then.slot_seconds, now.cpu_calls - then.cpu_calls
        answered = now.answered - then.answered
        return UsageStatus(
            seconds=round(seconds, 3),
            answered=answered,
            calls_per_second=round(answered / seconds, 3) if seconds > 0 else None,
            busy=None if slot_seconds <= 0 else round((now.busy_seconds - then.busy_seconds) / slot_seconds, 4),
            peak=max(now.peak, *(mark.peak for mark in list(self._marks)[1:])) if len(self._marks) > 1 else now.peak,
            waited=sum(waits.values()),
            wait_p50=quantile(waits, 0.5),
            wait_p95=quantile(waits, 0.95),
            **{name: now.refusals.get(name, 0) - then.refusals.get(name, 0) for name in COUNTED},
            cpu_per_call=(now.cpu_seconds - then.cpu_seconds) / cpu_calls if cpu_calls >= CPU_CALLS else None,
            cpu_calls=cpu_calls,
        )


class Usages:
    """The usage of every pool: a Meter that counts and passes on."""

    def __init__(self, then: Meter) -> None:
        self._then = then
        self._pools: dict[str, Usage] = {}

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        if known := self._pools.get(pool):
            known.answered(code, queued, ran)
        self._then.executed(pool, command, code, queued, ran)

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        if known := self._pools.get(pool):
            known.succeeded(queued)
        self._then.succeeded(pool, command, queued, ran)

    def delivered(self, pool: str, results: int) -> None:
        self._then.delivered(pool, results)

    def buffered(self, pool: str, of: str, size: int) -> None:
        self._then.buffered(pool, of, size)

    def full(self, pool: str, times: int) -> None:
        self._then.full(pool, times)

    def of(self, pool: str, now: float) -> Usage:
        """Return the usage of a pool; a new one if there is none yet."""
        usage = self._pools.get(pool)
        if usage is None:
            usage = self._pools[pool] = Usage(now)
        return usage

    def observe(self, now: float, pools: Iterable[PoolStatus], workers: Iterable[WorkerStatus]) -> None:
        """Read the slots of each pool, and discard pools and workers that are gone."""
        living: dict[str, list[str]] = {pool.name: [] for pool in pools}
        for worker in workers:
            living[worker.pool].append(worker.id)
        for pool in pools:
            usage = self.of(pool.name, now)
            usage.observe(now, pool.slots, pool.taken)
            usage.keep(living[pool.name])
        for gone in self._pools.keys() - living.keys():
            del self._pools[gone]
