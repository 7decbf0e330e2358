"""`snakepit inspect`: everything that is known of a pool or a worker, and what its numbers advise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.broker.errors import PoolUnknown
from snakepit.pools.cli.operate import pool_of
from snakepit.pools.cli.output import BOLD, UsageError, colour, errors_told, json_line
from snakepit.pools.cli.parameters import AsJson
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.client import Client, connect

if TYPE_CHECKING:
    from snakepit.pools.broker.spec import PoolSpec
    from snakepit.pools.diagnostics.advice import Judgement
    from snakepit.pools.diagnostics.history import History

NOT_KNOWN = "not known"


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    target: Annotated[str, typer.Argument(metavar="POOL|WORKER", help="Empty: every pool.")] = "",
    *,
    detailed: Annotated[bool, typer.Option("--detailed", help="Each worker, each command, growth by command.")] = False,
    recommendations: Annotated[
        bool, typer.Option("--recommendations", help="Every rule's word, with its numbers and the exact change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show capacity, use, waits, memory, history and forecast of pools, and what the numbers advise."""
    with errors_told(as_json):
        found = _inspect(connect(find_address()), target)
    if not recommendations:
        found["judgements"] = [one for one in found["judgements"] or [] if one["verdict"] == "advised"]
    typer.echo(json_line(found) if as_json else "\n".join(lines(found, detailed, recommendations)))


def _inspect(client: Client, target: str) -> dict[str, Any]:
    from snakepit.pools.diagnostics.inspection import inspect_pool

    status = client.status()
    names = [pool["name"] for pool in status["pools"]]
    worker = target if target and target not in names else ""
    pool = pool_of(status, worker) if worker else target
    if worker and worker not in {one["id"] for one in status["workers"]}:
        raise PoolUnknown(f"Neither a pool nor a living worker is named {target!r}.", details={"pools": names})
    specs, pasts, judged, why = _project(status, [pool] if pool else names, worker)
    found = []
    for row in status["pools"]:
        if pool in ("", name := row["name"]):
            mine = [one for one in status["workers"] if one["pool"] == name and worker in ("", one["id"])]
            found.append(inspect_pool(row, mine, client.plan(name), specs.get(name), pasts.get(name)))
    shown = None if judged is None else [_plain(one) for one in judged if pool in ("", one.pool)]
    return {"worker": worker, "pools": found, "judgements": shown, "not_known_because": why}


def _project(
    status: dict[str, Any], pools: list[str], worker: str
) -> tuple[dict[str, PoolSpec], dict[str, History], list[Judgement] | None, str]:
    """What the project's database adds: definitions, history, advice; and why, where it adds nothing."""
    try:
        start_django()
    except UsageError as error:  # a broker's socket alone, without its project
        return {}, {}, None, str(error)
    from django.db import DatabaseError

    from snakepit.pools.diagnostics.applying import definitions, judgements
    from snakepit.pools.diagnostics.history import history

    try:
        return definitions(), {name: history(name, worker) for name in pools}, judgements(status), ""
    except DatabaseError as error:
        return {}, {}, None, f"the database does not answer as it should: {error}"


def _plain(one: Judgement) -> dict[str, Any]:
    from snakepit.pools.diagnostics.applying import settings_line

    shown = {name: value for name, value in asdict(one).items() if name != "advice"}
    advice = one.advice
    return shown | {"advice": advice and {**advice.plain(), "settings_line": settings_line(advice)}}


def lines(found: dict[str, Any], detailed: bool, every: bool) -> Iterator[str]:
    for pool in found["pools"]:
        if not found["worker"]:
            yield colour(f"{pool['pool']}: {pool['state']}", BOLD) + (f", {pool['reason']}" if pool["reason"] else "")
            yield from (f"  {name:<13} {said}" for name, said in _pool(pool))
            yield from (f"  {'warning':<13} {text}" for text in pool["warnings"])
            if detailed:
                yield from (f"  {'command':<13} {text}" for text in map(_command, pool["commands"]))
        for worker in pool["workers"]:
            if detailed or found["worker"]:
                yield from _worker(worker)
    if len(found["pools"]) > 1:
        yield colour("all pools", BOLD) + f": {_total(found['pools'])}"
    if found["not_known_because"]:
        yield f"definitions, history and advice are not known: {found['not_known_because']}"
    yield from _judgements(found["judgements"] or [], every)


def _judgements(judged: list[dict[str, Any]], every: bool) -> Iterator[str]:
    for one in judged:
        if one["advice"]:
            yield f"{colour('advice', BOLD)} {one['pool']}: {one['advice']['sentence']}"
            line = one["advice"]["settings_line"]
            yield f"  in the settings: {line}" if line else f"  id {one['advice']['id']}"
        elif every:
            yield f"{one['verdict']} ({one['rule']}, {one['pool']}): {one['evidence']}"


def _pool(pool: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from snakepit.pools.diagnostics.advice import said_span

    has, use, queue, memory = pool["capacity"], pool["use"], pool["queue"], pool["memory"]
    yield "capacity", f"{has['ready']} of {has['size']} workers ready, {has['free']} of {has['slots']} slots free"
    yield "interpreter", has["interpreter"] or "the broker's own"
    window = f"in {said_span(use['seconds'])}" if use["seconds"] else "no look yet"
    rate = said(use["calls_per_second"], "{:.3g} calls/s")
    yield "use", f"{said(use['busy'], '{:.0%}')} busy, {rate}, {use['answered'] or 0} answers {window}"
    yield "CPU", f"{said(use['cpu_per_call'], '{:.4g} s')} a call, of {use['cpu_calls'] or 0} calls between samples"
    yield "queue", f"{queue['waiting']} of {queue['limit']} wait, the oldest for {queue['oldest_wait']:.2f} s"
    yield "waits", f"p50 {said(queue['wait_p50'], '{:.3g} s')}, p95 {said(queue['wait_p95'], '{:.3g} s')}"
    turned = ("refused", "timed_out", "overran", "lost")
    yield "turned away", ", ".join(f"{name.replace('_', ' ')} {said(queue[name])}" for name in turned)
    growth = memory["growth"] or {}
    grows = said(growth.get("mb_per_1000_calls"), "{:.1f} MiB per 1,000 calls")
    mostly = f", mostly `{growth['mostly']}`" if growth.get("mostly") else ""
    yield "memory", f"{said(memory['mb'], '{:.0f} MiB')}{_spread(memory)}, grows {grows}{mostly}"
    yield "load time", said(pool["load_seconds"], "{:.2f} s")
    if has["profile"] == "thread":
        yield "parallelism", pool["parallelism"]["sentence"] or NOT_KNOWN
    template = pool["template"] or {}
    yield "template", (template.get("state") or NOT_KNOWN) + (f": {template['why']}" if template.get("why") else "")
    past = pool["last_day"]
    yield "last day", NOT_KNOWN if past is None else _past(past)
    yield "next", f"{pool['at_once']} at once if it is recycled now; see: snakepit recycle {pool['pool']} --preview"


def _total(pools: list[dict[str, Any]]) -> str:
    """What all of them have together."""
    has = {name: sum(one["capacity"][name] for one in pools) for name in ("ready", "size", "free", "slots")}
    memory = sum(one["memory"]["mb"] or 0.0 for one in pools) or None
    workers, slots = f"{has['ready']} of {has['size']} workers ready", f"{has['free']} of {has['slots']} slots free"
    return f"{workers}, {slots}, {said(memory, '{:.0f} MiB')}"


def _spread(memory: dict[str, Any]) -> str:
    if memory["mean_mb"] is None:
        return ""
    return f" (a worker {memory['smallest_mb']:.0f} to {memory['largest_mb']:.0f}, {memory['mean_mb']:.0f} on average)"


def _past(past: dict[str, Any]) -> str:
    recycled = ", ".join(f"{count} by {reason}" for reason, count in past["recycled"].items()) or "none"
    failed = f"{past['boot_failures']} failed starts" + (f" ({past['last_failure']})" if past["last_failure"] else "")
    return f"recycled: {recycled}; {past['died']} died at work; {failed}"


def _command(row: dict[str, Any]) -> str:
    recent = f"recently {said(row['recent'], '{:.4g} s')}, on average {said(row['mean'], '{:.4g} s')}"
    above = "above 10 s"
    p95 = f"p95 {'below ' + format(row['p95_below'], 'g') + ' s' if row['p95_below'] else above}"
    return f"{row['command']}: {row['count']} runs, {recent}, {p95}"


def _worker(one: dict[str, Any]) -> Iterator[str]:
    yield f"  {one['id']}: {one['state']}" + (f", {one['reason']}" if one["reason"] else "")
    loaded = said(one["load_seconds"], "{} s")
    yield f"    load {one['load']}/{one['capacity']}, {one['served']} served, loaded in {loaded}"
    hour, calls = said(one["mb_per_hour"], "{:+.1f} MiB"), said(one["mb_per_1000_calls"], "{:+.1f} MiB")
    yield f"    memory {said(one['memory_mb'], '{:.0f} MiB')}; by the hour {hour}, by 1,000 calls {calls}"
    limit = "no limit" if one["memory_limit_mb"] is None else f"limit {one['memory_limit_mb']:g} MiB"
    yield f"    {limit}" + (f", reached in {one['seconds_to_limit']:,.0f} s" if one["seconds_to_limit"] else "")
    until, left = said(one["seconds_until_ttl"], "{:.0f} s", "no limit"), said(one["calls_until_max"], "{}", "no limit")
    yield f"    age: {until}; calls: {left}; if it is recycled now: {one['forecast'] or NOT_KNOWN}"


def said(value: Any, form: str = "{}", nothing: str = NOT_KNOWN) -> str:
    """
    >>> said(0.5, "{:.0%}"), said(None), said(0)
    ('50%', 'not known', '0')
    """
    return nothing if value is None else form.format(value)
