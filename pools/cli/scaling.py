"""`snakepit scaling`: estimates what this machine can carry for a pool, from measurements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from snakepit.pools.broker.errors import PoolUnknown
from snakepit.pools.cli.output import BOLD, colour, json_line, report_errors
from snakepit.pools.cli.parameters import PATIENCE, AsJson, Pool
from snakepit.pools.cli.project import find_address
from snakepit.pools.cli.units import span
from snakepit.pools.client import connect

if TYPE_CHECKING:
    from snakepit.pools.diagnostics.scaling import ScalingEstimate


def register(app: typer.Typer) -> None:
    app.command("scaling")(scaling)


def scaling(pool: Pool, as_json: AsJson = False) -> None:
    """Estimate what this machine can carry for a pool (workers, threads, calls/s), and which limit binds first."""
    with report_errors(as_json):
        found = _estimate(pool)
    typer.echo(json_line(found.plain()) if as_json else "\n".join(lines(found)))


def _estimate(pool: str) -> ScalingEstimate:
    from snakepit.pools.diagnostics.machine import room_here
    from snakepit.pools.diagnostics.scaling import gather, scale

    address = find_address()
    status = connect(address).status(timeout=PATIENCE)
    names = [one.name for one in status.pools]
    if pool not in names:
        known = ", ".join(names) or "none"
        raise PoolUnknown(f"No pool is named {pool!r}. Known are: {known}.", details={"pool": pool})
    return scale(gather(status, pool, room_here(address, status.node.pid)))


def lines(found: ScalingEstimate) -> Iterator[str]:
    from snakepit.pools.diagnostics.advice import said_span
    from snakepit.pools.diagnostics.scaling import said_rate

    facts = found.facts
    yield f"{colour(facts.pool, BOLD)}: {found.sentence}"
    if facts.node:
        yield f"  {'node':<13} {facts.node}"
    busy = "not known" if facts.busy is None else f"{facts.busy:.0%}"
    wait = "not known" if facts.wait_p95 is None else span(facts.wait_p95)
    rate = said_rate(facts.served / facts.seconds) if facts.seconds else "not measured yet"
    yield (
        f"  {'now':<13} {rate}, {facts.served:,} calls in {said_span(facts.seconds)}, {busy} busy, "
        f"wait p95 {wait}, {facts.ready} of {facts.size} workers ready"
    )
    for limit in found.limits:
        carries = "not known"
        if limit.calls_per_second is not None:
            workers = "" if limit.workers is None else f" with {limit.workers} worker{'s' * (limit.workers != 1)}"
            carries = f"{said_rate(limit.calls_per_second)}{workers}"
        yield f"  {limit.resource:<13} {carries} ({limit.evidence})"
    yield from (f"  {'note':<13} {note}" for note in found.notes)
