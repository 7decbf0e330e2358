"""Rules without state: when a worker is due, how long to wait before the next start, what an exit status means.

>>> describe_exit(Exit(signal=11))
'signal SIGSEGV: it crashed in native code'
>>> describe_exit(Exit(code=3))
'exit code 3: its adapter could not be loaded'
>>> describe_exit(Exit(code=3), at_work=True)
'exit code 3: the code that it ran ended it'
>>> describe_exit(Exit(signal=9, out_of_memory=True))
'signal SIGKILL: its memory cgroup reached its limit, so the kernel killed it'
>>> [round(restart_delay(failures, Random(1)), 1) for failures in (1, 2, 10)]
[0.4, 0.9, 51.2]
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from random import Random

from snakepit.pools.broker import errors
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec

FIRST_DELAY = 0.5  # seconds; doubles with each failed start, as supervisors and container runtimes do
LONGEST_DELAY = 60.0
CRASH_LOOP_FAILURES = 3  # failed starts that a crash loop counts as: its first delay is 2 s
LAST_LINES = 20  # of a dead worker's output, kept with the event

EXIT_CODES = {
    0: "it exited by itself",
    3: "its adapter could not be loaded",
    4: "it lost the link to the broker",
    6: "a call changed the process in a way that cannot be undone",
    5: "its parent was not the broker that started it",
}
SIGNALS = {
    int(signal.SIGSEGV): "it crashed in native code",
    int(signal.SIGBUS): "it crashed in native code",
    int(signal.SIGILL): "it crashed in native code",
    int(signal.SIGABRT): "native code aborted",
    int(signal.SIGKILL): "it was killed from outside, or the machine ran out of memory",
}
OUT_OF_MEMORY = "out_of_memory"  # the reason of a death
OVER_LIMIT = "its memory cgroup reached its limit, so the kernel killed it"


def restart_delay(failures: int, rng: Random) -> float:
    """Return the seconds before the next start, after so many failed ones in a row; 20 % of chance keep pools apart."""
    if failures <= 0:
        return 0.0
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 10)) * (0.8 + 0.4 * rng.random()))


def describe_exit(exit: Exit, *, at_work: bool = False) -> str:
    """Return one line for people: the status and what it usually means. `at_work`: it had loaded its adapter."""
    if exit.signal is not None:
        try:
            name = signal.Signals(exit.signal).name
        except ValueError:
            name = str(exit.signal)
        why = OVER_LIMIT if exit.out_of_memory else SIGNALS.get(exit.signal, "it was ended by a signal")
        return f"signal {name}: {why}"
    if exit.code is None:
        return "its exit status is not known"
    codes = {**EXIT_CODES, 3: "the code that it ran ended it"} if at_work else EXIT_CODES
    return f"exit code {exit.code}: {codes.get(exit.code, 'it exited by itself')}"


def last_output(lines: Sequence[str]) -> list[str]:
    """Return the part of a dead worker's output that explains its end: the stack of the thread that crashed, or else
    its last lines.

    >>> last_output(["start", "Fatal Python error: Aborted", "", "Thread 1:", "  idle", "Current thread 2:", "  bad"])
    ['Fatal Python error: Aborted', 'Current thread 2:', '  bad']
    """
    fatal = next((at for at in reversed(range(len(lines))) if lines[at].startswith("Fatal Python error")), None)
    if fatal is None:
        return list(lines[-LAST_LINES:])
    # The stacks of its other threads may come before and after, and fill more lines than are kept.
    current = next((at for at in range(fatal, len(lines)) if lines[at].startswith("Current thread")), fatal + 1)
    return [lines[fatal], *lines[current : current + LAST_LINES - 1]]


def deadline_exceeded(call: Call, unserved: str = "") -> errors.DeadlineExceeded:
    """The error of a call whose deadline has passed. `unserved`: why no worker of its pool can start."""
    where, outcome = ("ran", errors.UNKNOWN) if call.worker else ("waited", errors.NOT_STARTED)
    message = f"The call did not end within {call.deadline - call.arrived:g} s (it {where} until then)."
    if unserved and not call.worker:
        message += f" The pool's workers cannot start: {unserved}."
    return errors.DeadlineExceeded(message, outcome=outcome)


def worker_lost(worker: Worker, begun: bool, evidence: str) -> errors.WorkerLost:
    """The error of a call whose worker died, with the worker's last output."""
    why = "its process died"
    if worker.killed:
        why = f"{worker.reason}: {worker.detail}"
    elif worker.out_of_memory:
        why = f"{OUT_OF_MEMORY}: {OVER_LIMIT}"
    message = f"Worker {worker.id} was lost while it held the call ({why})."
    outcome = errors.UNKNOWN if begun else errors.NOT_STARTED
    details = {"worker": worker.id, "output": evidence[-2000:]}
    if worker.out_of_memory:
        details["reason"] = OUT_OF_MEMORY
    return errors.WorkerLost(message, outcome=outcome, details=details)


def lost_slots_allowed(slots: int) -> int:
    """Return how many slots of a worker may be lost before it is replaced: less than a quarter of them."""
    return max(1, slots // 4) - 1


def due_at(worker: Worker, spec: PoolSpec) -> float | None:
    """Return when a ready worker has reached its age. The timer and the check share this sum: two sums would differ by
    a rounding."""
    return None if worker.ttl is None else worker.ready_at + max(worker.ttl, spec.min_lifetime)


def successor_at(worker: Worker, spec: PoolSpec, startup: float) -> float | None:
    """Return when a successor must start, so that it is ready when this worker is due. None: there is no such time."""
    due = due_at(worker, spec)
    if due is None or worker.state is not State.READY or worker.reason:
        return None
    return due - startup if spec.max_surge else due


def recycle_reason(worker: Worker, spec: PoolSpec, now: float, startup: float = 0.0) -> tuple[str, str] | None:
    """Return why a ready worker is to be replaced, as (reason, detail with numbers), or None. The first match wins.

    `startup` is the time that a start takes: by count, a worker is marked so early that it reaches its limit when its
    successor is ready, and not long after.
    """
    if worker.lost and worker.lost > lost_slots_allowed(worker.slots):
        return "lost_slots", f"{worker.lost} of {worker.slots} slots held by calls that did not stop"
    if now < worker.ready_at + spec.min_lifetime:
        return None
    if worker.max_served is not None and _served_by(worker, now, startup) >= worker.max_served:
        return "max_requests", f"{worker.max_served} calls"
    if (due := due_at(worker, spec)) is not None and now >= due:
        return "ttl", f"{worker.ttl:.0f} s"
    if worker.above_soft >= spec.memory_samples:
        return "memory_soft", above_limit(worker, spec.memory_soft_mb)
    return None


def _served_by(worker: Worker, now: float, startup: float) -> float:
    """Return how many calls the worker has ended, holds already, and will get at its usual rate during a start."""
    count = worker.served + len(worker.assigned)
    age = now - worker.ready_at
    return count + worker.served / age * startup if age > 0.0 else count


def above_limit(worker: Worker, limit: float | None) -> str:
    return f"{worker.memory_mb:.0f} MiB, limit {limit:.0f} MiB" + (f"; {worker.leak}" if worker.leak else "")
