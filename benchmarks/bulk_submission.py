"""The time of 10,000 jobs by `submit_many`, beside as many `submit`s.

    python -m benchmarks.bulk_submission [COUNT]

Submits to PostgreSQL and to a SQLite file, with a Valkey as message transport, each time to an empty table and up to
the commit of the last job. Prints seconds, statements and the ratio for each database. The broker is a stub, which
answers with the commands of a pool: both ways ask it every 10 s at most.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNT = 10_000
POOL, COMMAND = "digits", "classify"


def start(transport: str) -> None:
    """Django with an empty database and one pool."""
    os.environ["SNAKEPIT_LOG_LEVEL"] = "ERROR"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
    import django
    from celery import Celery
    from django.conf import settings

    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_QUEUED_LIMIT": 10**6}
    django.setup()
    from django.core.management import call_command

    from snakepit.pools.client import shared
    from snakepit.pools.jobs import messages
    from snakepit.pools.models import Pool

    call_command("migrate", verbosity=0)
    Pool.objects.create(name=POOL, adapter=POOL, size=1)
    stub: Any = Stub()
    shared.client = lambda: stub
    app = Celery("bench", broker=transport)
    messages.celery_app = lambda: app


class Stub:
    """A broker's client whose pool has one command."""

    def commands(self, pool: str) -> tuple[Any, ...]:
        from snakepit.pools.broker.status import CommandInfo

        schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
        return (CommandInfo(COMMAND, schema=schema),)


def measure(work: Callable[[], object]) -> tuple[float, int]:
    """Seconds and statements of some work on an empty table."""
    from django.db import connection

    from snakepit.pools.models import Job

    Job.objects.all().delete()
    statements = 0

    def count(execute: Any, *given: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(*given)

    with connection.execute_wrapper(count):
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun, statements


def run(count: int) -> None:
    """Measure both ways in this process, on the database of its environment."""
    from snakepit.pools import jobs
    from snakepit.pools.models import Job

    rows = [{"n": number} for number in range(count)]
    jobs.submit(POOL, COMMAND, rows[0])  # connects to both services
    bulk, few = measure(lambda: jobs.submit_many(POOL, COMMAND, rows))
    assert Job.objects.count() == count
    single, many = measure(lambda: [jobs.submit(POOL, COMMAND, row) for row in rows])
    print(f"  {count} by submit_many  {bulk:8.2f} s  {few:7d} statements")
    print(f"  {count} submits         {single:8.2f} s  {many:7d} statements  ratio 1/{single / bulk:.0f}", flush=True)


def main() -> None:
    from tests import services

    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with (
        tempfile.TemporaryDirectory(prefix="snakepit-bulk-") as place,
        services.postgres() as postgres,
        services.restartable_valkey() as valkey,
    ):
        for name, url in (("PostgreSQL", postgres), ("SQLite", f"sqlite:///{Path(place) / 'db.sqlite3'}")):
            print(name, flush=True)
            env = {**os.environ, "SNAKEPIT_DATABASE_URL": url, "SNAKEPIT_STATE_DIR": place}
            asked = [sys.executable, "-m", "benchmarks.bulk_submission", str(count), valkey.url]
            subprocess.run(asked, env=env, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        start(sys.argv[2])
        run(int(sys.argv[1]))
    else:
        main()
