"""`snakepit periodic`: lists periodic jobs with their next runs, runs one now, pauses and resumes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.cli.output import json_line, report_errors, terminal
from snakepit.pools.cli.parameters import AsJson
from snakepit.pools.cli.project import start_django, start_jobs
from snakepit.pools.cli.tables import NARROW, fitted

if TYPE_CHECKING:
    from snakepit.pools.models import PeriodicJob
    from snakepit.pools.operations.orders import Order

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the periodic job, as `snakepit periodic list`.")]
Reason = Annotated[str, typer.Option(help="Why; stored in the audit log.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Periodic jobs: list, run now, pause and resume.", no_args_is_help=True)
    group.command("list")(list_periodic)
    group.command()(run)
    group.command()(pause)
    group.command()(resume)
    app.add_typer(group, name="periodic")


def list_periodic(as_json: AsJson = False) -> None:
    """List the periodic jobs with their next and last runs, in UTC."""
    with report_errors(as_json):
        start_django()
        from snakepit.pools.models import PeriodicJob

        found = [plain(row) for row in PeriodicJob.objects.all()]
        if as_json:
            typer.echo(json_line(found))
        else:
            _table(found)


def run(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Submit its job once, beside the schedule, and print the job's id."""
    with report_errors(as_json):
        start_jobs()
        from snakepit.pools.cli.jobs import brief
        from snakepit.pools.operations import periodic_orders

        job = periodic_orders.run(name, _order(reason))
        typer.echo(json_line(brief(job)) if as_json else str(job.pk))


def pause(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Submit nothing until a resume. Times that pass meanwhile are not missed runs."""
    with report_errors(as_json):
        start_django()
        from snakepit.pools.operations import periodic_orders

        _show(periodic_orders.pause(name, _order(reason)), as_json)


def resume(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Go on with the next time of the schedule."""
    with report_errors(as_json):
        start_django()
        from snakepit.pools.operations import periodic_orders

        _show(periodic_orders.resume(name, _order(reason)), as_json)


def plain(row: PeriodicJob) -> dict[str, Any]:
    """A periodic job as programs read it."""
    names = ("name", "pool", "command", "cron", "time_zone", "interval", "enabled", "misfire", "owner", "problem")
    times = {name: getattr(row, name) for name in ("next_run", "last_run")}
    return {
        **{name: getattr(row, name) for name in names},
        **{name: value.isoformat() if value else None for name, value in times.items()},
        "next_runs": [moment.isoformat() for moment in row.next_runs()],
        "last_job": str(row.last_job) if row.last_job else None,
        "schedule": row.schedule,
    }


def _order(reason: str) -> Order:
    from snakepit.pools.cli.operate import name_actor
    from snakepit.pools.operations.orders import Order

    return Order(name_actor(), reason, surface="shell")


def _show(row: PeriodicJob, as_json: bool) -> None:
    shown = plain(row)
    until = f"next run {_short(shown['next_run'])} UTC" if row.enabled else "paused"
    typer.echo(json_line(shown) if as_json else f"{row.name}: {until}")


def _short(moment: str | None) -> str:
    return (moment or "")[:19].replace("T", " ")


def _table(found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    columns: dict[str, list[str | Text]] = {
        "name": [Text(one["name"]) for one in found],
        "command": [Text(f"{one['pool']}.{one['command']}") for one in found],
        "schedule": [Text(one["schedule"]) for one in found],
        "next run": [_short(one["next_run"]) if one["enabled"] else "paused" for one in found],
        "last run": [_short(one["last_run"]) for one in found],
        "problem": [Text(one["problem"], "red") for one in found],
    }
    console = terminal(width=None if sys.stdout.isatty() else NARROW + 60, highlight=False)
    console.print(fitted(console, columns, less=("last run", "schedule", "problem")))
