"""`snakepit jobs cancel`, `retry` and `delete`: one action on all jobs that match the filters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.cli.completion import complete_pool
from snakepit.pools.cli.output import Problem, UsageError, json_line, report_errors
from snakepit.pools.cli.parameters import AsJson, Yes
from snakepit.pools.cli.project import start_jobs

State = Annotated[str, typer.Option(help="Only those in this state, such as queued, scheduled or failed.")]
PoolName = Annotated[str, typer.Option(help="Only those of this pool.", autocompletion=complete_pool)]
CommandName = Annotated[str, typer.Option(help="Only those of this command.")]
Owner = Annotated[str, typer.Option(help="Only those of this user.")]
Tag = Annotated[str, typer.Option(help="Only those with this tag.")]
WorkflowId = Annotated[str, typer.Option(help="Only those of this workflow.")]
Since = Annotated[str, typer.Option(help="Created at this time or later, such as 2026-01-31T12:00:00Z.")]
Until = Annotated[str, typer.Option(help="Created before this time.")]
All = Annotated[bool, typer.Option("--all", help="Needed without any filter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count and show the jobs, and change nothing.")]
Reason = Annotated[str, typer.Option(help="Reason, for the audit log.")]

ACTIONS = {
    "cancel": "Cancel all jobs that match: those that wait immediately, those that run within two seconds.",
    "retry": "Queue all jobs again that match and ended without success.",
    "delete": "Delete all jobs that match and have ended, with their output.",
}


def register(group: typer.Typer) -> None:
    for action, text in ACTIONS.items():
        group.command(action)(_command(action, text))


def moment(option: str, text: str) -> Any:
    """A time of the command line; None without one."""
    if not text:
        return None
    from django.utils.dateparse import parse_datetime

    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise UsageError(f"{option} {text!r} is not a time such as 2026-01-31T12:00:00Z")
    return found


def moments(**given: str) -> dict[str, Any]:
    """The times of a submission by the names of its options."""
    return {name: moment(f"--{name.replace('_', '-')}", text) for name, text in given.items()}


def query(since: str = "", until: str = "", **filters: str) -> Any:
    """The JobQuery of the filters of a command line. It needs a started Django."""
    from snakepit.pools.jobs.listing import JobQuery

    begin, end = moment("--since", since), moment("--until", until)
    try:
        return JobQuery(**filters, since=begin, until=end)
    except BadRequest as error:
        raise UsageError(f"--{error.message}") from error


def _command(action: str, text: str) -> Callable[..., None]:
    def command_of_action(
        *, state: State = "", pool: PoolName = "", command: CommandName = "", owner: Owner = "", tag: Tag = "",
        workflow: WorkflowId = "",
        since: Since = "", until: Until = "", every: All = False, dry_run: DryRun = False, yes: Yes = False,
        reason: Reason = "", as_json: AsJson = False,
    ) -> None:  # fmt: skip
        filters = {"state": state, "pool": pool, "command": command, "owner": owner, "tag": tag, "workflow": workflow}
        _act(action, {**filters, "since": since, "until": until}, (every, dry_run, yes, reason, as_json))

    command_of_action.__doc__ = text
    return command_of_action


def _act(action: str, filters: dict[str, str], options: tuple[bool, bool, bool, str, bool]) -> None:
    every, dry_run, yes, reason, as_json = options
    with report_errors(as_json):
        if not every and not any(filters.values()):
            raise UsageError("give at least one filter, or --all to change every job")
        start_jobs()
        from snakepit.pools.cli.operate import name_actor
        from snakepit.pools.jobs import bulk_actions
        from snakepit.pools.operations import job_orders
        from snakepit.pools.operations.orders import Order

        rows = query(**filters).rows()
        found = bulk_actions.preview(action, rows)
        count = f"{found.count:,}{'+' if found.more else ''} job{'' if found.count == 1 else 's'}"
        if dry_run:
            sample = [{"id": str(one.pk), "pool": one.pool, "command": one.command, "state": one.shown_state}
                      for one in found.sample]  # fmt: skip
            if as_json:
                typer.echo(json_line({"action": action, "count": found.count, "more": found.more, "sample": sample}))
            else:
                typer.echo(f"{action}: {count}, none changed")
                for one in sample:
                    typer.echo("  " + "  ".join(one.values()))
            return
        if found.count and not yes:
            if not sys.stdin.isatty():
                raise Problem(f"this would {action} {count}: add --yes, or look first with --dry-run")
            typer.confirm(f"{action.capitalize()} {count}?", abort=True, err=True)
        order = Order(name_actor(), reason, surface="shell")
        done = job_orders.act(action, rows, filters, order, upto=found.upto).done if found.count else 0
        typer.echo(json_line({"action": action, "count": done}) if as_json else f"{done:,} {job_orders.DONE[action]}")
