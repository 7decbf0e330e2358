"""`snakepit submit`, `jobs`, `job`, `cancel` and `retry`: durable jobs from a shell, through the database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.broker.errors import BadRequest, BrokerError, from_code
from snakepit.pools.broker.text import one_line
from snakepit.pools.cli import job_lists, job_selection
from snakepit.pools.cli.call import read_arguments, read_lines
from snakepit.pools.cli.completion import complete_job
from snakepit.pools.cli.output import PROBLEM, Problem, UsageError, json_line, print_value, report_errors, terminal
from snakepit.pools.cli.parameters import Arguments, AsJson, Command, Pool, Priority
from snakepit.pools.cli.project import start_django, start_jobs
from snakepit.pools.cli.tables import NARROW, fitted, short_id

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from snakepit.pools.models import Job, JobEntry
    from snakepit.pools.operations.orders import Order

ERROR = 60  # characters of an error in a list
SHORT = 40  # characters of the arguments in a list
POLL = 0.25  # seconds between two reads of a job
STYLES = {"succeeded": "green", "running": "cyan", "failed": "bold red", "lost": "bold red", "quarantined": "bold red"}
BRIEF = (
    "pool",
    "command",
    "state",
    "attempts",
    "priority",
    "run_after",
    "expires",
    "snoozes",
    "progress",
    "error",
    "created_at",
    "finished_at",
)

UniqueBy = Annotated[list[str] | None, typer.Option(help="Argument that must be equal; may be repeated. [all]")]
UniquePeriod = Annotated[float | None, typer.Option(min=0.001, help="Count jobs of the last so many seconds only.")]
UniqueState = Annotated[
    list[str] | None, typer.Option(help="State in which a job counts; may be repeated. [those that wait or run]")
]
After = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="Wait for this job, by its id or its end; may be repeated.")
]
Deadline = Annotated[str, typer.Option(help="Fail it if it has not ended by this time.")]
Attempts = Annotated[int | None, typer.Option(min=1, max=100, help="Failed attempts at most. [JOBS_MAX_ATTEMPTS]")]
Backoff = Annotated[
    float | None, typer.Option(min=0, max=3600, help="Seconds before the second attempt. [JOBS_BACKOFF]")
]
Retry = Annotated[str, typer.Option(help="Failed attempts that are repeated: never, safe, lost or always.")]
Retention = Annotated[int | None, typer.Option(min=0, help="Seconds that it is kept after its end. [JOBS_RETENTION]")]
OnFailure = Annotated[str, typer.Option(help="If such a job ends without success: cancel or run.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its end.", autocompletion=complete_job)]


def register(app: typer.Typer) -> None:
    for command in (submit, job, cancel, retry):
        app.command()(command)
    group = typer.Typer(help="List jobs, newest first, or change all that match a filter.")
    group.callback(invoke_without_command=True)(jobs)
    job_selection.register(group)
    job_lists.register(group)
    app.add_typer(group, name="jobs")


def submit(
    pool: Pool,
    command: Command,
    arguments: Arguments = "{}",
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it ends and print its result.")] = False,
    priority: Priority = 0,
    run_after: Annotated[str, typer.Option(help="Not before this time, such as 2026-01-31T12:00:00Z.")] = "",
    expires: Annotated[str, typer.Option(help="Cancel it if it has not begun by this time.")] = "",
    deadline: Deadline = "",
    key: Annotated[str, typer.Option(help="Idempotency key: a second submit with it returns the first job.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Tag of the job; may be repeated.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds for one attempt.")] = None,
    retry: Retry = "lost",
    max_attempts: Attempts = None,
    backoff: Backoff = None,
    retention: Retention = None,
    unique: Annotated[bool, typer.Option("--unique", help="Print an equal job if one waits or runs.")] = False,
    unique_by: UniqueBy = None,
    unique_period: UniquePeriod = None,
    unique_state: UniqueState = None,
    after: After = None,
    on_failure: OnFailure = "cancel",
    file: Annotated[str, typer.Option(help="Submit a job for each line of this file (-: stdin), JSON arguments.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store a job and print its id. It runs even if all processes are killed in between.

    With --file, all jobs are stored or none, and line N has the idempotency key KEY:N.
    """
    with report_errors(as_json):
        options: dict[str, Any] = {
            **job_selection.moments(run_after=run_after, expires=expires, deadline=deadline), "priority": priority,
            "depends_on": [_find(one).pk for one in after or ()], "on_failure": on_failure, "retention": retention,
            "retry": retry, "tags": tag or [], "timeout": timeout, "max_attempts": max_attempts, "backoff": backoff,
        }  # fmt: skip
        names, states = unique_by or None, unique_state or None
        same = {"unique": unique, "unique_period": unique_period, "unique_by": names, "unique_states": states}
        if file:
            if wait or arguments != "{}":
                raise UsageError("--file takes neither ARGUMENTS nor --wait: its lines are the arguments")
            return _submit_lines(pool, command, read_lines(file), key, {**options, **same}, as_json)
        values = read_arguments(arguments)
        row = _store(pool, command, values, key, {**options, **same})
        _end(_follow(row, _bar), as_json) if wait else _show_stored(row, as_json)


def _store(pool: str, command: str, arguments: Mapping[str, Any], key: str, options: dict[str, Any]) -> Any:
    start_jobs()
    from snakepit.pools.jobs import submit
    from snakepit.pools.jobs.unique import from_parts
    from snakepit.pools.web.errors import all_or_nothing

    options["unique"] = from_parts(options)
    with all_or_nothing():
        return submit(pool, command, arguments, idempotency_key=key, **options)


def _show_stored(row: Any, as_json: bool) -> None:
    shown = {**brief(row), "created": not row.existed}
    typer.echo(json_line(shown) if as_json else str(row.pk))


def _submit_lines(
    pool: str, command: str, rows: Sequence[Mapping[str, Any]], key: str, options: dict[str, Any], as_json: bool
) -> None:
    start_jobs()
    from snakepit.pools.jobs import submit_many
    from snakepit.pools.jobs.bulk import on_line
    from snakepit.pools.jobs.unique import from_parts
    from snakepit.pools.web.errors import all_or_nothing

    options["unique"] = from_parts(options)
    keys = [f"{key}:{number}" for number in range(1, len(rows) + 1)] if key else None
    try:
        with all_or_nothing():
            found = submit_many(pool, command, rows, idempotency_keys=keys, **options)
    except BrokerError as error:
        raise on_line(error) from None
    ids = [str(one.pk) for one in found]
    created = len({one.pk for one in found if not one.existed})
    typer.echo(json_line({"ids": ids, "count": len(ids), "created": created}) if as_json else "\n".join(ids))


def jobs(
    context: typer.Context,
    *,
    state: job_selection.State = "",
    pool: job_selection.PoolName = "",
    command: job_selection.CommandName = "",
    owner: job_selection.Owner = "",
    tag: job_selection.Tag = "",
    since: job_selection.Since = "",
    until: job_selection.Until = "",
    arguments: job_lists.Contents = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with report_errors(as_json):
        filters = {"state": state, "pool": pool, "command": command, "owner": owner, "tag": tag}
        if context.invoked_subcommand:
            if as_json or since or until or arguments or any(filters.values()):
                raise UsageError(f"write the filters after the action: snakepit jobs {context.invoked_subcommand} ...")
            return
        start_django()
        from snakepit.pools.jobs.listing import page

        try:
            wanted = job_selection.query(since, until, **filters, arguments=arguments).rows()
        except UsageError:
            raise
        except BadRequest as error:
            raise UsageError(f"--{error.message}") from error
        rows, _ = page(wanted, limit)
        found = [{**brief(row), "owner": row.owner, "arguments_short": row.arguments_short} for row in rows]
        if as_json:
            typer.echo(json_line(found))
        else:
            _list(found)


def job(
    job_id: JobId,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Print its events until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job; with --follow, its events and its result. Exits with 1 if it ended without success."""
    with report_errors(as_json):
        row = _find(job_id)
        if follow:
            _end(_follow(row, _lines), as_json)
            return
        from snakepit.pools.jobs import waiting

        waiting.explain(row)
        whole = {
            **brief(row),
            "waits_for": row.waits_for,
            "depends_on": list(row.depends_on),
            "arguments": row.arguments,
            "result": row.value,
            "attempts_made": _attempts(row),
        }
        if as_json:
            typer.echo(json_line(whole))
        else:
            print_value(whole)
        if row.ended and row.state != "succeeded":
            raise typer.Exit(PROBLEM)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job: immediately if it waits, within two seconds if it runs."""
    with report_errors(as_json):
        row = _find(job_id)
        from snakepit.pools.operations.orders import cancel_job

        row = cancel_job(row.pk, _order())
        asked = row.state == "running" and row.cancel_requested
        typer.echo(json_line(brief(row)) if as_json else f"{row.pk} {'is being cancelled' if asked else row.state}")


def retry(job_id: JobId, as_json: AsJson = False) -> None:
    """Queue a job again that ended without success."""
    with report_errors(as_json):
        row = _find(job_id)
        from snakepit.pools.operations.orders import retry_job

        row = retry_job(row.pk, _order())
        typer.echo(json_line(brief(row)) if as_json else f"{row.pk} {row.state}")


def _order() -> Order:
    from snakepit.pools.cli.operate import name_actor
    from snakepit.pools.operations.orders import Order

    return Order(name_actor(), surface="shell")


def brief(row: Job) -> dict[str, Any]:
    """A job as programs read it."""
    shown = {
        "id": str(row.pk),
        **{name: getattr(row, name) for name in BRIEF},
        "state": row.shown_state,
        "tags": row.tag_list,
    }
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in shown.items()}


def _attempts(row: Job) -> list[dict[str, Any]]:
    names = ("number", "outcome", "worker", "node", "claimed_by", "evidence")
    return [{name: getattr(one, name) for name in names} for one in row.tries.order_by("number")]


def _find(text: str) -> Job:
    start_jobs()
    from snakepit.pools.models import Job

    tail = text.strip().replace("-", "").lower()
    if not tail or not all(sign in "0123456789abcdef" for sign in tail) or len(tail) > 32:
        raise UsageError(f"{text!r} is not the id of a job")
    if len(tail) == 32:
        import uuid

        found = list(Job.objects.filter(pk=uuid.UUID(tail)))
    else:
        recent = Job.objects.only("pk").order_by("-pk")[:10_000]
        found = [Job.objects.get(pk=one.pk) for one in recent if one.pk.hex.endswith(tail)][:2]
    if len(found) != 1:
        raise Problem(f"{'No job' if not found else 'More than one job'} has the id {text}; see: snakepit jobs")
    return found[0]


def _follow(row: Job, show: Callable[[Iterator[JobEntry]], None]) -> Job:
    """Show the events of a job until it ends; returns the ended job."""
    from snakepit.pools.models import Job, JobEntry

    def entries() -> Iterator[JobEntry]:
        last = 0
        while True:
            now = Job.objects.only("state").get(pk=row.pk)
            for entry in JobEntry.objects.filter(job_id=row.pk, seq__gt=last).order_by("seq"):
                last = entry.seq
                yield entry
            if now.ended:
                return
            time.sleep(POLL)

    show(entries())
    return Job.objects.get(pk=row.pk)


def _lines(entries: Iterator[JobEntry]) -> None:
    for entry in entries:
        if entry.kind == "chunk":
            typer.echo(json_line(entry.data))
            sys.stdout.flush()
        else:
            typer.echo(_text(entry), err=True)


def _bar(entries: Iterator[JobEntry]) -> None:
    """Show progress as a bar on a terminal; elsewhere print only the result."""
    if not sys.stderr.isatty():
        for _ in entries:
            pass
        return
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=terminal(stderr=True), transient=True) as bar:
        task = bar.add_task("waiting", total=1.0)
        for entry in entries:
            data: dict[str, Any] = entry.data or {}
            if entry.kind == "progress":
                bar.update(task, completed=data["fraction"], description=escape(data["message"]))
            elif entry.kind == "log":
                bar.console.print(data["message"], markup=False, highlight=False)


def _text(entry: JobEntry) -> str:
    data: dict[str, Any] = entry.data or {}
    if entry.kind == "progress":
        return f"{data['fraction']:4.0%} {data['message']}".rstrip()
    return str(data["message"]) if entry.kind == "log" else "(later events were not kept)"


def _end(row: Job, as_json: bool) -> None:
    """Print the result; raise the error of a job that ended without success."""
    if as_json:
        typer.echo(json_line({**brief(row), "result": row.value}))
        if row.state != "succeeded":
            raise typer.Exit(PROBLEM)
    elif row.state == "succeeded":
        print_value(row.value)
    elif row.error:
        error = from_code(row.error["code"], row.error["message"], row.error["outcome"], row.error["details"])
        raise Problem(f"the job is {row.state}: {error.code}: {error.message}")
    else:
        raise Problem(f"the job is {row.state}")


def _list(found: list[dict[str, Any]]) -> None:
    console = terminal(width=None if sys.stdout.isatty() else NARROW + 60, highlight=False)
    console.print(_table(console, found))


def _table(console: Console, found: list[dict[str, Any]]) -> Table:
    from rich.text import Text

    failures = [one.get("error") for one in found]
    errors = [one_line(f"{error['code']}: {error['message']}")[:ERROR] if error else "" for error in failures]
    return fitted(
        console,
        {
            "id": [short_id(console, one["id"]) for one in found],
            "pool": [Text(one["pool"]) for one in found],
            "command": [Text(one["command"]) for one in found],
            "state": [Text(one["state"], STYLES.get(one["state"], "")) for one in found],
            "attempts": [str(one["attempts"]) for one in found],
            "progress": ["" if one["progress"] is None else f"{one['progress']:.0%}" for one in found],
            "created": [one["created_at"][:19].replace("T", " ") for one in found],
            "owner": [Text(one["owner"]) for one in found],
            "arguments": [Text(one_line(one["arguments_short"])[:SHORT]) for one in found],
            "error": [Text(error) for error in errors],
        },
        less=("owner", "arguments", "progress", "attempts", "created", "error"),
    )
