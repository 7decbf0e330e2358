"""What operators see of a pool and its workers: plain values, in the shape of `snakepit status --json`.

Of a pool, where the name does not say it all:

    load_seconds   what a worker takes from start to ready, the worst of the last five; 0: not known yet
    growth         how its memory grows with the calls, all workers of this generation together:
        mb_per_1000_calls   MiB; None: not enough evidence, which is less than 20 calls or 3 pairs of samples
        calls, samples      the evidence: calls that ended between two samples of a worker, and such pairs
        mostly              the command that makes more than half of it, where that is known; else empty
        verdict             "measured" or "not enough evidence"
        commands            of each command, the largest growth first: command, mb_per_1000_calls, error (of it, one
                            standard deviation), calls, samples and verdict, which may also be "cannot be told apart"
                            (it only ever ran together with others)

    memory_mb      PSS of all workers and the template
    template       what workers are forked from, or why they are spawned one by one:
        state           off (not wanted), absent (made by the next start), loading, ready, refused
        reason, why     of off and refused: in one word, and as a sentence
        id, pid, generation, load_seconds, memory_mb (-1: not measured), deaths, output

    usage          the last ten minutes, or since this definition came into force:
        seconds, answered, calls_per_second   how long that is, calls that were answered, also by an error
        busy, peak     share of the slot time that was taken, and slots taken at once at most, by a look every second;
                       None: there was no slot
        waited, wait_p50, wait_p95   calls with a known wait for a slot, and its percentiles, within a tenth
        refused, timed_out, overran, lost   queue full, queue_timeout, deadline, worker lost
        cpu_per_call, cpu_calls   CPU seconds of worker and descendants, and the calls they are of; None: under 20

Of a worker:

    mb_per_hour    slope of its memory since its first call; None: under 4 samples or one minute
    silent_for     seconds that the event loop of its process has owed a sign of life; 0: it answered
    template       the id of the one it was forked from; empty: it was spawned

    growth         the same of this worker alone, without its commands

    load_seconds   what loading its adapter took, by its own account
    due_in         seconds until its age (ttl) ends; None: no limit, or not ready yet
    expected       it is due so soon that its successor starts already; it serves until then
"""

from __future__ import annotations

from typing import Any

from snakepit.pools.broker.pool.recycle_policy import due_at
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.runner.runner import Runner
from snakepit.pools.broker.runner.worker_handle import WorkerHandle
from snakepit.pools.broker.spec import Profile
from snakepit.pools.broker.stats.gil_report import describe
from snakepit.pools.broker.stats.memory_growth import MEASURED, TOO_LITTLE, CommandGrowth, MemoryGrowth, WorkerGrowth
from snakepit.pools.broker.stats.usage import Usage

OUTPUT_LINES = 50


def pool_row(runner: Runner, now: float, usage: Usage, *, removed: bool = False) -> dict[str, Any]:
    pool, worker_set = runner.pool, runner.pool.worker_set
    ready = worker_set.among(State.READY)
    slots = sum(worker.slots for worker in ready)
    state, reason = pool_state(runner)
    return {
        "name": pool.spec.name,
        "profile": str(pool.spec.profile),
        "adapter": pool.spec.adapter,
        "interpreter": runner.definition.interpreter,
        "state": state,
        "reason": "it is removed, and its last calls run" if removed else reason,
        "size": pool.spec.size,
        "ready": len(ready),
        "busy": sum(worker.load > 0 for worker in ready),
        "slots": slots,
        "free": slots - sum(worker.load for worker in ready),
        "lost": sum(worker.lost for worker in worker_set.workers.values()),
        "waiting": pool.waiting,
        "oldest_wait": round(pool.queue.oldest_wait(now), 3),
        "queue_limit": pool.spec.queue_limit,
        "generation": worker_set.generation,
        "finished": pool.finished_count,
        "failed": pool.failed_count,
        "refused": pool.admission.refused_count,
        "retried": pool.retried_count,
        "recycled": worker_set.recycled,
        "died": worker_set.died,
        "memory_mb": pool_memory(runner),
        "template": template_row(runner),
        "load_seconds": round(worker_set.startup_times.expected, 3),
        "growth": growth_row(worker_set.growth, worker_set.growth.all_calls(), worker_set.growth)
        | {"commands": [_command_growth(found) for found in worker_set.growth.commands()]},
        "warnings": pool_warnings(runner),
        "races": list(runner.races),
        **pool_parallelism(runner),
        "held": pool.dispatcher.prefetched,
        "run_times": pool.dispatcher.run_times.rows(),
        "usage": usage.row(),
    }


def pool_memory(runner: Runner) -> float:
    worker_set = runner.pool.worker_set
    found = [worker.memory_mb for worker in worker_set.workers.values()] + [worker_set.template.memory_mb]
    return round(sum(memory for memory in found if memory >= 0), 1)


def template_row(runner: Runner) -> dict[str, Any]:
    worker_set = runner.pool.worker_set
    template = worker_set.template
    process = runner.templates.get(template.id) if template.is_current(template.id) else None
    return {
        "state": str(template.state),
        "reason": template.reason,
        "why": template.why,
        "id": template.id,
        "pid": process.pid if process else 0,
        "generation": worker_set.generation if template.id else 0,
        "memory_mb": template.memory_mb,
        "load_seconds": round(template.load_seconds, 3),
        "deaths": template.deaths,
        "output": list(process.output()[-OUTPUT_LINES:]) if process else [],
    }


def pool_parallelism(runner: Runner) -> dict[str, Any]:
    """How many slots of a worker really run at once, and why not more: of the ready worker that is worst off."""
    spec = runner.pool.spec
    ready = {worker.id for worker in runner.pool.worker_set.among(State.READY)}
    threaded = [handle for handle in runner.handles.values() if handle.id in ready and handle.greeting]
    if spec.profile != Profile.THREAD or not threaded:
        return {"gil": "", "gil_culprit": "", "parallelism": 0.0, "parallel": ""}
    worst = min(threaded, key=lambda handle: (not handle.gil_enabled, handle.parallelism))
    greeting = worst.greeting
    assert greeting is not None
    sentence = describe(
        runner.workers[worst.id].slots,
        worst.parallelism,
        cores=greeting.cores,
        free_threaded=greeting.free_threaded,
        gil_enabled=worst.gil_enabled,
        culprit=worst.gil_culprit,
        python=greeting.python,
    )
    gil = "on" if worst.gil_enabled else "off"
    factor = round(worst.parallelism, 2)
    return {"gil": gil, "gil_culprit": worst.gil_culprit, "parallelism": factor, "parallel": sentence}


def growth_row(found: MemoryGrowth | WorkerGrowth, calls: dict[str, int], pool: MemoryGrowth) -> dict[str, Any]:
    mb = found.mb
    return {
        "mb_per_1000_calls": None if mb is None else round(mb, 3),
        "calls": found.calls,
        "samples": found.samples,
        "mostly": pool.mostly(calls) if mb is not None and mb > 0 else "",
        "verdict": TOO_LITTLE if mb is None else MEASURED,
    }


def _command_growth(found: CommandGrowth) -> dict[str, Any]:
    return {
        "command": found.command,
        "mb_per_1000_calls": None if found.mb is None else round(found.mb, 3),
        "error": None if found.error is None else round(found.error, 3),
        "calls": found.calls,
        "samples": found.samples,
        "verdict": found.verdict,
    }


def pool_state(runner: Runner) -> tuple[str, str]:
    """Where a pool is, and why where that is not simply ready."""
    spec, worker_set = runner.pool.spec, runner.pool.worker_set
    ready = len(worker_set.among(State.READY))
    if worker_set.closing:
        return "stopping", "it is shutting down"
    if worker_set.is_hopeless():
        return "failed", worker_set.gate.failed
    if spec.paused:
        return "paused", "paused by its operator"
    trouble = worker_set.gate.failed or (
        f"the last start failed: {worker_set.gate.last_failure}" if worker_set.gate.last_failure else ""
    )
    if ready == 0:
        return "starting", trouble or ("its template loads" if worker_set.template.is_loading else "")
    if ready < spec.size - spec.max_unavailable:
        return "degraded", f"{ready} of {spec.size} workers are ready" + (f"; {trouble}" if trouble else "")
    return "ready", ""


def pool_warnings(runner: Runner) -> list[str]:
    """What works, but not as its owner believes."""
    warnings = []
    if races := runner.races:
        names = ", ".join(f"`{name}`" for name in races[:5]) + (f" and {len(races) - 5} more" if races[5:] else "")
        warnings.append(f"unlocked writes from two threads to {names}; the events thread.race have both stacks")
    if runner.pool.worker_set.template.is_unexpectedly_refused(runner.pool.spec):
        warnings.append(f"workers are spawned one by one: {runner.pool.worker_set.template.why}")
    for handle in runner.handles.values():
        greeting = handle.greeting
        if greeting and greeting.free_threaded and handle.gil_enabled:
            because = f" because of {handle.gil_culprit}" if handle.gil_culprit else ""
            warnings.append(f"{handle.id}: the interpreter is free-threaded, but the GIL is on{because}")
    return warnings[:8]


def worker_row(runner: Runner, worker: Worker, now: float, usage: Usage) -> dict[str, Any]:
    handle: WorkerHandle | None = runner.handles.get(worker.id)
    greeting = handle.greeting if handle else None
    process = handle.process if handle else None
    seen = usage.workers.get(worker.id)
    return {
        "id": worker.id,
        "pool": runner.pool.spec.name,
        "pid": process.pid if process else 0,
        "state": str(worker.state),
        "reason": f"{worker.reason}: {worker.detail}" if worker.reason and worker.detail else worker.reason,
        "load": worker.load,
        "capacity": worker.slots,
        "lost": worker.lost,
        "served": worker.served,
        "due_in": round(max(0.0, due - now), 3) if (due := due_at(worker, runner.pool.spec)) is not None else None,
        "expected": worker.expires_soon,
        "silent_for": round(now - handle.probed_at, 3) if handle and handle.probed_at is not None else 0.0,
        "growth": growth_row(worker.growth, worker.growth.totals, runner.pool.worker_set.growth),
        "memory_mb": round(worker.memory_mb, 1),
        "mb_per_hour": None if seen is None or (slope := seen.mb_per_hour) is None else round(slope, 3),
        "template": worker.template,
        "gil": "" if greeting is None or handle is None else ("on" if handle.gil_enabled else "off"),
        "gil_culprit": handle.gil_culprit if handle else "",
        "generation": worker.generation,
        "started_at": handle.started_wall if handle else 0.0,
        "load_seconds": round(greeting.load_seconds, 3) if greeting else 0.0,
        "python": greeting.python if greeting else "",
        "parallelism": round(handle.parallelism, 2) if handle else 0.0,
        "calls": handle.running(now, worker.slots) if handle else [],
        "held": worker.prefetched,
        "output": list(process.output()[-OUTPUT_LINES:]) if process else [],
    }
