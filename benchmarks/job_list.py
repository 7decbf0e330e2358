"""The time of a page of jobs, with a hundred and with a hundred thousand jobs.

    python -m benchmarks.job_list [MANY]

Creates both in a SQLite database in memory, requests the same pages alternately, and prints the ratios of the medians.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from typing import Any

FEW, MANY, ROUNDS = 100, 100_000, 15
PATHS = {
    "dashboard": "/jobs/",
    "dashboard, failed": "/jobs/?state=failed",
    "dashboard, one pool": "/jobs/?pool=digits",
    "dashboard, last hour": "/jobs/?span=1h",
    "REST": "/api/jobs",
    "REST, a command": "/api/jobs?command=classify",
    "admin": "/admin/snakepit_pools/job/",
}


def start() -> Any:
    """Django with an empty database in memory, and a signed-in client."""
    os.environ["SNAKEPIT_STATE_DIR"] = tempfile.mkdtemp(prefix="snakepit-lists-")
    os.environ["SNAKEPIT_LOG_LEVEL"] = "ERROR"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
    import django
    from django.conf import settings

    settings.DATABASES["default"]["NAME"] = ":memory:"
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.test import Client
    from django.test.utils import setup_test_environment

    setup_test_environment()
    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(get_user_model().objects.create(username="bench", is_staff=True, is_superuser=True))
    return client


def fill(count: int) -> None:
    """Create jobs, most of them within the last hour, so that each filter finds a full page in both cases."""
    from snakepit.pools.jobs.listing import key_at
    from snakepit.pools.models import Job

    Job.objects.all().delete()
    rng, now = random.Random(1), datetime.now(UTC)
    rows = []
    for number in range(count):
        age = timedelta(days=30) if number < count / 3 else timedelta(minutes=50)
        at = now - age * (1 - number / count)
        key = key_at(at).int | rng.getrandbits(76)
        ended = {"finished_at": at, "expires_at": at + timedelta(days=90)}
        state = rng.choices(["succeeded", "failed", "queued"], [30, 60, 10])[0]
        rows.append(Job(
            id=f"{key:032x}", pool="digits" if number % 5 else "primes",
            command="classify" if number % 3 else f"c{number % 40}",
            state=state, created_at=at, queued_at=at, arguments={"n": number},
            **({} if state == "queued" else ended),
        ))  # fmt: skip
    Job.objects.bulk_create(rows, batch_size=2000)


def measure(client: Any) -> dict[str, float]:
    """The median of each page in milliseconds of CPU, database included; the pages alternate."""
    found: dict[str, list[float]] = {name: [] for name in PATHS}
    for turn in range(ROUNDS + 1):
        for name, path in PATHS.items():
            begun = time.process_time()
            answer = client.get(path)
            took = 1000 * (time.process_time() - begun)
            assert answer.status_code == 200, (path, answer.status_code)
            if turn:  # the first turn compiles templates
                found[name].append(took)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else MANY
    client = start()
    fill(FEW)
    few_times = measure(client)
    fill(many)
    many_times = measure(client)
    print(f"{'page':24} {FEW:>10,} {many:>10,}  ratio")
    for name in PATHS:
        ratio = many_times[name] / few_times[name]
        print(f"{name:24} {few_times[name]:>7.1f} ms {many_times[name]:>7.1f} ms {ratio:>6.2f}")


if __name__ == "__main__":
    main()
