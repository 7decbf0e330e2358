"""What a worker reports, as errors for callers and events for operators."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from snakepit.pools.broker import errors
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.pool.batches import BatchRule
from snakepit.pools.broker.ports import Greeting, Race, WorkerFailure
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.stats.gil_report import why_on
from snakepit.pools.broker.status import CommandInfo

if TYPE_CHECKING:
    from snakepit.pools.broker.pool.worker import Worker
    from snakepit.pools.broker.runner.worker_handle import WorkerHandle


def error_of(failure: WorkerFailure) -> errors.BrokerError:
    """Return a worker's failure as the error that the caller gets; an unknown code becomes an AdapterError."""
    known = errors.ERRORS.get(failure.code, errors.AdapterError)
    details = dict(failure.details)
    # A call may be stopped before it began: only the worker can report that, the code alone does not.
    outcome = errors.NOT_STARTED if details.pop("outcome", "") == errors.NOT_STARTED else ""
    if failure.type:
        details["type"] = failure.type
    if failure.traceback:
        details["traceback"] = failure.traceback
    retry_after = _seconds(details) if known is errors.Snoozed else 0.0
    plain = json.loads(json.dumps(details, default=str))
    return known(failure.message, outcome=outcome, details=plain, retry_after=retry_after)


def _seconds(details: Mapping[str, Any]) -> float:
    """The pause of a snooze. A worker is not trusted to report a number."""
    seconds = details.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < math.inf else 0.0


def rules_of(commands: Iterable[CommandInfo]) -> dict[str, BatchRule]:
    """The commands that run in batches."""
    return {one.name: BatchRule(one.batch, one.batch_wait) for one in commands if one.batch > 1}


def known_parallelism(started: str, workers: Mapping[str, Worker], handles: Mapping[str, WorkerHandle]) -> float:
    """What other workers of the same definition have measured without a GIL; 0: none has.

    The most of it: a busy machine makes a measurement lower, never higher.
    """
    generation = workers[started].generation if started in workers else 0
    others = [handle for name, handle in handles.items() if name in workers and workers[name].generation == generation]
    return max((one.parallelism for one in others if not one.gil_enabled), default=0.0)


def race_event(pool: str, worker: str, race: Race) -> Event:
    data = {
        "attribute": race.attribute,
        "first": {"thread": race.first_thread, "stack": race.first_stack},
        "second": {"thread": race.second_thread, "stack": race.second_stack},
    }
    message = (
        f"two threads wrote to `{race.attribute}` without a common lock\n"
        f"{race.first_thread}:\n{race.first_stack}\n{race.second_thread}:\n{race.second_stack}"
    )
    return Event(Kind.THREAD_RACE, pool, worker, "unlocked", message, "warning", data)


def gil_event(spec: PoolSpec, worker: str, greeting: Greeting, culprit: str, parallelism: float) -> Event:
    """The GIL of a free-threaded interpreter was switched on: its threads take turns from now on."""
    because = why_on(free_threaded=greeting.free_threaded, culprit=culprit, python=greeting.python)
    turns = f": its {spec.slots} threads take turns" if spec.slots > 1 else ""
    data = {"culprit": culprit, "slots": spec.slots, "parallelism": parallelism}
    reason = "import" if culprit else "environment"
    return Event(Kind.GIL_ENABLED, spec.name, worker, reason, f"{because}{turns}", "warning", data)
