"""The doctor's checks of this machine and of the pools' interpreters and adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from snakepit.pools.broker.placement import nodes_text
from snakepit.pools.broker.status import NOT_READ, PoolStatus
from snakepit.pools.diagnostics.checks import (
    Check,
    api_keys,
    beat,
    beat_entries,
    broker,
    clocks,
    consumer_pools,
    consumers,
    database,
    duplicates,
    migrations,
    ok,
    overdue,
    problem,
    production,
    settings,
    skipped,
    transport,
    warning,
)
from snakepit.pools.diagnostics.facts import (
    AdapterFacts,
    InterpreterFacts,
    MachineFacts,
    PoolFacts,
    RuntimeFacts,
    SystemFacts,
    Unknown,
)
from snakepit.pools.diagnostics.finding import Finding
from snakepit.pools.diagnostics.network_checks import client_certificate, network
from snakepit.pools.diagnostics.placement_checks import placement

Known = TypeVar("Known", InterpreterFacts, AdapterFacts)

LONGEST_SOCKET = 107  # bytes of a Unix socket's path on Linux
LITTLE_ROOM = 1024 * 2**20  # bytes free
FILES_EACH = 12  # descriptors that a broker holds for one worker
FILES_BASE = 128
LITTLE_MEMORY = 0.1  # share that should be free
THROTTLED = 0.1  # share of periods


def runtime(facts: SystemFacts) -> Iterator[Finding]:
    """The broker's directory belongs to its user alone, and its sockets fit into it."""
    known = facts.runtime
    if isinstance(known, Unknown):
        yield skipped("runtime directory", known.reason)
        return
    place = known.directory
    if known.longest_socket > LONGEST_SOCKET:
        yield problem(
            "runtime directory",
            f"the path of a socket in {place.path} would have {known.longest_socket} bytes, {LONGEST_SOCKET} fit",
            'Set SNAKEPIT["RUNTIME_DIR"] to a shorter one.',
        )
    if not place.exists:
        yield skipped("runtime directory", f"{place.path} does not exist yet; the broker creates it")
        return
    wrong = list(_wrong_modes(known))
    for evidence, fix in wrong:
        yield problem("runtime directory", evidence, fix)
    if known.socket.exists and isinstance(facts.broker, Unknown) and not facts.broker.silent:
        yield warning(
            "runtime directory",
            f"{known.socket.path} exists, but no broker answers at it",
            "A broker that crashed left it; the next one removes it.",
        )
    if not wrong:
        yield ok("runtime directory", f"{place.path}, mode {place.mode:04o}")


def _wrong_modes(known: RuntimeFacts) -> Iterator[tuple[str, str]]:
    place = known.directory
    if place.kind != "directory":
        yield f"{place.path} is no directory", f"rm {place.path}"
    if place.owner != known.user:
        yield f"{place.path} belongs to user {place.owner}, not {known.user}", f"chown it, or rm -r {place.path}"
    if place.mode & 0o077:
        yield f"{place.path} is open to others (mode {place.mode:04o})", f"chmod 700 {place.path}"
    for one in (known.socket, known.token):
        if one.exists and one.mode & 0o077:
            yield f"{one.path} is open to others (mode {one.mode:04o})", f"chmod 600 {one.path}"


def disk(facts: SystemFacts) -> Iterator[Finding]:
    """There is room for the database, sockets and scratch files."""
    if isinstance(facts.runtime, Unknown):
        yield skipped("disk", facts.runtime.reason)
        return
    for room in facts.runtime.rooms:
        unit, size = ("GiB", 2**30) if room.total >= 2**30 else ("MiB", 2**20)
        evidence = f"{room.path}: {room.free / size:.1f} {unit} free of {room.total / size:.1f}"
        if room.is_full:
            evidence += f", {room.inodes_free:,} inodes free"
            yield problem("disk", evidence, "Free space: the database cannot grow.")
        elif room.free < LITTLE_ROOM:
            yield warning("disk", evidence, "Free space soon.")
        else:
            yield ok("disk", evidence)


def limits(facts: SystemFacts) -> Iterator[Finding]:
    """Files, processes, memory and CPU suffice for the pools."""
    known = facts.machine
    if isinstance(known, Unknown):
        yield skipped("limits", known.reason)
        return
    pools = () if isinstance(facts.pools, Unknown) else facts.pools
    workers = sum(pool.size for pool in pools if pool.enabled and pool.here)
    threads = sum(pool.size * (pool.slots + 4) for pool in pools if pool.enabled and pool.here)
    wanted = FILES_BASE + FILES_EACH * workers
    if known.open_files is not None and known.open_files < wanted:
        yield problem(
            "limits",
            f"{known.of} may open {known.open_files} files; {workers} workers need {wanted}",
            f"ulimit -n {max(4096, wanted)}, or LimitNOFILE= in the systemd unit.",
        )
    yield from _process_limits(known, threads)
    yield from _memory(known)
    if known.cgroup_throttled > THROTTLED:
        yield warning(
            "limits",
            f"the CPU quota throttled it in {known.cgroup_throttled:.0%} of the periods",
            "Raise cpu.max, or have fewer workers and threads.",
        )
    cores = f"{known.cores} cores" + (f" (quota {known.cgroup_cores:g})" if known.cgroup_cores else "")
    files = "no limit of open files" if known.open_files is None else f"{known.open_files} open files"
    yield ok("limits", f"{known.of}: {files}, {cores}, {workers} workers defined")


def _process_limits(known: MachineFacts, threads: int) -> Iterator[Finding]:
    pairs = (
        (known.processes, known.processes_now, "ulimit -u, or LimitNPROC= in the systemd unit"),
        (known.cgroup_processes, known.cgroup_processes_now, "pids.max of the cgroup (docker run --pids-limit)"),
    )
    for limit, now, where in pairs:
        if limit is not None and limit - now < threads:
            yield problem(
                "limits",
                f"{now} of {limit} processes and threads exist; the pools need up to {threads}",
                f"Raise {where}.",
            )


def _memory(known: MachineFacts) -> Iterator[Finding]:
    if known.cgroup_oom_kills:
        yield warning(
            "limits",
            f"the kernel has killed {known.cgroup_oom_kills} processes of this cgroup for memory",
            "Give the pools memory_soft_mb and memory_hard_mb, or raise memory.max.",
        )
    if known.cgroup_memory_mb is not None:
        free = 1 - known.cgroup_memory_used_mb / known.cgroup_memory_mb
        evidence = f"{known.cgroup_memory_used_mb:.0f} of {known.cgroup_memory_mb:.0f} MiB of the cgroup are used"
    else:
        free = known.memory_available_mb / known.memory_total_mb if known.memory_total_mb else 1.0
        evidence = f"{known.memory_available_mb:.0f} of {known.memory_total_mb:.0f} MiB are available"
    if free < LITTLE_MEMORY:
        yield warning("limits", evidence, "Reduce the workers, set memory limits on the pools, or add memory.")


def orphans(facts: SystemFacts) -> Iterator[Finding]:
    """No worker outlived its broker."""
    if isinstance(facts.machine, Unknown):
        yield skipped("orphans", facts.machine.reason)
    elif facts.machine.orphans:
        pids = " ".join(map(str, facts.machine.orphans))
        yield problem("orphans", f"workers of a broker that is gone still run: {pids}", f"kill -9 {pids}")
    else:
        yield ok("orphans", "no worker without a broker")


def greenlets(facts: SystemFacts) -> Iterator[Finding]:
    """No web server or Celery worker of the project runs on gevent or eventlet."""
    if isinstance(facts.machine, Unknown):
        yield skipped("greenlets", facts.machine.reason)
        return
    for pid, library, command in facts.machine.greenlets:
        yield problem(
            "greenlets",
            f"process {pid} has loaded {library}, where calls, the REST API and jobs do not work: {command}",
            "Use threads: gunicorn -k gthread, or celery -P threads (docs/reference/servers.md).",
        )
    if not facts.machine.greenlets:
        yield ok("greenlets", "no web server or Celery worker of this project has loaded gevent or eventlet")


def interpreters(facts: SystemFacts) -> Iterator[Finding]:
    """Each pool's interpreter runs, is new enough, and has what a worker needs."""
    yield from _of_pools("interpreter", facts, lambda pool: pool.interpreter, _interpreter)


def _interpreter(pool: PoolFacts, known: InterpreterFacts) -> Finding:
    if known.error:
        return problem(
            "interpreter",
            known.error,
            "Correct it; `snakepit pythons` lists the interpreters.",
            pool.name,
        )
    return ok("interpreter", known.about, pool.name)


def adapters(facts: SystemFacts) -> Iterator[Finding]:
    """Each pool's adapter can be imported by its interpreter, and fits its profile."""
    yield from _of_pools("adapter", facts, lambda pool: pool.adapter, _adapter)


def _adapter(pool: PoolFacts, known: AdapterFacts) -> Finding:
    if known.error:
        return problem(
            "adapter",
            f"{known.path} cannot be imported: {known.error}",
            "Fix the import, or install what it needs in the pool's interpreter.",
            pool.name,
        )
    if pool.profile == "thread" and not known.thread_safe:
        return problem(
            "adapter",
            f"{known.path} does not set `thread_safe = True`, and the pool has the thread profile",
            'Make it thread-safe and set thread_safe, or give the pool profile "process".',
            pool.name,
        )
    return ok("adapter", f"{known.path}: {known.commands} commands", pool.name)


def _of_pools(
    check: str,
    facts: SystemFacts,
    known: Callable[[PoolFacts], Known | Unknown],
    judge: Callable[[PoolFacts, Known], Finding],
) -> Iterator[Finding]:
    """One finding for each enabled pool: from the judge, or skipped where its facts are unknown."""
    if isinstance(facts.pools, Unknown):
        yield skipped(check, facts.pools.reason)
        return
    for pool in facts.pools:
        if pool.enabled and pool.here and not pool.problem:
            found = known(pool)
            yield skipped(check, found.reason, pool.name) if isinstance(found, Unknown) else judge(pool, found)


def _not_running(facts: SystemFacts, pool: str) -> Finding:
    if not isinstance(facts.broker, Unknown) and any(one.startswith(NOT_READ) for one in facts.broker.node.problems):
        return skipped("pool", "the broker has not read its definition yet", pool)
    return problem("pool", "the broker does not run it", "Look at the broker's log.", pool)


def pools(facts: SystemFacts) -> Iterator[Finding]:
    """Each pool runs as its definition says."""
    if isinstance(facts.pools, Unknown):
        yield skipped("pool", facts.pools.reason)
        return
    if not facts.pools:
        yield skipped("pool", "no pool has a row; the broker writes those of the settings when it starts")
    running = None if isinstance(facts.broker, Unknown) else {one.name: one for one in facts.broker.pools}
    for pool in facts.pools:
        status = (running or {}).get(pool.name)
        if pool.problem and status:
            yield warning(
                "pool",
                f"{pool.problem}, but the broker runs it: its settings are not those of this process",
                "Ask with the broker's settings and environment (for the demo: SNAKEPIT_DEMO=1).",
                pool.name,
            )
        elif pool.problem:
            yield problem("pool", pool.problem, "Correct its definition, in the settings or in the admin.", pool.name)
        elif not pool.enabled:
            yield skipped("pool", "it is not enabled", pool.name)
        elif not pool.here:
            yield skipped("pool", f"it lives on other nodes: {nodes_text(pool.nodes)}", pool.name)
        elif running is None:
            yield skipped("pool", "the broker does not answer", pool.name)
        elif status is None:
            yield _not_running(facts, pool.name)
        else:
            yield from _running(status)


def _running(pool: PoolStatus) -> Iterator[Finding]:
    if pool.state == "failed":
        fix = "Fix the cause: `snakepit status` has the worker's last lines. The broker starts workers again by itself."
        yield problem("pool", f"failed: {pool.reason}", fix, pool.name)
    elif pool.state == "degraded" and pool.ready >= pool.size:
        fix = "Fix the cause: `snakepit status` has the reason. The broker starts workers again by itself."
        yield warning("pool", f"degraded: {pool.reason}", fix, pool.name)
    elif pool.state not in ("ready", "paused"):
        yield warning("pool", f"{pool.state}: {pool.reason or 'workers start'}", "Wait, then look again.", pool.name)
    else:
        yield ok("pool", f"{pool.state}, {pool.ready} of {pool.size} workers", pool.name)
        for text in pool.warnings:
            yield warning("pool", text, _fix_of(text, pool), pool.name)


def _fix_of(text: str, pool: PoolStatus) -> str:
    """What to do about a warning of the broker."""
    if pool.races and any(f"`{name}`" in text for name in pool.races):
        return "It is the adapter's own code: guard these writes with @locked, or keep the state in self.local."
    if pool.template.why and pool.template.why in text:
        return "Move what prevents the fork out of preload(), or set preload to off (docs/howto/preload.md)."
    return f"`snakepit compat {pool.name}` lists the library that causes it."


def fast_path(facts: SystemFacts) -> Iterator[Finding]:
    """Streams take the fast path for HTTP/2 frames, or it is switched off."""
    known = facts.fast_path
    if isinstance(known, Unknown):
        yield skipped("fast path", known.reason)
    elif known.problem:
        yield warning(
            "fast path",
            f"its self-check fails with {known.problem}; calls take about twice the time, and every call works",
            "Install versions of grpclib and h2 that the release supports (docs/explanation/dependencies.md).",
        )
    elif known.switched_on:
        yield ok("fast path", f"its self-check passes with {known.versions}")
    else:
        yield ok("fast path", "SNAKEPIT_FAST_PATH is 0: it is switched off")


# In the order of causes: an earlier finding may explain a later one.
CHECKS: tuple[Check, ...] = (
    settings, production, runtime, disk, limits, orphans, greenlets,
    database, migrations, clocks,
    broker, network, client_certificate, duplicates,
    beat, beat_entries, transport, consumers, consumer_pools, overdue, fast_path,
    interpreters, adapters, pools, placement, api_keys,
)  # fmt: skip
