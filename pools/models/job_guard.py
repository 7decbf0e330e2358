"""Database triggers that reject illegal changes of jobs, by any client.

`loaddata` may add the output of ended jobs: `permit_fixtures` and `end_fixtures` surround each of these rows.

They follow the table in `states`: a state changes only by its transitions; `attempts` rises by one from queued to
running and at no other time; the end of a job stays until it is queued again. Only the newest, running attempt may add
output: an attempt that was frozen and superseded adds nothing.

`install` runs after each `migrate`, not in a migration. On SQLite, Django changes a table by copying it, which loses
its triggers; and a migration would contain a second, older table of transitions. PostgreSQL and SQLite have triggers.
Other databases have only the check constraints, which cannot read the previous row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

from snakepit.pools.models.states import QUEUED, RUNNING, TERMINAL, TRANSITIONS

TABLE, ENTRIES = "snakepit_job", "snakepit_jobentry"
NAME, ENTRIES_NAME = "snakepit_job_guard", "snakepit_jobentry_guard"
DISTINCT = "is distinct from"  # PostgreSQL's operator that compares NULL as a value
LOADING = "snakepit.loading"  # a setting of a PostgreSQL transaction
KEPT = ("result", "result_raw", "error", "finished_at")  # columns that an ended job keeps


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger, which runs before each row is written."""

    name: str
    table: str
    event: str  # insert or update
    rules: list[tuple[str, str]]  # (forbidden condition, error message)
    row: str  # expression that describes the row in PostgreSQL's error


def install(using: str = "default", **_: Any) -> None:
    """Create the triggers in this database, if it has the tables of jobs. Existing ones stay."""
    connection = connections[using]
    if connection.vendor not in STATEMENTS or not {TABLE, ENTRIES} <= set(connection.introspection.table_names()):
        return
    differs, known, statements_of = STATEMENTS[connection.vendor]
    with connection.cursor() as cursor:
        for trigger in _triggers(differs):
            text, statements = statements_of(trigger)
            cursor.execute(known, [trigger.name, trigger.table])
            # An existing trigger stays: `migrate` would wait for a lock on a table that is written all the time.
            if cursor.fetchone() != (text,):
                with transaction.atomic(using):
                    for statement in statements:
                        cursor.execute(statement)


def _triggers(differs: str) -> list[Trigger]:
    """The triggers. `differs` is the operator that compares NULL as a value."""
    newest = f"select 1 from {TABLE} where id = new.job_id and state = '{RUNNING}' and attempts = new.attempt"
    # PostgreSQL has settings of a transaction; SQLite has none, so the trigger is absent while a row is loaded.
    loads = f"coalesce(current_setting('{LOADING}', true), '') <> 'on' and " if differs == DISTINCT else ""
    append = [(f"{loads}not exists ({newest})", "only the newest, running attempt of a job may add output")]
    return [
        Trigger(NAME, TABLE, "update", _rules(differs), "old.id || ': ' || old.state || ' to ' || new.state"),
        Trigger(ENTRIES_NAME, ENTRIES, "insert", append, "new.job_id || ': attempt ' || new.attempt"),
    ]


def _rules(differs: str) -> list[tuple[str, str]]:
    moves = " or ".join(
        f"(old.state = '{old}' and new.state in ({_listed(sorted(allowed))}))"
        for old, allowed in TRANSITIONS.items()
        if allowed
    )
    claimed = f"case when old.state = '{QUEUED}' and new.state = '{RUNNING}' then 1 else 0 end"
    changed = " or ".join(f"old.{column} {differs} new.{column}" for column in KEPT)
    return [
        (f"old.state <> new.state and not ({moves})", "illegal state transition of a job"),
        (f"new.attempts <> old.attempts + {claimed}", "attempts of a job must rise by one when it is claimed"),
        (
            f"old.state = new.state and old.state in ({_listed(TERMINAL)}) and ({changed})",
            "result, error and end of an ended job must not change",
        ),
    ]


def remove(using: str = "default", plan: Any = (), **_: Any) -> None:
    """Before a migration of this app: SQLite copies a table that changes, and refuses this where a trigger names it."""
    connection = connections[using]
    ours = any(migration.app_label == "snakepit_pools" for migration, _ in plan)
    if ours and connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"drop trigger if exists {ENTRIES_NAME}")


def permit_fixtures(sender: Any, using: str, raw: bool = False, **_: Any) -> None:
    """Before a row of output is written: `loaddata` (raw) adds it to a job that has ended."""
    connection = connections[using]
    if not raw or connection.vendor not in STATEMENTS:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"drop trigger if exists {ENTRIES_NAME}")
        else:
            cursor.execute("select set_config(%s, 'on', true)", [LOADING])


def end_fixtures(sender: Any, using: str, raw: bool = False, **_: Any) -> None:
    """After it. Both statements are in the transaction of `loaddata`, so other writers always have the trigger."""
    connection = connections[using]
    if not raw or connection.vendor not in STATEMENTS:
        return
    if connection.vendor == "sqlite":
        install(using)
    else:
        with connection.cursor() as cursor:
            cursor.execute("select set_config(%s, 'off', true)", [LOADING])


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _sqlite(trigger: Trigger) -> tuple[str, list[str]]:
    """Returns (the text that identifies this version of the trigger, the statements that create it)."""
    cases = "".join(f"select raise(abort, 'snakepit: {text}') where {wrong};\n" for wrong, text in trigger.rules)
    text = f"CREATE TRIGGER {trigger.name} before {trigger.event} on {trigger.table} for each row begin\n{cases}end"
    return text, [f"drop trigger if exists {trigger.name}", text]


def _postgresql(trigger: Trigger) -> tuple[str, list[str]]:
    """As `_sqlite`; the function's body is the text."""
    cases = "".join(
        f"if ({wrong}) then\n"  # in brackets, or PL/pgSQL would end the condition at the THEN of its CASE
        f"  raise exception 'snakepit: {text} (%)', {trigger.row} using errcode = 'check_violation';\nend if;\n"
        for wrong, text in trigger.rules
    )
    name, body = trigger.name, f"\nbegin\n{cases}return new;\nend\n"
    function = f"create or replace function {name}() returns trigger language plpgsql as $body${body}$body$"
    create = f"create trigger {name} before {trigger.event} on {trigger.table} for each row execute function {name}()"
    return body, [function, f"drop trigger if exists {name} on {trigger.table}", create]


# By vendor: the operator that compares NULL as a value, the query for an existing trigger, the function for its SQL.
STATEMENTS = {
    "sqlite": (
        "is not",
        "select sql from sqlite_master where type = 'trigger' and name = %s and tbl_name = %s",
        _sqlite,
    ),
    "postgresql": (
        DISTINCT,
        "select p.prosrc from pg_trigger t join pg_proc p on p.oid = t.tgfoid"
        " where t.tgname = %s and t.tgrelid = to_regclass(%s)",
        _postgresql,
    ),
}
