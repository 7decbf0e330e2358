"""The triggers with which the database itself refuses what must not happen to a job, whoever writes.

Drawn from the table in `states`: a state changes along a move of it, `attempts` rises by one with queued to running and
at no other time, and what a job ended with stays until it is queued again. What a job says is added by its newest
attempt alone, while that runs: one that was frozen, and wakes up when another has the job, adds nothing.

Made after each `migrate` and not by a migration: to change a table on SQLite, Django copies it and its triggers are
lost; and a migration would hold a second, older table of moves. PostgreSQL and SQLite have them; on other databases the
check constraints remain, which know a row and not the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

from snakepit.pools.models.states import QUEUED, RUNNING, TERMINAL, TRANSITIONS

TABLE, ENTRIES = "snakepit_job", "snakepit_jobentry"
NAME, ENTRIES_NAME = "snakepit_job_guard", "snakepit_jobentry_guard"
KEPT = ("result", "result_raw", "error", "finished_at")  # what an ended job ended with


@dataclass(frozen=True, slots=True)
class Guard:
    """One trigger, which runs before each row is written."""

    name: str
    table: str
    event: str  # insert or update
    rules: list[tuple[str, str]]  # (a condition that must not be, what to say of it)
    row: str  # what PostgreSQL says of the row, as an expression


def install(using: str = "default", **_: Any) -> None:
    """Have the database of this name guard jobs, if it has their tables. Nothing is done where it does already."""
    connection = connections[using]
    if connection.vendor not in STATEMENTS or not {TABLE, ENTRIES} <= set(connection.introspection.table_names()):
        return
    differs, known, statements_of = STATEMENTS[connection.vendor]
    with connection.cursor() as cursor:
        for guard in _guards(differs):
            text, statements = statements_of(guard)
            cursor.execute(known, [guard.name, guard.table])
            # Where it is there, `migrate` would wait in vain for a lock on a table that is written all the time.
            if cursor.fetchone() != (text,):
                with transaction.atomic(using):
                    for statement in statements:
                        cursor.execute(statement)


def _guards(differs: str) -> list[Guard]:
    """`differs` compares with NULL as a value."""
    newest = f"select 1 from {TABLE} where id = new.job_id and state = '{RUNNING}' and attempts = new.attempt"
    said = [(f"not exists ({newest})", "what a job says is added by its newest attempt, while that runs")]
    return [
        Guard(NAME, TABLE, "update", _rules(differs), "old.id || ': ' || old.state || ' to ' || new.state"),
        Guard(ENTRIES_NAME, ENTRIES, "insert", said, "new.job_id || ': attempt ' || new.attempt"),
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
        (f"old.state <> new.state and not ({moves})", "a job cannot go from its state to that one"),
        (f"new.attempts <> old.attempts + {claimed}", "the attempts of a job rise by one when it is claimed"),
        (
            f"old.state = new.state and old.state in ({_listed(TERMINAL)}) and ({changed})",
            "a job that has ended keeps what it ended with",
        ),
    ]


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _sqlite(guard: Guard) -> tuple[str, list[str]]:
    """(the text by which the trigger is known, the statements that make it)"""
    cases = "".join(f"select raise(abort, 'snakepit: {said}') where {wrong};\n" for wrong, said in guard.rules)
    text = f"CREATE TRIGGER {guard.name} before {guard.event} on {guard.table} for each row begin\n{cases}end"
    return text, [f"drop trigger if exists {guard.name}", text]


def _postgresql(guard: Guard) -> tuple[str, list[str]]:
    """The same; the function alone is the text."""
    cases = "".join(
        f"if ({wrong}) then\n"  # in brackets: PL/pgSQL would end the condition at the first THEN, that of the CASE
        f"  raise exception 'snakepit: {said} (%)', {guard.row} using errcode = 'check_violation';\nend if;\n"
        for wrong, said in guard.rules
    )
    name, body = guard.name, f"\nbegin\n{cases}return new;\nend\n"
    function = f"create or replace function {name}() returns trigger language plpgsql as $body${body}$body$"
    trigger = f"create trigger {name} before {guard.event} on {guard.table} for each row execute function {name}()"
    return body, [function, f"drop trigger if exists {name} on {guard.table}", trigger]


# By vendor: how values that may be NULL are compared, how a trigger is found by its name and table, and how it is made.
STATEMENTS = {
    "sqlite": (
        "is not",
        "select sql from sqlite_master where type = 'trigger' and name = %s and tbl_name = %s",
        _sqlite,
    ),
    "postgresql": (
        "is distinct from",
        "select p.prosrc from pg_trigger t join pg_proc p on p.oid = t.tgfoid"
        " where t.tgname = %s and t.tgrelid = to_regclass(%s)",
        _postgresql,
    ),
}
