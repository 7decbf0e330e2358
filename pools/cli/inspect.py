"""`snakepit inspect`: everything that is known of a pool or a worker, and the advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.broker.errors import PoolUnknown
from snakepit.pools.broker.status import BrokerStatus, as_json
from snakepit.pools.cli import cluster
from snakepit.pools.cli.operate import pool_of
from snakepit.pools.cli.output import BOLD, UsageError, colour, json_line, report_errors
from snakepit.pools.cli.parameters import PATIENCE, AsJson
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.cli.units import duration, span
from snakepit.pools.client import Client, connect
from snakepit.pools.web.type_text import named_types, signature_text

if TYPE_CHECKING:
    from snakepit.pools.broker.spec import PoolSpec
    from snakepit.pools.diagnostics.advice import Judgement
    from snakepit.pools.diagnostics.history import History
    from snakepit.pools.diagnostics.inspection import (
        InspectedCommand,
        InspectedMemory,
        InspectedPool,
        InspectedWorker,
    )

NOT_KNOWN = "not known"


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    target: Annotated[str, typer.Argument(metavar="POOL|WORKER", help="Empty: all pools.")] = "",
    *,
    detailed: Annotated[bool, typer.Option("--detailed", help="Show each worker and each command.")] = False,
    recommendations: Annotated[
        bool, typer.Option("--recommendations", help="Show the result of every rule, not only what is advised.")
    ] = False,
    node: Annotated[str, typer.Option(metavar="NAME", help="The node with this name, not that of this host.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show capacity, utilization, waits, memory, history and forecast of pools, and the advice."""
    with report_errors(as_json):
        found = _inspect(cluster.client_at(node) if node else connect(find_address()), target)
    if not recommendations:
        found = replace(found, judgements=tuple(one for one in found.judgements or () if one.advice))
    typer.echo(json_line(_plain(found)) if as_json else "\n".join(lines(found, detailed, recommendations)))


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one `snakepit inspect` shows. `judgements` is None where the project's database is not known."""

    worker: str  # empty: all workers
    pools: tuple[InspectedPool, ...]
    judgements: tuple[Judgement, ...] | None
    not_known_because: str
    node: str = ""  # whose broker was asked


def _inspect(client: Client, target: str) -> Inspection:
    from snakepit.pools.diagnostics.inspection import inspect_pool

    status = client.status(timeout=PATIENCE)
    names = [pool.name for pool in status.pools]
    worker = target if target and target not in names else ""
    pool = pool_of(status, worker) if worker else target
    if worker and status.worker(worker) is None:
        raise PoolUnknown(f"Neither a pool nor a living worker is named {target!r}.", details={"pools": names})
    known = _project(status, [pool] if pool else names, worker)
    found = []
    for one in status.pools:
        if pool in ("", name := one.name):
            workers = [each for each in status.workers_of(name) if worker in ("", each.id)]
            past = known.histories.get(name)
            spec, plan = known.definitions.get(name), client.plan(name, timeout=PATIENCE)
            found.append(inspect_pool(one, workers, plan, spec, past, client.commands(name, timeout=PATIENCE)))
    judged = known.judgements
    shown = None if judged is None else tuple(one for one in judged if pool in ("", one.pool))
    return Inspection(worker, tuple(found), shown, known.missing, status.node.name)


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """What the project's database adds; `missing` has the reason if it adds nothing."""

    definitions: Mapping[str, PoolSpec] = field(default_factory=dict)
    histories: Mapping[str, History] = field(default_factory=dict)
    judgements: Sequence[Judgement] | None = None
    missing: str = ""


def _project(status: BrokerStatus, pools: list[str], worker: str) -> ProjectFacts:
    try:
        start_django()
    except UsageError as error:  # there is a broker's socket, but no project
        return ProjectFacts(missing=str(error))
    from django.db import DatabaseError

    from snakepit.pools.diagnostics.applying import definitions, judgements
    from snakepit.pools.diagnostics.history import history

    try:
        histories = {name: history(name, worker) for name in pools}
        return ProjectFacts(definitions(), histories, judgements(status))
    except DatabaseError as error:
        return ProjectFacts(missing=f"the database does not answer as it should: {error}")


def _plain(found: Inspection) -> dict[str, Any]:
    """As JSON; each piece of advice with the line to write into the settings."""
    from snakepit.pools.diagnostics.applying import settings_line

    shown: dict[str, Any] = as_json(found)
    for row, one in zip(shown["judgements"] or (), found.judgements or (), strict=True):
        row["advice"] = one.advice and {**one.advice.plain(), "settings_line": settings_line(one.advice)}
    return shown


def lines(found: Inspection, detailed: bool, every: bool) -> Iterator[str]:
    if found.node:
        yield f"node {found.node}"
    for pool in found.pools:
        if not found.worker:
            yield colour(f"{pool.pool}: {pool.state}", BOLD) + (f", {pool.reason}" if pool.reason else "")
            yield from (f"  {name:<13} {text}" for name, text in _pool(pool))
            yield from (f"  {'warning':<13} {text}" for text in pool.warnings)
            if detailed:
                yield from _commands(pool.commands)
        for worker in pool.workers:
            if detailed or found.worker:
                yield from _worker(worker)
    if len(found.pools) > 1:
        yield colour("all pools", BOLD) + f": {_total(found.pools)}"
    if found.not_known_because:
        yield f"definitions, history and advice are not known: {found.not_known_because}"
    yield from _judgements(found.judgements or (), every)


def _judgements(judged: Sequence[Judgement], every: bool) -> Iterator[str]:
    for one in judged:
        if one.advice:
            from snakepit.pools.diagnostics.applying import settings_line

            yield f"{colour('advice', BOLD)} {one.pool}: {one.advice.sentence}"
            line = settings_line(one.advice)
            yield f"  in the settings: {line}" if line else f"  id {one.advice.key}"
        elif every:
            yield f"{one.verdict} ({one.rule}, {one.pool}): {one.evidence}"


def _pool(pool: InspectedPool) -> Iterator[tuple[str, str]]:
    from snakepit.pools.diagnostics.advice import said_span

    has, use, queue, memory = pool.capacity, pool.use, pool.queue, pool.memory
    yield "capacity", f"{has.ready} of {has.size} workers ready, {has.free} of {has.slots} slots free"
    yield "interpreter", has.interpreter or "the broker's own"
    rate = or_unknown(use.calls_per_second, "{:.3g} calls/s")
    used = f"{or_unknown(use.busy, '{:.0%}')} busy, {rate}, {use.answered} answers in {said_span(use.seconds)}"
    yield "use", used if use.seconds else "not measured yet"
    measured = "" if use.cpu_per_call is None else f" a call, measured on {use.cpu_calls} calls"
    yield "CPU", span_or_unknown(use.cpu_per_call) + measured
    yield "queue", f"{queue.waiting} of {queue.limit} wait, the oldest for {span(queue.oldest_wait)}"
    yield "waits", f"p50 {span_or_unknown(queue.wait_p50)}, p95 {span_or_unknown(queue.wait_p95)}"
    yield (
        "problems",
        f"queue full {queue.refused}, not admitted {queue.not_admitted}, timed out {queue.timed_out}, "
        f"overran {queue.overran}, lost {queue.lost}",
    )
    growth = memory.growth
    grows = or_unknown(growth.mb_per_1000_calls, "{:.1f} MiB per 1,000 calls")
    mostly = f", mostly `{growth.mostly}`" if growth.mostly else ""
    yield "memory", f"{or_unknown(memory.mb, '{:.0f} MiB')}{_spread(memory)}, growth {grows}{mostly}"
    if memory.buffer_mb:
        yield "shared memory", f"{memory.buffer_mb:.1f} MiB of arguments of calls that wait or run"
    yield "load time", span_or_unknown(pool.load_seconds)
    for batch in pool.batches:
        yield "batches", f"{batch.command}: {batch}"
    if has.profile == "thread":
        yield "parallelism", pool.parallelism.sentence or NOT_KNOWN
    template = pool.template
    yield "template", (template.state or NOT_KNOWN) + (f": {template.why}" if template.why else "")
    yield "last day", NOT_KNOWN if pool.last_day is None else _past(pool.last_day)
    yield "next", f"a recycle replaces {pool.at_once} at a time; see: snakepit recycle {pool.pool} --preview"


def _total(pools: Sequence[InspectedPool]) -> str:
    """All pools together."""
    has = [one.capacity for one in pools]
    workers = f"{sum(one.ready for one in has)} of {sum(one.size for one in has)} workers ready"
    slots = f"{sum(one.free for one in has)} of {sum(one.slots for one in has)} slots free"
    memory = sum(one.memory.mb or 0.0 for one in pools) or None
    return f"{workers}, {slots}, {or_unknown(memory, '{:.0f} MiB')}"


def _spread(memory: InspectedMemory) -> str:
    if memory.mean_mb is None:
        return ""
    return f" (a worker {memory.smallest_mb:.0f} to {memory.largest_mb:.0f}, {memory.mean_mb:.0f} on average)"


def _past(past: History) -> str:
    recycled = ", ".join(f"{count} by {reason}" for reason, count in past.recycled.items()) or "none"
    failed = f"{past.boot_failures} failed starts" + (f" ({past.last_failure})" if past.last_failure else "")
    return f"recycled: {recycled}; {past.died} died at work; {failed}"


def _commands(commands: Sequence[InspectedCommand]) -> Iterator[str]:
    """Each command with its types and run times; the types that it names are on lines of their own."""
    for one in commands:
        yield f"  {'command':<13} {_command(one)}"
        if one.info:
            types = (*named_types(one.info.arguments), *named_types(one.info.result))
            yield from (f"  {'':<13}   {line}" for line in (signature_text(one.info), *dict.fromkeys(types)))


def _command(one: InspectedCommand) -> str:
    if not one.count:
        return f"{one.command}: no runs"
    recent = f"recently {span_or_unknown(one.recent)}, on average {span_or_unknown(one.mean)}"
    p95 = f"below {span(one.p95_below)}" if one.p95_below else "above 10 s"
    return f"{one.command}: {one.count} runs, {recent}, p95 {p95}"


def _worker(one: InspectedWorker) -> Iterator[str]:
    yield f"  {one.id}: {one.state}" + (f", {one.reason}" if one.reason else "")
    loaded = span_or_unknown(one.load_seconds)
    yield f"    load {one.load}/{one.capacity}, {one.served} served, loaded in {loaded}"
    hour, calls = or_unknown(one.mb_per_hour, "{:+.1f} MiB"), or_unknown(one.mb_per_1000_calls, "{:+.1f} MiB")
    yield f"    memory {or_unknown(one.memory_mb, '{:.0f} MiB')}; by the hour {hour}, by 1,000 calls {calls}"
    if one.sandbox:
        yield f"    sandbox: closed: {one.sandbox}"
    limit = "no limit" if one.memory_limit_mb is None else f"limit {one.memory_limit_mb:g} MiB"
    yield f"    {limit}" + (f", reached in {duration(one.seconds_to_limit)}" if one.seconds_to_limit else "")
    until, left = (
        "no limit" if one.seconds_until_ttl is None else duration(one.seconds_until_ttl),
        or_unknown(one.calls_until_max, "{}", "no limit"),
    )
    yield f"    age: {until}; calls: {left}; if it is recycled now: {one.forecast or NOT_KNOWN}"


def or_unknown(value: Any, form: str = "{}", nothing: str = NOT_KNOWN) -> str:
    """
    >>> or_unknown(0.5, "{:.0%}"), or_unknown(None), or_unknown(0)
    ('50%', 'not known', '0')
    """
    return nothing if value is None else form.format(value)


def span_or_unknown(seconds: float | None) -> str:
    """
    >>> span_or_unknown(0.0321), span_or_unknown(None)
    ('32 ms', 'not known')
    """
    return NOT_KNOWN if seconds is None else span(seconds)
