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

from snakepit.pools.broker.growth import MEASURED, TOO_LITTLE, CommandGrowth, Growth, WorkerGrowth
from snakepit.pools.broker.parallel import describe
from snakepit.pools.broker.policy import due_at
from snakepit.pools.broker.runner import Runner
from snakepit.pools.broker.spec import Profile
from snakepit.pools.broker.staff import Staff
from snakepit.pools.broker.usage import Usage
from snakepit.pools.broker.worker import State, Worker

OUTPUT_LINES = 50


def pool_row(runner: Runner, now: float, usage: Usage, *, removed: bool = False) -> dict[str, Any]:
    pool, force = runner.pool, runner.pool.force
    ready = force.among(State.READY)
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
        "lost": sum(worker.lost for worker in force.workers.values()),
        "waiting": pool.waiting,
        "oldest_wait": round(pool.line.oldest_wait(now), 3),
        "queue_limit": pool.spec.queue_limit,
        "generation": force.generation,
        "finished": pool.finished_count,
        "failed": pool.failed_count,
        "refused": pool.door.refused_count,
        "retried": pool.retried_count,
        "recycled": force.recycled,
        "died": force.died,
        "memory_mb": pool_memory(runner),
        "template": template_row(runner),
        "load_seconds": round(force.load_time.expected, 3),
        "growth": growth_row(force.growth, force.growth.all_calls(), force.growth)
        | {"commands": [_command_growth(found) for found in force.growth.commands()]},
        "warnings": pool_warnings(runner),
        "races": list(runner.races),
        **pool_parallelism(runner),
        "held": pool.hands.waiting,
        "run_times": pool.hands.run_times.rows(),
        "usage": usage.row(),
    }


def pool_memory(runner: Runner) -> float:
    force = runner.pool.force
    found = [worker.memory_mb for worker in force.workers.values()] + [force.template.memory_mb]
    return round(sum(memory for memory in found if memory >= 0), 1)


def template_row(runner: Runner) -> dict[str, Any]:
    force = runner.pool.force
    template = force.template
    process = runner.forge.get(template.id) if template.is_current(template.id) else None
    return {
        "state": str(template.state),
        "reason": template.reason,
        "why": template.why,
        "id": template.id,
        "pid": process.pid if process else 0,
        "generation": force.generation if template.id else 0,
        "memory_mb": template.memory_mb,
        "load_seconds": round(template.load_seconds, 3),
        "deaths": template.deaths,
        "output": list(process.output()[-OUTPUT_LINES:]) if process else [],
    }


def pool_parallelism(runner: Runner) -> dict[str, Any]:
    """How many slots of a worker really run at once, and why not more: of the ready worker that is worst off."""
    spec = runner.pool.spec
    ready = {worker.id for worker in runner.pool.force.among(State.READY)}
    threaded = [staff for staff in runner.staff.values() if staff.id in ready and staff.greeting]
    if spec.profile != Profile.THREAD or not threaded:
        return {"gil": "", "gil_culprit": "", "parallelism": 0.0, "parallel": ""}
    worst = min(threaded, key=lambda staff: (not staff.gil_enabled, staff.parallelism))
    greeting = worst.greeting
    assert greeting is not None
    sentence = describe(
        runner.pool.force.workers[worst.id].slots,
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


def growth_row(found: Growth | WorkerGrowth, calls: dict[str, int], pool: Growth) -> dict[str, Any]:
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
    spec, force = runner.pool.spec, runner.pool.force
    ready = len(force.among(State.READY))
    if force.closing:
        return "stopping", "it is shutting down"
    if force.is_hopeless():
        return "failed", force.gate.failed
    if spec.paused:
        return "paused", "paused by its operator"
    trouble = force.gate.failed or (
        f"the last start failed: {force.gate.last_failure}" if force.gate.last_failure else ""
    )
    if ready == 0:
        return "starting", trouble or ("its template loads" if force.template.is_loading else "")
    if ready < spec.size - spec.max_unavailable:
        return "degraded", f"{ready} of {spec.size} workers are ready" + (f"; {trouble}" if trouble else "")
    return "ready", ""


def pool_warnings(runner: Runner) -> list[str]:
    """What works, but not as its owner believes."""
    warnings = []
    if races := runner.races:
        names = ", ".join(f"`{name}`" for name in races[:5]) + (f" and {len(races) - 5} more" if races[5:] else "")
        warnings.append(f"unlocked writes from two threads to {names}; the events thread.race have both stacks")
    if runner.pool.force.template.is_disappointing(runner.pool.spec):
        warnings.append(f"workers are spawned one by one: {runner.pool.force.template.why}")
    for staff in runner.staff.values():
        greeting = staff.greeting
        if greeting and greeting.free_threaded and staff.gil_enabled:
            because = f" because of {staff.gil_culprit}" if staff.gil_culprit else ""
            warnings.append(f"{staff.id}: the interpreter is free-threaded, but the GIL is on{because}")
    return warnings[:8]


def worker_row(runner: Runner, worker: Worker, now: float, usage: Usage) -> dict[str, Any]:
    staff: Staff | None = runner.staff.get(worker.id)
    greeting = staff.greeting if staff else None
    process = staff.process if staff else None
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
        "expected": worker.expected,
        "silent_for": round(now - staff.probed_at, 3) if staff and staff.probed_at is not None else 0.0,
        "growth": growth_row(worker.growth, worker.growth.totals, runner.pool.force.growth),
        "memory_mb": round(worker.memory_mb, 1),
        "mb_per_hour": None if seen is None or (slope := seen.mb_per_hour) is None else round(slope, 3),
        "template": worker.template,
        "gil": "" if greeting is None or staff is None else ("on" if staff.gil_enabled else "off"),
        "gil_culprit": staff.gil_culprit if staff else "",
        "generation": worker.generation,
        "started_at": staff.started_wall if staff else 0.0,
        "load_seconds": round(greeting.load_seconds, 3) if greeting else 0.0,
        "python": greeting.python if greeting else "",
        "parallelism": round(staff.parallelism, 2) if staff else 0.0,
        "calls": staff.running(now, worker.slots) if staff else [],
        "held": worker.ahead,
        "output": list(process.output()[-OUTPUT_LINES:]) if process else [],
    }
