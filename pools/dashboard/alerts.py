"""Finds what an operator should act on: a pure function from the status to a short list, the worst first.

Each alert has a title, a cause, the time since it holds, and an action. What is only unusual is no alert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from snakepit.pools.broker.status import (
    CLOCK_MISSING,
    BrokerStatus,
    NodeStatus,
    PoolStatus,
    RecordedEvent,
    WorkerStatus,
)
from snakepit.pools.dashboard.leaks import Leak, leak_of

ERROR, WARNING = "error", "warning"
DEATHS = 3  # deaths of a pool's workers ...
DEATH_WINDOW = 300.0  # ... in so many seconds are a crash loop
GROWTH = 60.0  # MiB an hour: a worker that grows faster raises an alert, also if no leak by calls is measured ...
WARM = 900.0  # ... once it has been ready for so many seconds: before, it only warms up
SOON = 3600.0  # seconds: a soft limit that is reached later is no alert yet

# The events, or event/reason, that begin a trouble, and those that end it.
ORIGINS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "clock": (("clock.missing",), ("clock.found",)),
    "draining": (("node.stopping",), ()),
    "failed": (("pool.failed",), ("pool.recovered", "pool.applied")),
    "suspended": (("command.suspended",), ("command.resumed", "pool.applied")),
    "paused": (("operator.acted/pause",), ("operator.acted/resume",)),
    "starting": (("worker.died", "worker.killed"), ("worker.started",)),
    "degraded": (("worker.died", "worker.killed"), ("worker.started",)),
    "lost": (("slot.lost",), ()),
    "template": (("template.refused",), ("template.started",)),
    "race": (("thread.race",), ("pool.applied",)),
    "gil": (("gil.enabled",), ()),
}


COUNTED = 1000  # jobs of an alert; above it their number is not counted
YOUR_APP = "your_project"  # in a command line, where the project's Celery app is not known


@dataclass(frozen=True, slots=True)
class Alert:
    """`view` and `argument` name the page that helps, in the namespace `snakepit`."""

    key: str  # the same trouble has the same key; `since` is kept by it
    level: str
    title: str
    cause: str
    view: str
    argument: str = ""
    action: str = "View"
    right: str = "view"
    part: str = ""  # of that page
    since: float = 0.0  # seconds since the epoch, when it happened; 0: not known
    first_seen: bool = False  # `since` is only the time at which this web process first found it
    nodes: tuple[str, ...] = ()  # where it is, in a project with several nodes; empty: of no node


@dataclass(frozen=True, slots=True)
class EndedJobs:
    """Jobs that ended lately without success, of one cause."""

    state: str  # failed or lost
    pool: str
    command: str
    cause: str  # the class of the exception, else the code of the error
    count: int
    since: float  # when the first of them ended


@dataclass(frozen=True, slots=True)
class StoredState:
    """What only the database has; read every few seconds, once for all pages."""

    silent_nodes: tuple[tuple[str, float], ...] = ()  # name, last seen
    quarantined: int = 0
    quarantined_since: float = 0.0
    ended_jobs: tuple[EndedJobs, ...] = ()  # the most frequent causes
    ended_more: bool = False  # there are more of them: the newest are counted
    ended_others: int = 0  # jobs of further causes
    refused_schedules: tuple[str, ...] = ()  # periodic jobs whose newest run has no job
    refused_since: float = 0.0  # the time of the first of these runs
    late_schedules: tuple[str, ...] = ()  # periodic jobs whose time has passed without a run
    late_since: float = 0.0  # the first of these times
    transport: str = ""  # why the message transport of jobs does not answer
    transport_since: float = 0.0  # when this process first found that
    celery: str = ""  # what `celery -A` takes to find the project's app; empty: not known
    overdue: int = 0  # jobs that are due and that no Celery worker takes
    overdue_since: float = 0.0  # when the oldest of them was queued
    uses_jobs: bool = True  # False: no job was ever submitted, so the project may run without Celery
    full_disks: tuple[tuple[str, int], ...] = ()  # path and bytes free
    soft_limits: Mapping[str, float] = field(default_factory=dict)  # memory_soft_mb, of each pool that has one


def find_alerts(
    status: BrokerStatus,
    events: Sequence[RecordedEvent],
    stored: StoredState,
    objective: float,
    now: float,
    *,
    is_old: bool = False,
) -> list[Alert]:
    """`events` with the newest first. `objective`: seconds that a call may wait. `is_old`: the broker is away now."""
    answering = frozenset() if is_old else frozenset({status.node.name})
    return worst_first([*of_stored(stored, answering), *of_broker(status, events, stored, objective, now)])


def worst_first(found: Iterable[Alert]) -> list[Alert]:
    return sorted(found, key=lambda alert: alert.level != ERROR)


def of_stored(stored: StoredState, answering: Collection[str] = ()) -> list[Alert]:
    """Those that only the database has."""
    return [*_of_stored(stored, answering), *_of_jobs(stored)]


def of_broker(
    status: BrokerStatus, events: Sequence[RecordedEvent], stored: StoredState, objective: float, now: float
) -> list[Alert]:
    """Those of one broker. `events` are its own, the newest first."""
    found: list[Alert] = [*_of_node(status.node, stored)]
    failed = {pool.name for pool in status.pools if pool.state == "failed"}
    # Their alert has the reason why no worker starts, so deaths before a worker was ready are no second one.
    stuck = {pool.name for pool in status.pools if pool.state in ("degraded", "starting") and pool.reason}
    deaths = [one for one in events if one.pool not in stuck or one.reason != "boot_failure"]
    for pool in status.pools:
        workers = status.workers_of(pool.name)
        found += _of_pool(pool, objective, now)
        if pool.name not in failed:  # the reason of a failed pool is the same
            found += _of_start(pool)
        found += _of_memory(pool, workers, stored.soft_limits.get(pool.name), now)
        found += _of_threads(pool, workers)
    found += _out_of_memory(events, now)
    found += [alert for alert in _crash_loops(deaths, now) if alert.key.partition(":")[2] not in failed]
    return [alert if alert.since else replace(alert, since=_began(alert.key, events)) for alert in found]


def _began(key: str, events: Sequence[RecordedEvent]) -> float:
    """When the trouble began, by the events (the newest first); 0 if they do not go back so far."""
    trouble, _, subject = key.partition(":")
    begins, ends = ORIGINS.get(trouble, ((), ()))
    found = 0.0
    for one in events:
        if subject and subject not in (one.pool, one.worker):
            continue
        names = {one.kind, f"{one.kind}/{one.reason}"}
        if names.intersection(ends):
            break
        if names.intersection(begins):
            found = one.at
    return found


def _of_node(node: NodeStatus, stored: StoredState) -> Iterator[Alert]:
    if node.clock == CLOCK_MISSING and stored.uses_jobs:
        start = f"celery -A {stored.celery or YOUR_APP} beat"
        cause = f"Celery beat sends no sweeps, so the broker sweeps by itself. Start it with `{start}`."
        if stored.transport:
            cause = "Its sweeps come through the message transport, which does not answer. The broker sweeps by itself."
        yield Alert("clock", WARNING, "The lifecycle clock is missing", cause, "nodes")
    for problem in node.problems:
        yield Alert(f"problem:{problem}", ERROR, "A definition is refused", problem, "nodes")
    if node.drain_since:
        actor, why = node.drain_actor or "An operator", node.drain_reason or "no reason given"
        cause = f"{actor}: {why}. New calls are refused, jobs wait."
        title, since = f"Node {node.name} is drained", node.drain_since
        yield Alert("drained", WARNING, title, cause, "node-resume", node.name, "Resume", "operate", since=since)
    elif node.draining:
        yield Alert("draining", WARNING, f"The broker of {node.name} is stopping", "It takes no new calls.", "nodes")


def _of_stored(stored: StoredState, answering: Collection[str]) -> Iterator[Alert]:
    for path, free in stored.full_disks:
        cause = (
            f"{free / 2**20:,.0f} MiB are free. Without room, jobs are refused and events are not stored; calls go on. "
            "Free space on it."
        )
        yield Alert(f"disk:{path}", ERROR, f"The disk of {path} is full", cause, "diagnostics", action="Check")
    for name, seen in stored.silent_nodes:
        title, cause = f"Node {name} is silent", "The broker stopped reporting without a clean shutdown."
        if name in answering:
            title = f"Node {name} cannot write to the database"
            cause = "Its broker answers, and calls go on. It keeps its events in memory until it can write them."
        yield Alert(f"silent:{name}", ERROR, title, cause, "nodes", since=seen)
    if stored.quarantined:
        jobs = "1 job is" if stored.quarantined == 1 else f"{_counted(stored.quarantined)} jobs are"
        cause = "Their attempts killed workers several times. Read their arguments before you retry one."
        since = stored.quarantined_since
        yield Alert("quarantined", WARNING, f"{jobs} quarantined", cause, "jobs", "state=quarantined", since=since)


def _counted(count: int) -> str:
    return f"more than {COUNTED:,}" if count > COUNTED else str(count)


def _of_jobs(stored: StoredState) -> Iterator[Alert]:
    if stored.transport:
        cause = (
            f"{stored.transport.rstrip('.')}. Jobs are stored and start when it answers; calls are not affected. "
            "Start its server, or correct its URL."
        )
        title, since = "The message transport does not answer", stored.transport_since
        yield Alert("transport", ERROR, title, cause, "diagnostics", action="Check", since=since, first_seen=True)
    if stored.overdue:
        jobs = "1 job is due and waits" if stored.overdue == 1 else f"{_counted(stored.overdue)} jobs are due and wait"
        cause = "Celery workers receive no jobs, because the message transport does not answer."
        if not stored.transport:
            start = f"celery -A {stored.celery or YOUR_APP} worker --pool threads"
            cause = f"No Celery worker takes them. Start one with `{start}`, or add threads."
        since = stored.overdue_since
        yield Alert("jobs:overdue", ERROR, jobs, cause, "diagnostics", action="Check", since=since)
    yield from _of_schedules(stored)
    for one in stored.ended_jobs:
        yield _of_ended_jobs(one, "at least " if stored.ended_more else "")
    if others := stored.ended_others:
        title = f"{others:,} more job{'' if others == 1 else 's'} failed or lost in the last hour, of other causes"
        cause = "The page of errors has all of them in groups."
        yield Alert("jobs:others", WARNING, title, cause, "job-errors")


def _of_schedules(stored: StoredState) -> Iterator[Alert]:
    if names := stored.late_schedules:
        cause = "The message transport does not answer, so no tick submits them."
        if not stored.transport:
            cause = "No tick submits them. Start Celery beat, and a Celery worker that reads the queue `celery`."
        title = f"{_schedules(names)} late: {_some(names)}"
        yield Alert("periodic:late", ERROR, title, cause, "periodic", since=stored.late_since)
    if names := stored.refused_schedules:
        title = f"{_schedules(names)} without a job for the newest run: {_some(names)}"
        cause = "The job was refused. The page of periodic jobs has the reason of each."
        yield Alert("periodic:refused", WARNING, title, cause, "periodic", since=stored.refused_since)


def _schedules(names: Sequence[str]) -> str:
    return "1 periodic job is" if len(names) == 1 else f"{_counted(len(names))} periodic jobs are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _of_ended_jobs(one: EndedJobs, least: str) -> Alert:
    jobs = f"{least}{one.count} job{'' if one.count == 1 else 's'} of `{one.pool}.{one.command}`"
    cause = "Read the error of one before you retry them."
    if one.state == "lost":
        cause = "Their last attempt ended without an answer, so they may have run. Check before you retry them."
    query = urlencode({"state": one.state, "pool": one.pool, "command": one.command})
    key = f"jobs:{one.state}:{one.pool}.{one.command}:{one.cause}"
    title = f"{jobs} {one.state} in the last hour: {one.cause}"
    return Alert(key, WARNING, title, cause, "jobs", query, since=one.since)


def _of_pool(pool: PoolStatus, objective: float, now: float) -> Iterator[Alert]:
    name = pool.name
    if pool.state == "failed":
        yield Alert(f"failed:{name}", ERROR, f"{name} has failed: calls are refused", pool.reason, "pool", name)
    elif pool.state == "degraded" and pool.suspended and pool.ready >= pool.size:
        names = ", ".join(f"`{command}`" for command in pool.suspended)
        yield Alert(f"suspended:{name}", ERROR, f"{name} refuses calls of {names}", pool.reason, "pool", name)
    elif pool.state == "degraded":
        full = pool.ready >= pool.size
        title = f"{name} cannot replace its workers" if full else f"{name} has {pool.ready} of {pool.size} workers"
        yield Alert(f"degraded:{name}", WARNING, title, pool.reason, "pool", name)
    elif pool.state == "starting" and pool.reason:
        yield Alert(f"starting:{name}", ERROR, f"{name} has no ready worker yet", pool.reason, "pool", name)
    elif pool.state == "paused":
        cause = "Calls are refused until an operator resumes it; its workers stay warm."
        yield Alert(f"paused:{name}", WARNING, f"{name} is paused", cause, "pool-resume", name, "Resume", "operate")
    if pool.waiting and pool.waiting >= pool.queue_limit:
        cause = f"{pool.waiting} calls wait, which is the limit of the queue; more calls are refused."
        title = f"The queue of {name} is full"
        yield Alert(f"full:{name}", ERROR, title, cause, "pool-scale", name, "Scale", "operate")
    elif pool.oldest_wait > objective:
        used = f"{pool.taken} of {pool.slots} slots are in use"
        cause = f"The oldest of {pool.waiting} calls has waited longer than {objective:g} s; {used}."
        title = f"Calls wait too long for {name}"
        since = now - pool.oldest_wait
        yield Alert(f"wait:{name}", WARNING, title, cause, "pool-scale", name, "Scale", "operate", since=since)
    if pool.lost:
        cause = "Calls in threads did not stop when asked. With too many of them, the process is replaced."
        yield Alert(f"lost:{name}", WARNING, f"{name} has {pool.lost} lost slots", cause, "pool", name)


def _crash_loops(events: Sequence[RecordedEvent], now: float) -> Iterator[Alert]:
    """`events` with the newest first."""
    deaths = [one for one in events if one.kind == "worker.died" and one.at > now - DEATH_WINDOW]
    for name, count in Counter(death.pool for death in deaths).items():
        if count >= DEATHS:
            those = [death for death in deaths if death.pool == name]
            cause = f"{count} deaths in five minutes, the last one: {those[0].message}"
            title = f"Workers of {name} keep dying"
            yield Alert(f"crash:{name}", ERROR, title, cause, "worker", those[0].worker, since=those[-1].at)


def _out_of_memory(events: Sequence[RecordedEvent], now: float) -> Iterator[Alert]:
    """`events` with the newest first."""
    those = [one for one in events if one.reason == "out_of_memory" and one.at > now - DEATH_WINDOW]
    for name, count in Counter(death.pool for death in those if death.kind == "worker.died").items():
        deaths = [death for death in those if death.pool == name]
        title = f"The kernel killed {count} worker{'' if count == 1 else 's'} of {name}: the memory cgroup is full"
        cause = (
            "The limit of the container or unit is too low for its workers. Raise it, have fewer workers, or set "
            "memory_hard_mb below it, so that a worker is replaced before."
        )
        yield Alert(f"oom:{name}", ERROR, title, cause, "worker", deaths[0].worker, since=deaths[-1].at)


def _of_start(pool: PoolStatus) -> Iterator[Alert]:
    template = pool.template
    # Only a pool that asks for a template gets an alert; the broker warns of those.
    warned = bool(template.why) and any(template.why in warning for warning in pool.warnings)
    if template.state == "refused" and warned:
        cause = f"{template.why}. Its workers share no memory, and each one loads the adapter by itself."
        title = f"{pool.name} starts its workers one by one, not from a template"
        yield Alert(f"template:{pool.name}", WARNING, title, cause, "pool", pool.name)


def _of_memory(pool: PoolStatus, workers: Sequence[WorkerStatus], limit: float | None, now: float) -> Iterator[Alert]:
    """`limit`: memory_soft_mb of the pool; None: it has none."""
    leak = leak_of(pool, workers, limit)
    if leak is None:
        yield from _fast_growth(workers, now)
    elif any(_is_warm(worker, now) for worker in workers):
        yield from _of_leak(pool.name, leak, limit)


def _of_leak(name: str, leak: Leak, limit: float | None) -> Iterator[Alert]:
    inside = f" in `{leak.command}`" if leak.command else ""
    title = f"{name} leaks {leak.mb:.1f} MiB per 1,000 calls{inside}"
    if limit is None:
        cause = "The pool has no soft memory limit (memory_soft_mb) at which a worker would be replaced."
        yield Alert(f"leak:{name}", WARNING, title, cause, "diagnostics", action="Advice")
    elif leak.seconds is not None and leak.seconds <= SOON:
        cause = f"{leak.worker} reaches its soft limit of {limit:.0f} MiB {_about(leak.seconds)}, and is then replaced."
        yield Alert(f"leak:{name}", WARNING, title, cause, "pool-recycle", name, "Recycle", "operate")


def _fast_growth(workers: Sequence[WorkerStatus], now: float) -> Iterator[Alert]:
    for worker in workers:
        slope = worker.mb_per_hour or 0.0
        if slope > GROWTH and _is_warm(worker, now):
            cause = f"{worker.memory_mb:.0f} MiB now; no command is known as the reason."
            title = f"{worker.id} grows {slope:.0f} MiB an hour"
            yield Alert(f"growth:{worker.id}", WARNING, title, cause, "worker", worker.id)


def _is_warm(worker: WorkerStatus, now: float) -> bool:
    return worker.state == "ready" and worker.started_at <= now - WARM


def _about(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"in about {minutes} min" if minutes else "within a minute"


def _of_threads(pool: PoolStatus, workers: Iterable[WorkerStatus]) -> Iterator[Alert]:
    name, races = pool.name, pool.races
    if races:
        more = f" and {len(races) - 1} more" if races[1:] else ""
        title = f"{name} has a race: two threads wrote to `{races[0]}`{more}"
        cause = "The threads held no common lock, so one write may be lost. The page of the pool has both stacks."
        yield Alert(f"race:{name}", WARNING, title, cause, "pool", name, "Stacks", part="races")
    for worker in workers:
        if worker.gil == "on" and worker.gil_culprit:
            cause = f"Importing {worker.gil_culprit} switched it on: the threads of this worker take turns."
            title = f"The GIL of {worker.id} is on"
            yield Alert(f"gil:{worker.id}", WARNING, title, cause, "worker", worker.id)
