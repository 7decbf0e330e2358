"""What needs somebody: a pure function from what is known to a short list, the worst first.

Each need says what, why, since when, and what can be done about it. Something that is only unusual is no need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ERROR, WARNING = "error", "warning"
DEATHS = 3  # deaths of a pool's workers ...
DEATH_WINDOW = 300.0  # ... in so many seconds are a crash loop
GROWTH = 1.0  # MiB a minute: a worker that grows faster, for as long as it was watched, leaks


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
    since: float = 0.0  # seconds since the epoch; 0: since it was first seen


@dataclass(frozen=True, slots=True)
class Rows:
    """What only the database knows; read every few seconds, once for everybody."""

    silent_nodes: tuple[tuple[str, float], ...] = ()  # name, last seen
    quarantined: int = 0
    quarantined_since: float = 0.0


def find_needs(
    status: Mapping[str, Any], events: Iterable[Mapping[str, Any]], growth: Mapping[str, float], rows: Rows,
    objective: float, now: float,
) -> list[Need]:  # fmt: skip
    """`growth`: MiB a minute of each worker that was watched for long enough. `objective`: seconds a call may wait."""
    events = list(events)
    found: list[Need] = [*_of_node(status["node"]), *_of_rows(rows)]
    for pool in status["pools"]:
        found += _of_pool(pool, objective)
    found += _crash_loops(events, now)
    for worker in status["workers"]:
        found += _of_worker(worker, growth.get(worker["id"], 0.0))
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
    if node.get("draining"):
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


def _of_worker(worker: Mapping[str, Any], growth: float) -> Iterator[Need]:
    ident = worker["id"]
    if worker.get("gil") == "on" and worker.get("gil_culprit"):
        cause = f"Importing {worker['gil_culprit']} switched it back on: its threads run one at a time."
        yield Need(f"gil:{ident}", WARNING, f"The GIL of {ident} is on", cause, "worker", ident)
    if growth > GROWTH and worker["state"] == "ready":
        cause = f"{worker['memory_mb']:.0f} MiB now. Give the pool a memory line or max_requests, or find the leak."
        title = f"{ident} grows {growth:.1f} MiB a minute"
        yield Need(f"growth:{ident}", WARNING, title, cause, "worker", ident)
