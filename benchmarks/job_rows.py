"""The time of each list, filter and count with a million ended jobs on PostgreSQL, and of writes beside a prune.

    python -m benchmarks.job_rows [ENDED [WAITING]]

Needs a PostgreSQL in SNAKEPIT_DATABASE_URL whose database may be filled; it creates the tables and removes the jobs
that it finds. Prints the median time of the database and of the whole
request, of ROUNDS requests of each page. Then it prunes EXPIRED jobs while a thread submits and another one updates
single rows, and prints the quantiles of the time of these writes. It also claims jobs of a pool with limits, of which
nearly all keys have reached theirs.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

ENDED, WAITING, EXPIRED, ROUNDS = 1_000_000, 100_000, 20_000, 7
PAGES = {
    "dashboard": "/jobs/",
    "dashboard, a state": "/jobs/?state=failed",
    "dashboard, waiting": "/jobs/?state=queued",
    "dashboard, a pool": "/jobs/?pool=digits",
    "dashboard, a command": "/jobs/?command=c7",
    "dashboard, an owner": "/jobs/?owner=user7",
    "dashboard, a tag": "/jobs/?tag=night",
    "dashboard, last hour": "/jobs/?span=1h",
    "dashboard, pool and state": "/jobs/?pool=primes&state=failed",
    "dashboard, pool and command": "/jobs/?pool=digits&command=c7",
    "dashboard, another pool's command": "/jobs/?pool=primes&command=c7",
    "dashboard, in arguments": "/jobs/?arguments=%7B%22n%22%3A17%7D",
    "dashboard, a week": "/jobs/?span=7d",
    "dashboard, an owner of a pool": "/jobs/?owner=user7&pool=digits",
    "dashboard, errors": "/jobs/errors/",
    "dashboard, errors of a pool": "/jobs/errors/?pool=primes",
    "dashboard, overview": "/",
    "REST": "/api/jobs",
    "REST, an owner and a state": "/api/jobs?owner=user7&state=failed",
    "REST, an unknown owner": "/api/jobs?owner=nosuch",
    "REST, an unknown tag": "/api/jobs?tag=nosuch",
    "REST, errors": "/api/jobs/errors",
    "REST, errors of a pool": "/api/jobs/errors?pool=primes",
    "REST, in arguments": "/api/jobs?arguments=digit",
    "REST, not in arguments": "/api/jobs?arguments=nosuch",
    "admin": "/admin/snakepit_pools/job/",
    "admin, a state without jobs": "/admin/snakepit_pools/job/?state=lost",
    "admin, search": "/admin/snakepit_pools/job/?q=c7",
    "admin, search without a match": "/admin/snakepit_pools/job/?q=nosuch",
    "admin, a day": "/admin/snakepit_pools/job/?created_at__year={now:%Y}&created_at__month={now:%m}"
    "&created_at__day={now:%d}",
}
# 30 days of jobs: 96 % succeeded, 4 % failed or lost, 1,000 commands and owners of unequal size.
FILL = """
insert into snakepit_job (id, pool, command, arguments, state, priority, retry, max_attempts, backoff, attempts,
  failures, deaths, claimed_by, cancel_requested, sends, idempotency_key, owner, key, size, tags, progress_message,
  entry_count, entry_bytes, truncated, retention, created_at, queued_at, run_after, finished_at, expires_at, error,
  limit_key, {more})
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
    || substr(md5(n::text), 4, 15))::uuid,
  case n % 5 when 0 then 'primes' else 'digits' end, 'c' || (n % 40), jsonb_build_object('n', n % 1000, 'digit', 'x'),
  state, 0, 'lost', 3, 2, case state when 'queued' then 0 else 1 end, case state when 'failed' then 1 else 0 end, 0, '',
  false, 1, '', 'user' || (n % 100), '', 30, case n % 50 when 0 then ',night,' else '' end, '', 0, 0, false, 604800, at,
  at, null, case state when 'queued' then null else at end, case state when 'queued' then null else at + '90 days' end,
  case state when 'failed' then
    jsonb_build_object('code', 'adapter_error', 'message', 'KeyError: order ' || n, 'outcome', 'failed',
      'details', jsonb_build_object('type', 'KeyError')) end,
  case state when 'queued' then 'k' || (n * 7919 % 800) else '' end, {values}
from (select n, now() - '30 days'::interval * (1 - n::float / {count}) as at,
  {state} as state from generate_series(1, {count}) n) rows
"""
ANY_STATE = "case when n % 25 = 0 then 'failed' else 'succeeded' end"
COLUMNS_OF_FILL = frozenset(
    FILL.partition("(")[2].partition(")")[0].replace("{more}", "").replace("\n", "").split(", ")
)


def start() -> Any:
    """Django with the tables, and a signed-in client."""
    if not os.environ.get("SNAKEPIT_DATABASE_URL", "").startswith("postgres"):
        raise SystemExit("set SNAKEPIT_DATABASE_URL to a PostgreSQL database for this benchmark")
    os.environ["SNAKEPIT_STATE_DIR"] = tempfile.mkdtemp(prefix="snakepit-rows-")
    os.environ["SNAKEPIT_LOG_LEVEL"] = "CRITICAL"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
    import django
    from django.conf import settings

    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_QUEUED_LIMIT": 10**7}
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.test import Client
    from django.test.utils import setup_test_environment

    setup_test_environment()
    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(
        get_user_model().objects.get_or_create(username="bench", defaults={"is_staff": True, "is_superuser": True})[0]
    )
    return client


def fill(ended: int, waiting: int) -> None:
    from django.db import connection

    from snakepit.pools.models import Job

    defaults = {str(field.column): field for field in Job._meta.concrete_fields if not field.null}
    missing = [name for name in defaults if name not in {one.strip() for one in COLUMNS_OF_FILL}]
    values = ", ".join(_literal(defaults[name].get_default()) for name in missing)
    with connection.cursor() as cursor:
        cursor.execute("truncate snakepit_job cascade")
        for count, state in ((ended, ANY_STATE), (waiting, "'queued'")):
            cursor.execute(FILL.format(count=count, state=state, more=", ".join(missing), values=values))
        cursor.execute("vacuum analyze snakepit_job")


def _literal(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return "''"


def timed(work: Callable[[], object]) -> list[tuple[float, float]]:
    """The milliseconds in the database and in all, of each round but the first one, which compiles templates."""
    from django.db import connection

    found, spent = [], 0.0

    def clock(execute: Any, *given: Any) -> Any:
        nonlocal spent
        begun = time.perf_counter()
        try:
            return execute(*given)
        finally:
            spent += 1000 * (time.perf_counter() - begun)

    for _ in range(ROUNDS + 1):
        begun, spent = time.perf_counter(), 0.0
        with connection.execute_wrapper(clock):
            work()
        found.append((spent, 1000 * (time.perf_counter() - begun)))
    return found[1:]


def pages(client: Any) -> None:
    then = datetime.now(UTC) - timedelta(days=10)
    for name, pattern in PAGES.items():
        path = pattern.format(now=then) if "{now" in pattern else pattern

        def ask(path: str = path) -> None:
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.status_code)

        show(name, timed(ask))


def counts() -> None:
    from snakepit.pools.dashboard.stored_state import read_stored_state
    from snakepit.pools.jobs import gauges, room

    show("counts of the overview", timed(read_stored_state))
    show("metric of jobs", timed(gauges.text))
    show("limits of a submission", timed(lambda: room.count_room("digits", 1, None)))


RUN_ALL_BUT = """
update snakepit_job set state = 'running', attempts = 1, lease_until = now() + interval '1 hour', claimed_by = 'x',
  started_at = now() where id in (select distinct on ({column}) id from snakepit_job where pool = 'digits'
  and state = 'queued' and {column} <> %s order by {column}, id)
"""


def claims_with_limits() -> None:
    """Claims of 25 jobs, each of which is taken back. `but`: the only key with room; None: all have room."""
    from django.db import connection, transaction

    from snakepit.pools.jobs import claims
    from snakepit.pools.models import Pool

    def claim() -> None:
        with transaction.atomic():
            claims.take_batch("digits", 25, "benchmark:1:1", "")
            transaction.set_rollback(True)

    Pool.objects.get_or_create(name="digits", defaults={"adapter": "digits", "size": 1})
    for name, rules, column, but in (
        ("claim, no limits", [], "", None),
        ("claim, by owner", [{"by": "owner", "running": 1}], "", None),
        ("claim, all owners but one full", [{"by": "owner", "running": 1}], "owner", "user99"),
        ("claim, all owners full", [{"by": "owner", "running": 1}], "owner", "-"),
        ("claim, all keys but one full", [{"by": "argument:n", "running": 1}], "limit_key", "k7"),
        ("claim, all keys full", [{"by": "argument:n", "running": 1}], "limit_key", "-"),
    ):
        with transaction.atomic(), connection.cursor() as cursor:
            Pool.objects.filter(name="digits").update(job_limits=rules)
            if but is not None:
                cursor.execute(RUN_ALL_BUT.format(column=column), [but])
            show(name, timed(claim))
            transaction.set_rollback(True)


def show(name: str, found: list[tuple[float, float]]) -> None:
    database, whole = (statistics.median(times) for times in zip(*found, strict=True))
    print(f"  {name:28} database {database:7.1f} ms   request {whole:7.1f} ms", flush=True)


def prune_beside_writes(expired: int) -> None:
    """Prune while two threads write single rows, each of which waits for nothing but the database."""
    from django.db import connection

    from snakepit.pools.jobs import deletion

    with connection.cursor() as cursor:
        cursor.execute(
            "update snakepit_job set expires_at = now() - interval '1 second' where id in"
            " (select id from snakepit_job where state <> 'queued' order by id limit %s)",
            [expired],
        )
    over = threading.Event()
    times: dict[str, list[float]] = {"insert": [], "update": []}
    writers = [threading.Thread(target=_write, args=(kind, over, found)) for kind, found in times.items()]
    for writer in writers:
        writer.start()
    _settle(times)
    quiet = {kind: len(found) for kind, found in times.items()}
    begun = time.perf_counter()
    gone = deletion.prune()
    took = time.perf_counter() - begun
    over.set()
    for writer in writers:
        writer.join()
    print(f"  {gone} jobs pruned in {took:.1f} s")
    for kind, found in times.items():
        for name, part in (("before", found[: quiet[kind]]), ("during", found[quiet[kind] :])):
            p50, p99 = statistics.median(part), statistics.quantiles(part, n=100)[98]
            print(f"  {kind} {name:7} {len(part):6} writes   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms", flush=True)


def _settle(times: dict[str, list[float]]) -> None:
    while any(len(found) < 500 for found in times.values()):
        threading.Event().wait(0.05)


def _write(kind: str, over: threading.Event, found: list[float]) -> None:
    from django.db import connection

    from snakepit.pools.models import Job

    row = Job.objects.filter(state="queued").order_by("-pk").only("pk")[0]
    while not over.is_set():
        begun = time.perf_counter()
        if kind == "insert":
            Job.objects.create(pool="digits", command="c1", arguments={"n": 1}, size=8)
        else:
            Job.objects.filter(pk=row.pk).update(priority=len(found) % 100)
        found.append(1000 * (time.perf_counter() - begun))
        over.wait(0.002)
    connection.close()


def main() -> None:
    ended = int(sys.argv[1]) if len(sys.argv) > 1 else ENDED
    waiting = int(sys.argv[2]) if len(sys.argv) > 2 else WAITING
    client = start()
    fill(ended, waiting)
    print(f"{ended:,} ended and {waiting:,} waiting jobs")
    pages(client)
    counts()
    claims_with_limits()
    prune_beside_writes(min(EXPIRED, ended))


if __name__ == "__main__":
    main()
