"""What needs somebody: a pure function from what is known to a short list, the worst first.

Each need says what, why, since when, and what can be done about it. Something that is only unusual is no need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from snakepit.pools.dashboard.leaks import leak_of

ERROR, WARNING = "error", "warning"
DEATHS = 3  # deaths of a pool's workers ...
DEATH_WINDOW = 300.0  # ... in so many seconds are a crash loop
GROWTH = 60.0  # MiB an hour: a worker that grows faster, though no leak by calls is measured, is told ...
WARM = 240.0  # ... once it has been ready for so many seconds: before, it only warms up
SOON = 3600.0  # seconds: a soft line that is reached later needs nobody now


@dataclass(frozen=True, slots=True)
class Need:
    """`view` and `argument` name the page that helps, in the namespace `snakepit`."""

    key: str  # the same trouble has the same key: its `since` is kept by it
    level: str
    title: str
    cause: str
    view: str
    argument: str = ""
    action: str = "Look"
    right: str = "view"
    part: str = ""  # of that page
    since: float = 0.0  # seconds since the epoch; 0: since it was first seen


@dataclass(frozen=True, slots=True)
class Rows:
    """What only the database knows; read every few seconds, once for everybody."""

    silent_nodes: tuple[tuple[str, float], ...] = ()  # name, last seen
    quarantined: int = 0
    quarantined_since: float = 0.0
    soft_lines: Mapping[str, float] = field(default_factory=dict)  # MiB, of each pool that has one


def find_needs(
    status: Mapping[str, Any], events: Iterable[Mapping[str, Any]], rows: Rows, objective: float, now: float
) -> list[Need]:
    """`events` with the newest first. `objective`: seconds a call may wait."""
    events = list(events)
    found: list[Need] = [*_of_node(status["node"]), *_of_rows(rows)]
    failed = {pool["name"] for pool in status["pools"] if pool["state"] == "failed"}
    for pool in status["pools"]:
        workers = [worker for worker in status["workers"] if worker["pool"] == pool["name"]]
        found += _of_pool(pool, objective)
        if pool["name"] not in failed:  # whose reason is the same
            found += _of_start(pool)
        found += _of_memory(pool, workers, rows.soft_lines.get(pool["name"]), now)
        found += _of_threads(pool, workers)
    found += [need for need in _crash_loops(events, now) if need.key.partition(":")[2] not in failed]
    return sorted(found, key=lambda need: need.level != ERROR)


def _of_node(node: Mapping[str, Any]) -> Iterator[Need]:
    name = node.get("name", "")
    if "missing" in node.get("clock", ""):
        cause = (
            "No sweep came from Celery beat, so the broker sweeps by itself. Start beat, or find out why it stopped."
        )
        yield Need("clock", WARNING, "The lifecycle clock is missing", cause, "nodes")
    for problem in node.get("problems", ()):
        yield Need(f"problem:{problem}", ERROR, "A definition is refused", problem, "nodes")
    if since := node.get("drain_since"):
        who, why = node["drain_actor"] or "An operator", node["drain_reason"] or "no reason given"
        cause = f"{who}: {why}. New calls are refused, jobs wait."
        title = f"Node {name} is drained"
        yield Need("drained", WARNING, title, cause, "node-resume", name, "Resume", "operate", since=since)
    elif node.get("draining"):
        yield Need("draining", WARNING, f"The broker of {name} is stopping", "It takes no new calls.", "nodes")


def _of_rows(rows: Rows) -> Iterator[Need]:
    for name, seen in rows.silent_nodes:
        cause = "Its broker did not say that it stops, and has written nothing since."
        yield Need(f"silent:{name}", ERROR, f"Node {name} is silent", cause, "nodes", since=seen)
    if rows.quarantined:
        jobs = "1 job is" if rows.quarantined == 1 else f"{rows.quarantined} jobs are"
        cause = "Their attempts kept killing workers. Read what they were given before one is tried again."
        since = rows.quarantined_since
        yield Need("quarantined", WARNING, f"{jobs} quarantined", cause, "jobs", "state=quarantined", since=since)


def _of_pool(pool: Mapping[str, Any], objective: float) -> Iterator[Need]:
    name, state, reason = pool["name"], pool["state"], pool["reason"]
    if state == "failed":
        yield Need(f"failed:{name}", ERROR, f"{name} has failed: calls are refused", reason, "pool", name)
    elif state == "degraded":
        title = f"{name} has {pool['ready']} of {pool['size']} workers"
        yield Need(f"degraded:{name}", WARNING, title, reason, "pool", name)
    elif state == "starting" and reason:
        yield Need(f"starting:{name}", ERROR, f"{name} has no worker yet", reason, "pool", name)
    elif state == "paused":
        cause = "Calls are refused until somebody resumes it; its workers stay warm."
        yield Need(f"paused:{name}", WARNING, f"{name} is paused", cause, "pool-resume", name, "Resume", "operate")
    if pool["waiting"] and pool["waiting"] >= pool["queue_limit"]:
        cause = f"{pool['waiting']} calls wait, which is its limit; more are refused."
        yield Need(f"full:{name}", ERROR, f"The queue of {name} is full", cause, "pool-scale", name, "Scale", "operate")
    elif pool["oldest_wait"] > objective:
        cause = f"The oldest of {pool['waiting']} calls has waited longer than {objective:g} s; {_use(pool)}."
        title = f"Calls wait too long for {name}"
        yield Need(f"wait:{name}", WARNING, title, cause, "pool-scale", name, "Scale", "operate")
    if pool["lost"]:
        cause = "Calls in threads did not stop when they were told to. Enough of them replace the process."
        yield Need(f"lost:{name}", WARNING, f"{name} has {pool['lost']} lost slots", cause, "pool", name)


def _use(pool: Mapping[str, Any]) -> str:
    return f"{pool['slots'] - pool['free']} of {pool['slots']} slots are in use"


def _crash_loops(events: list[Mapping[str, Any]], now: float) -> Iterator[Need]:
    """`events` with the newest first."""
    deaths = [one for one in events if one["kind"] == "worker.died" and one["at"] > now - DEATH_WINDOW]
    for name, count in Counter(death["pool"] for death in deaths).items():
        if count >= DEATHS:
            those = [death for death in deaths if death["pool"] == name]
            cause = f"{count} deaths in five minutes, the last one: {those[0]['message']}"
            title = f"Workers of {name} keep dying"
            yield Need(f"crash:{name}", ERROR, title, cause, "worker", those[0]["worker"], since=those[-1]["at"])


def _of_start(pool: Mapping[str, Any]) -> Iterator[Need]:
    name, template = pool["name"], pool.get("template") or {}
    # A pool that only could have had a template is as it was meant; the broker warns of the others.
    warned = any(template.get("why") and template["why"] in warning for warning in pool.get("warnings", ()))
    if template.get("state") == "refused" and warned:
        cause = f"{template['why']}. Its workers share no memory, and each one loads the adapter by itself."
        title = f"{name} starts its workers one by one, not from a template"
        yield Need(f"template:{name}", WARNING, title, cause, "pool", name)


def _of_memory(
    pool: Mapping[str, Any], workers: Iterable[Mapping[str, Any]], line: float | None, now: float
) -> Iterator[Need]:
    name, workers = pool["name"], list(workers)
    leak = leak_of(pool, workers, line)
    settled = any(_warm(worker, now) for worker in workers)
    if leak and settled and (line is None or (leak.seconds is not None and leak.seconds <= SOON)):
        inside = f" in `{leak.command}`" if leak.command else ""
        title = f"{name} leaks {leak.mb:.1f} MiB per 1,000 calls{inside}"
        if line is None:
            cause = "The pool has no soft line (memory_soft_mb) at which a worker would be replaced."
            yield Need(f"leak:{name}", WARNING, title, cause, "diagnostics", action="Advice")
        else:
            cause = (
                f"{leak.worker} reaches its soft line of {line:.0f} MiB {_about(leak.seconds)}, and is then replaced."
            )
            yield Need(f"leak:{name}", WARNING, title, cause, "pool-recycle", name, "Recycle", "operate")
        return
    for worker in workers:
        slope = worker.get("mb_per_hour") or 0.0
        if leak is None and slope > GROWTH and _warm(worker, now):
            cause = f"{worker['memory_mb']:.0f} MiB now, and no command is known to be the reason."
            title = f"{worker['id']} grows {slope:.0f} MiB an hour"
            yield Need(f"growth:{worker['id']}", WARNING, title, cause, "worker", worker["id"])


def _warm(worker: Mapping[str, Any], now: float) -> bool:
    return bool(worker["state"] == "ready" and worker.get("started_at", now) <= now - WARM)


def _about(seconds: float | None) -> str:
    minutes = round((seconds or 0.0) / 60)
    return f"in about {minutes} min" if minutes else "within a minute"


def _of_threads(pool: Mapping[str, Any], workers: Iterable[Mapping[str, Any]]) -> Iterator[Need]:
    name, races = pool["name"], list(pool.get("races", ()))
    if races:
        more = f" and {len(races) - 1} more" if races[1:] else ""
        title = f"{name} has a race: two threads wrote to `{races[0]}`{more}"
        cause = "They held no lock in common, so one write may be lost. The page of the pool has both stacks."
        yield Need(f"race:{name}", WARNING, title, cause, "pool", name, "Stacks", part="races")
    for worker in workers:
        if worker.get("gil") == "on" and worker.get("gil_culprit"):
            ident, culprit = worker["id"], worker["gil_culprit"]
            cause = f"Importing {culprit} switched it back on: its threads run one at a time."
            yield Need(f"gil:{ident}", WARNING, f"The GIL of {ident} is on", cause, "worker", ident)
