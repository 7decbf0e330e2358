"""The triggers with which the database itself refuses what must not happen to a job, whoever writes.

Drawn from the table in `states`: a state changes along a move of it, `attempts` rises by one with queued to running and
at no other time, and what a job ended with stays until it is queued again.

Made after each `migrate` and not by a migration: to change a table on SQLite, Django copies it and its triggers are
lost; and a migration would hold a second, older table of moves. PostgreSQL and SQLite have them; on other databases the
check constraints remain, which know a row and not the one before it.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction

from pools.models.states import QUEUED, RUNNING, TERMINAL, TRANSITIONS

TABLE = "snakepit_job"
NAME = "snakepit_job_guard"
KEPT = ("result", "result_raw", "error", "finished_at")  # what an ended job ended with


def install(using: str = "default", **_: Any) -> None:
    """Have the database of this name guard the table of jobs, if it has one. Nothing is done where it does already."""
    connection = connections[using]
    if connection.vendor not in STATEMENTS or TABLE not in connection.introspection.table_names():
        return
    known, text, statements = STATEMENTS[connection.vendor]()
    with transaction.atomic(using), connection.cursor() as cursor:
        cursor.execute(known, [NAME])
        # Where it is there already, `migrate` would wait in vain for a lock on a table that is written all the time.
        if cursor.fetchone() != (text,):
            for statement in statements:
                cursor.execute(statement)


def _rules(differs: str) -> list[tuple[str, str]]:
    """(a condition that must not be, what to say of it); `differs` compares with NULL as a value."""
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


def _sqlite() -> tuple[str, str, list[str]]:
    cases = "".join(f"select raise(abort, 'snakepit: {said}') where {wrong};\n" for wrong, said in _rules("is not"))
    text = f"CREATE TRIGGER {NAME} before update on {TABLE} for each row begin\n{cases}end"
    known = "select sql from sqlite_master where type = 'trigger' and name = %s"
    return known, text, [f"drop trigger if exists {NAME}", text]


def _postgresql() -> tuple[str, str, list[str]]:
    cases = "".join(
        f"if ({wrong}) then\n"  # in brackets: PL/pgSQL would end the condition at the first THEN, that of the CASE
        f"  raise exception 'snakepit: {said} (%: % to %)', old.id, old.state, new.state"
        " using errcode = 'check_violation';\nend if;\n"
        for wrong, said in _rules("is distinct from")
    )
    body = f"\nbegin\n{cases}return new;\nend\n"
    known = (
        "select p.prosrc from pg_trigger t join pg_proc p on p.oid = t.tgfoid"
        f" where t.tgrelid = '{TABLE}'::regclass and t.tgname = %s"
    )
    function = f"create or replace function {NAME}() returns trigger language plpgsql as $body${body}$body$"
    trigger = f"create trigger {NAME} before update on {TABLE} for each row execute function {NAME}()"
    return known, body, [function, f"drop trigger if exists {NAME} on {TABLE}", trigger]


STATEMENTS = {"sqlite": _sqlite, "postgresql": _postgresql}
