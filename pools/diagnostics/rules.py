"""The rules. Each judges one pool: advised, fine, not enough evidence, or does not apply."""

from __future__ import annotations

import math
from collections.abc import Callable

from snakepit.pools.broker.spec import Preload, Profile
from snakepit.pools.broker.stats.memory_growth import MEASURED, TOGETHER
from snakepit.pools.broker.status import GrowthStatus
from snakepit.pools.diagnostics.advice import Case, Judgement, rounded_down, rounded_up

BUSY = 0.85  # share of the slot time; above it calls queue up whatever their order
TARGET_BUSY = 0.7  # share that more workers are to bring it to
LONGEST_WAIT = 1.0  # seconds of p95, or a fifth of queue_timeout if that is less
IDLE = 0.3
SPARE = 1.25  # times the largest number of slots that were taken together
FEWER = 0.6  # of the present size; for less it is not worth a change
CORES = 0.9  # share of the cores that one pool may use before workers stop helping
LEAK = 1.0  # MiB per 1,000 calls; less is noise
SAMPLES = 20  # pairs of measurements; while a worker warms up it grows without leaking
SURE = 2.0  # standard deviations that the growth of some command must be above nothing
ROOM = (64.0, 0.25)  # MiB that a worker may grow, at least, and as a share of its memory
TURNS = 1.5  # slots that run together; with less, threads take turns
COMPUTES = 0.5  # share of a call's time; below it the call mostly waits, and a waiting thread costs nothing
LIFE = 20  # times its load time that a worker should live: five hundredths of it go into loading
PRELOAD_MB = (30.0, 100.0)  # of a worker, and saved in all, that make a template worth while
FORKED_MB = 12.0  # what a worker that was forked needs for itself, at least
TURNED_AWAY = 0.01  # share of the calls
OVERRAN = 0.05
STARTS = 0.7  # share of startup_timeout


def queue(case: Case) -> Judgement:
    """Calls wait because all slots are busy: more workers."""
    spec, usage = case.spec, case.usage
    if lack := case.lacks(case.enough.calls, case.enough.seconds):
        return case.too_little("queue", lack)
    busy, wait = usage.busy, usage.wait_p95
    if busy is None or wait is None:
        return case.too_little("queue", "no call has waited for a slot")
    limit = min(LONGEST_WAIT, spec.queue_timeout / 5)
    evidence = f"queue wait p95 {wait:.2g} s at {busy:.0%} busy"
    if wait < limit or busy < BUSY:
        return case.fine("queue", f"{evidence}; advised from {limit:g} s at {BUSY:.0%}")
    cores, used = case.machine.cores, case.cores_used
    if cores and used and used >= CORES * cores:
        return case.fine("queue", f"{evidence}, but {used:.1f} of {cores:g} cores compute: workers would not help")
    wanted = 1 / max(0.1, 1 - case.turned_away / usage.answered)  # refused calls would have kept slots busy too
    size = min(2 * spec.size, max(spec.size + 1, math.ceil(spec.size * busy * wanted / TARGET_BUSY)))
    if cores and (share := case.cpu_share) and share >= COMPUTES and spec.profile == Profile.PROCESS:
        size = max(spec.size, min(size, math.ceil(cores / share)))
    each, free = case.each_mb, case.machine.free_mb
    if each and free is not None and each * (size - spec.size) > free:
        size = spec.size + int(free // each)
        evidence += f", {free:,.0f} MiB are free"
    return case.advise("queue", f"Give {spec.name} {size} workers", evidence, {"size": size}, case.memory_cost(size))


def idle(case: Case) -> Judgement:
    """Idle workers: fewer workers."""
    spec, usage = case.spec, case.usage
    if spec.size == 1:
        return case.none("idle", "it has one worker")
    if lack := case.lacks(case.enough.calls, case.enough.idle_seconds):
        return case.too_little("idle", lack)
    busy, peak = usage.busy, usage.peak
    if busy is None:
        return case.too_little("idle", "it had no slot")
    evidence = f"{busy:.0%} busy, at most {peak} of {spec.size * case.slots} slots together"
    size = max(1, math.ceil(max(SPARE * peak, busy * spec.size * case.slots / 0.5) / case.slots))
    if busy > IDLE or size > FEWER * spec.size or (usage.wait_p95 or 0.0) > 0.1:
        return case.fine("idle", evidence)
    evidence += f" in {usage.seconds / 60:.0f} minutes"
    title = f"{spec.name} needs {size} worker{'s' * (size > 1)} only"
    return case.advise("idle", title, evidence, {"size": size}, case.memory_cost(size))


def leak(case: Case) -> Judgement:
    """Workers grow with their calls: replace them in time."""
    spec, growth, mb = case.spec, case.pool.growth, case.pool.growth.mb_per_1000_calls
    if growth.verdict != MEASURED or mb is None or growth.samples < SAMPLES:
        lack = f"{growth.calls} calls, {growth.samples} samples of memory; needs 20 calls and {SAMPLES} samples"
        return case.too_little("leak", lack)
    if mb >= LEAK and is_chance(growth):
        return case.too_little("leak", f"grows {mb:.1f} MiB per 1,000 calls, within the error of its measurement")
    evidence = f"leaks {mb:.1f} MiB per 1,000 calls" + (f" in `{growth.mostly}`" if growth.mostly else "")
    if mb < LEAK:
        return case.fine("leak", f"grows {mb:.1f} MiB per 1,000 calls; advised from {LEAK:g} MiB")
    if spec.memory_soft_mb:
        return case.fine("leak", f"{evidence}; memory_soft_mb {spec.memory_soft_mb:g} bounds it")
    calls = max(rounded_down(1000 * max(ROOM[0], ROOM[1] * (case.each_mb or 0.0)) / mb), _calls_worth(case))
    if spec.max_requests is not None and spec.max_requests <= 2 * calls:
        return case.fine("leak", f"{evidence}; max_requests {spec.max_requests:,} bounds it")
    title = f"Replace the workers of {spec.name} every {calls:,} calls"
    return case.advise("leak", title, evidence, {"max_requests": calls})


def is_chance(growth: GrowthStatus) -> bool:
    """Whether the measured growth of every command is within its error.

    Commands that cannot be told apart have no error of their own; they may be the cause together.
    """
    measured = [one for one in growth.commands if one.verdict == MEASURED]
    within = all((one.mb_per_1000_calls or 0.0) < SURE * (one.error or 0.0) for one in measured)
    return bool(measured) and within and all(one.verdict != TOGETHER for one in growth.commands)


def gil(case: Case) -> Judgement:
    """Threads that compute and take turns because of the GIL: processes."""
    spec, factor = case.spec, case.pool.parallelism
    if spec.profile != Profile.THREAD or spec.threads < 2:
        return case.none("gil", "it has no threads")
    if not factor:
        return case.too_little("gil", "the parallelism is not measured yet; needs one ready worker")
    because = f" because of {case.pool.gil_culprit}" if case.pool.gil_culprit else ""
    evidence = f"threads {spec.threads}, factor {factor:.1f}, GIL {case.pool.gil or 'unknown'}{because}"
    if case.pool.gil != "on" or factor >= TURNS:
        return case.fine("gil", evidence)
    if (share := case.cpu_share) is None:
        return case.too_little("gil", f"{evidence}; {_cpu_lack(case)}")
    if share < COMPUTES:
        return case.fine("gil", f"{evidence}, but calls compute for {share:.0%} of their time only: threads that wait")
    evidence += f", calls compute for {share:.0%} of their time"
    size = max(spec.size, min(spec.size * spec.threads, math.ceil(case.machine.cores or spec.size * spec.threads)))
    values = {"profile": str(Profile.PROCESS), "size": size}
    title = f"Run {spec.name} in {size} processes instead of threads"
    return case.advise("gil", title, evidence, values, case.memory_cost(size))


def threads(case: Case) -> Judgement:
    """More threads than run together, and they compute: fewer threads."""
    spec, factor = case.spec, case.pool.parallelism
    if spec.profile != Profile.THREAD or case.pool.gil == "on":
        return case.none("threads", "it has no threads that run in parallel")
    if not factor:
        return case.too_little("threads", "the parallelism is not measured yet; needs one ready worker")
    wanted = 2 * math.ceil(factor)
    cores = f" on {case.machine.cores:g} cores" if case.machine.cores else ""
    evidence = f"threads {spec.threads}{cores}, factor {factor:.1f}"
    if spec.threads <= 2 * wanted:
        return case.fine("threads", evidence)
    if (share := case.cpu_share) is None:
        return case.too_little("threads", f"{evidence}; {_cpu_lack(case)}")
    if share < COMPUTES:
        return case.fine("threads", f"{evidence}, but calls wait for {1 - share:.0%} of their time")
    title = f"Give a worker of {spec.name} {wanted} threads"
    return case.advise("threads", title, evidence, {"threads": wanted})


def preload(case: Case) -> Judgement:
    """Workers that each hold their own copy of what they could share: a template."""
    spec, template = case.spec, case.pool.template
    if spec.profile != Profile.PROCESS or spec.size < 2:
        return case.none("preload", "it has one worker, or threads that share their memory")
    refused = template.state == "refused"
    if spec.preload == Preload.ON or template.state in ("ready", "loading"):
        return case.fine("preload", "workers are forked from a template" if not refused else template.why)
    if refused and template.reason != "no_preload":
        return case.none("preload", f"it cannot be forked from: {template.why}")
    each = case.loaded_mb
    if each is None:
        return case.too_little("preload", "no worker's memory is measured; needs one sweep after the first is ready")
    saved = max(0.0, each - FORKED_MB) * (spec.size - 1)
    load = f", a start takes {case.load_seconds:.1f} s" if case.load_seconds else ""
    evidence = f"{spec.size} spawned workers of {each:,.0f} MiB after their start{load}"
    if each < PRELOAD_MB[0] or saved < PRELOAD_MB[1]:
        return case.fine("preload", f"{evidence}; too little to share")
    title = f"Fork the workers of {spec.name} from a template"
    return case.advise("preload", title, evidence, {"preload": str(Preload.ON)}, f"up to -{saved:,.0f} MiB")


def ttl(case: Case) -> Judgement:
    """Workers that live hardly longer than they load."""
    spec, load = case.spec, case.load_seconds
    if spec.ttl is None:
        return case.none("ttl", "workers have no ttl")
    if load is None:
        return case.too_little("ttl", "no start of this definition has been timed; needs one")
    evidence = f"ttl {spec.ttl:g} s, and a start takes {load:.1f} s"
    if spec.ttl >= LIFE * load:
        return case.fine("ttl", f"{evidence}; advised below {LIFE} times that")
    title = f"Let workers of {spec.name} live longer"
    return case.advise("ttl", title, evidence, {"ttl": float(rounded_up(LIFE * load))})


def max_requests(case: Case) -> Judgement:
    """The same by count, at the present rate."""
    spec, load, rate = case.spec, case.load_seconds, case.served_per_second
    if spec.max_requests is None:
        return case.none("max_requests", "workers have no limit of calls")
    if lack := case.lacks(case.enough.calls, case.enough.seconds):
        return case.too_little("max_requests", lack)
    if load is None or not rate:
        return case.too_little("max_requests", "no start of this definition has been timed; needs one")
    life = spec.max_requests * spec.size / rate
    evidence = f"max_requests {spec.max_requests:,} lasts {life:,.0f} s at {rate:.3g} calls/s; a start takes {load:.1f}"
    if life >= LIFE * load:
        return case.fine("max_requests", evidence)
    title = f"Let workers of {spec.name} serve more calls"
    return case.advise("max_requests", title, evidence, {"max_requests": rounded_up(_calls_worth(case))})


def queue_limit(case: Case) -> Judgement:
    """A queue that is shorter or longer than what can be served within queue_timeout."""
    spec, usage, rate = case.spec, case.usage, case.served_per_second
    if lack := case.lacks(case.enough.calls, case.enough.seconds):
        return case.too_little("queue_limit", lack)
    if not rate:
        return case.too_little("queue_limit", "no call was carried out")
    served = math.ceil(rate * spec.queue_timeout)
    refused, late = usage.refused / usage.answered, usage.timed_out / usage.answered
    within = f"at {rate:.3g} calls/s {served:,} are served within queue_timeout {spec.queue_timeout:g} s"
    if refused >= TURNED_AWAY and spec.queue_limit < served:
        evidence = f"{refused:.0%} of the calls were refused by queue_limit {spec.queue_limit:,}; {within}"
        title = f"Let more calls wait for {spec.name}"
        return case.advise("queue_limit", title, evidence, {"queue_limit": rounded_up(served)})
    if late >= TURNED_AWAY and spec.queue_limit > 2 * served:
        evidence = f"{late:.0%} of the calls timed out in a queue of up to {spec.queue_limit:,}; {within}"
        title = f"Refuse immediately what {spec.name} cannot serve in time"
        return case.advise("queue_limit", title, evidence, {"queue_limit": rounded_up(served)})
    return case.fine("queue_limit", f"{refused:.0%} refused, {late:.0%} timed out; {within}")


def call_timeout(case: Case) -> Judgement:
    """Calls that run into their deadline."""
    spec, usage = case.spec, case.usage
    if lack := case.lacks(case.enough.calls, case.enough.seconds):
        return case.too_little("call_timeout", lack)
    share = usage.overran / usage.answered
    evidence = f"{share:.0%} of the calls did not end by their deadline"
    if share < OVERRAN:
        return case.fine("call_timeout", f"{evidence}; advised from {OVERRAN:.0%}")
    evidence += f" (call_timeout {spec.call_timeout:g} s; if they hang, `snakepit dump` shows where)"
    title = f"Give the calls of {spec.name} more time"
    return case.advise("call_timeout", title, evidence, {"call_timeout": 2 * spec.call_timeout})


def startup(case: Case) -> Judgement:
    """Starts that come close to startup_timeout: the next slow one is killed."""
    spec, load = case.spec, case.load_seconds
    if load is None:
        return case.too_little("startup", "no start of this definition has been timed; needs one")
    evidence = f"a start takes {load:.1f} s of startup_timeout {spec.startup_timeout:g} s"
    if load < STARTS * spec.startup_timeout:
        return case.fine("startup", evidence)
    title = f"Give starts of {spec.name} more time"
    return case.advise("startup", title, evidence, {"startup_timeout": float(rounded_up(3 * load))})


def _calls_worth(case: Case) -> int:
    """Calls that a worker should serve at least, for what its start costs, at the present rate; 1: not known."""
    rate, load = case.served_per_second, case.load_seconds
    return math.ceil(LIFE * load * rate / case.spec.size) if rate and load else 1


def _cpu_lack(case: Case) -> str:
    have = case.usage.cpu_calls
    return f"whether calls compute is not known: {have} calls between samples of CPU time; needs 20"


RULES: dict[str, Callable[[Case], Judgement]] = {
    rule.__name__: rule
    for rule in (queue, idle, leak, gil, threads, preload, ttl, max_requests, queue_limit, call_timeout, startup)
}
