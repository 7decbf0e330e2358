"""Jobs end to end, beside Celery tasks with results, and beside the bare statements of the same jobs.

    python -m benchmarks.job_batches [COUNT]

On PostgreSQL and on a SQLite file, in alternating rounds of one run:

jobs      `submit_many` to a complete `snakepit up`, to the end of the last job: the command echoes 100 bytes
Celery    as many tasks that echo 100 bytes, to the last result in a Valkey
bare      the statements of as many jobs, recorded and sent again in the same transactions, without Django's ORM

Bare is recorded in each round: this process submits as many jobs and runs them itself, with the broker and the workers
of the same `snakepit up`. Each of its claims takes as many jobs as one of the Celery worker's did on average. Then it
deletes the rows and sends every statement again, with the same values, one after the other, over one open connection
with the same settings of durability. So bare has the same inserts, updates and queries, in the same order and with the
same number of commits, and neither a call nor a wait. PostgreSQL runs without fsync, for both: a commit costs bare as
little as possible.

Prints jobs per second, the ratios as medians of the rounds, statements and commits per job of bare, and the jobs of a
claim and of a write of ends in both: the batches must have about the same size, or the comparison is worth nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from benchmarks import stack
from benchmarks.work import SMALL

COUNT, ROUNDS = 2000, 5
WITHIN = 300.0  # seconds for the jobs of one round
ARGUMENTS = {"value": SMALL}


@dataclass(frozen=True, slots=True)
class Batches:
    """How many jobs a claim took, and a write of ends wrote, on average."""

    claimed: float
    written: float

    @classmethod
    def now(cls, count: int) -> Batches:
        """Of the jobs that are stored: each claim has a name, and each write a time."""
        from snakepit.pools.models import Job, JobAttempt

        claims = JobAttempt.objects.order_by().values("claimed_by").distinct().count()
        writes = Job.objects.order_by().values("finished_at").distinct().count()
        return cls(count / claims, count / writes)

    def __str__(self) -> str:
        return f"{self.claimed:.0f} jobs a claim, {self.written:.0f} a write of ends"


@dataclass(slots=True)
class Recorded:
    """The statements of some work, each with whether it belongs to a transaction of several."""

    statements: list[tuple[str, Any, bool]] = field(default_factory=list)
    batches: Batches | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        from django.db import connection

        def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
            # Django sends the BEGIN of SQLite just before it notes the transaction.
            self.statements.append((sql, params, connection.in_atomic_block or sql.startswith("BEGIN")))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            yield

    @property
    def commits(self) -> int:
        """Transactions that write."""
        found, inside = 0, False
        for sql, _, atomic in self.statements:
            found += (sql.startswith("BEGIN") or not inside) if atomic else not sql.startswith("SELECT")
            inside = atomic
        return found

    def repeat(self) -> None:
        """Send the statements again, in the same transactions, over an open connection."""
        from django.db import connection

        connection.ensure_connection()
        connection.set_autocommit(False)
        inside = False
        with closing(connection.create_cursor()) as cursor:
            for sql, params, atomic in self.statements:
                if inside and (sql.startswith("BEGIN") or not atomic):
                    connection.connection.commit()
                cursor.execute(sql, params)
                if cursor.description:
                    cursor.fetchall()
                if not atomic:
                    connection.connection.commit()
                inside = atomic
            connection.connection.commit()
        connection.set_autocommit(True)


def submit(count: int) -> None:
    from snakepit.pools import jobs

    jobs.submit_many("work", "echo", [ARGUMENTS] * count)


def run_by_celery(count: int) -> None:
    """To the end of the last job."""
    from snakepit.pools.models import Job

    submit(count)
    end = time.monotonic() + WITHIN
    while Job.objects.filter(state__in=("queued", "running")).exists():
        if time.monotonic() > end:
            raise RuntimeError("the jobs do not end")
        time.sleep(0.01)


def record(count: int, size: int) -> Recorded:
    """Run jobs in this process, `size` with each claim and in each write of ends, and delete them."""
    from snakepit.pools.jobs import claimer, messages, planner, waiting_ends

    found = Recorded()
    with ExitStack() as patches:
        for module, name, value in (
            (messages, "publish", lambda *_: None),
            (planner, "room", lambda load, running, rate: 0 if running else size),
            (waiting_ends, "DELAY", WITHIN),  # until all have ended
            (waiting_ends, "LONGEST_DELAY", WITHIN),
        ):
            patches.enter_context(mock.patch.object(module, name, value))
        with found.recording():
            submit(count)
            claimer.work("work")
        found.batches = Batches.now(count)
    forget()
    return found


def forget() -> None:
    from snakepit.pools.models import Job

    Job.objects.all().delete()


def rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def measure(count: int) -> None:
    """Measure in this process, which has the environment of a `snakepit up`."""
    import django

    django.setup()
    from benchmarks.peers import celery as peer

    with peer.running(2):
        task = peer.echo

        def tasks() -> None:
            for result in [task.delay(SMALL) for _ in range(count)]:
                result.get(timeout=WITHIN)

        found: dict[str, list[float]] = {"jobs": [], "Celery": [], "bare": []}
        record(count // 10, 10)
        run_by_celery(count // 10)  # everything has started
        for _ in range(ROUNDS):
            forget()
            found["jobs"].append(rate(count, lambda: run_by_celery(count)))
            batches = Batches.now(count)
            found["Celery"].append(rate(count, tasks))
            forget()
            statements = record(count, round(batches.claimed))
            found["bare"].append(rate(count, statements.repeat))
            forget()
    show(found)
    print(f"  a job: {len(statements.statements) / count:.3f} statements, {statements.commits / count:.3f} commits")
    print(f"  jobs: {batches}; bare: {statements.batches}")


def show(found: dict[str, list[float]]) -> None:
    """Print medians; the ratios are those of the rounds, whose parts have the same load beside them."""
    ours, celery, bare = (statistics.median(found[name]) for name in ("jobs", "Celery", "bare"))
    faster = statistics.median(a / b for a, b in zip(found["jobs"], found["Celery"], strict=True))
    longer = statistics.median(b / a for a, b in zip(found["jobs"], found["bare"], strict=True))
    print(f"  jobs    {ours:8,.0f}/s")
    print(f"  Celery  {celery:8,.0f}/s  jobs are {faster:.2f} times as fast")
    print(f"  bare    {bare:8,.0f}/s  jobs take {longer:.2f} times as long")


def main() -> None:
    from tests import services

    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with services.postgres() as postgres:
        for name, url in (("PostgreSQL", postgres), ("SQLite", "")):
            print(name, flush=True)
            with stack.running({"SNAKEPIT_DATABASE_URL": url} if url else {}) as site:
                command = [sys.executable, "-m", "benchmarks.job_batches", str(count), "here"]
                subprocess.run(command, cwd=stack.ROOT, env={**os.environ, **site.environment}, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]))
    else:
        main()
