"""The Django process that the acceptance tests of jobs talk to: one JSON line in, one out."""

from __future__ import annotations

import json
import sys
from typing import Any

import django
from django.db import connections


def show(job: Any) -> dict[str, Any]:
    """The job, and `unreached`: how often the broker did not answer in time, which a machine that stops adds."""
    tries = [one for one in job.tries.order_by("number") if one.outcome != "broker_unreachable"]
    reached = {one.number: number for number, one in enumerate(tries, 1)}
    unreached = job.tries.filter(outcome="broker_unreachable").count()
    return {
        "id": str(job.pk), "state": job.state, "attempts": job.attempts - unreached, "unreached": unreached,
        "result": job.value, "error": job.error,
        "outcomes": [one.outcome for one in tries if one.outcome], "evidence": [one.evidence for one in tries],
        "chunks": [[reached.get(one.attempt, 0), one.data] for one in job.entries.filter(kind="chunk").order_by("seq")],
    }  # fmt: skip


def key() -> str:
    """The secret of an API key that may do everything."""
    from django.contrib.auth import get_user_model

    from snakepit.pools.models import ApiKey

    users = get_user_model().objects
    user = users.filter(username="chaos").first() or users.create_superuser("chaos", password="chaos")
    return ApiKey.create(name="chaos", owner=user, scopes=("run", "view", "operate"))[1]


def periods() -> dict[str, int]:
    """The sums of the stored minutes, by the names of a pool's status."""
    from django.db.models import Sum

    from snakepit.pools.models import PoolPeriod

    rows = PoolPeriod.objects.filter(seconds=60)
    # Django refuses a sum with the name of a field.
    sums = rows.aggregate(finished=Sum("ok"), failed_=Sum("failed"), refused_=Sum("refused"), died_=Sum("died"))
    return {name.rstrip("_"): total for name, total in sums.items()}


def periodic(what: str, facts: dict[str, Any]) -> Any:
    """Schedules, their runs, and how each surface shows one."""
    from snakepit.pools.models import PeriodicJob, PeriodicRun

    if what == "schedule":
        return PeriodicJob.objects.create(pool="pool", **facts).pk
    if what == "stop schedules":
        return PeriodicJob.objects.update(enabled=False)
    if what == "runs":
        rows = PeriodicRun.objects.exclude(job=None).order_by("nominal")
        return [{"nominal": run.nominal.isoformat(), "job": str(run.job)} for run in rows]
    if what == "ticks":
        from django_celery_beat.models import PeriodicTask

        return dict(PeriodicTask.objects.values_list("task", "total_run_count"))
    return surfaces(facts["name"])


def surfaces(name: str) -> dict[str, str]:
    import io
    from contextlib import redirect_stdout

    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.test.utils import override_settings

    from snakepit.pools.cli.main import run

    headers = {"Authorization": f"Bearer {key()}"}
    client, found = Client(), {}
    client.force_login(get_user_model().objects.get(username="chaos"))
    with override_settings(ALLOWED_HOSTS=["*"]), redirect_stdout(io.StringIO()) as out:
        pages = {
            "dashboard": "/periodic/",
            "admin": "/admin/snakepit_pools/periodicjob/",
            "jobs": "/jobs/?tag=periodic:" + name,
        }
        found = {place: client.get(path).content.decode() for place, path in pages.items()}
        found["rest"] = client.get("/api/periodic", headers=headers).content.decode()
        run(["periodic", "list"])
        found["shell"] = out.getvalue()
    return found


def answer(what: str, facts: dict[str, Any]) -> Any:
    from django.core.management import call_command

    from snakepit.pools import jobs
    from snakepit.pools.jobs import messages, workflow_spec, workflows
    from snakepit.pools.jobs.unique import from_parts
    from snakepit.pools.models import Job, PeriodicJob
    from snakepit.pools.models.pool import sync_pools

    if what == "migrate":
        call_command("migrate", interactive=False, verbosity=0)
        Job.objects.all().delete()  # a PostgreSQL is shared by the tests of a session
        PeriodicJob.objects.all().delete()
        sync_pools()
        return True
    if what in ("schedule", "stop schedules", "runs", "ticks", "periodic surfaces"):
        return periodic(what, facts)
    if what == "key":
        return key()
    if what == "periods":
        return periods()
    if what == "submit":
        made, options = range(facts["count"]), facts["options"]
        options["unique"] = from_parts(options)
        return [str(jobs.submit("pool", facts["command"], facts["arguments"], **options).pk) for _ in made]
    if what == "workflow":
        return str(workflows.submit(workflow_spec.read(facts["jobs"])).pk)
    if what == "eager":
        messages.celery_app().conf.task_always_eager = True
        return True
    if what == "send":
        return [messages.send(one, messages.queue_of("pool")) for one in facts["ids"]]
    if what == "cancel":
        return [jobs.cancel(one).state for one in facts["ids"]]
    if what == "forget":
        with messages.celery_app().connection_for_write() as connection:
            return connection.default_channel.client.flushall()
    rows = list(Job.objects.filter(pk__in=facts["ids"]) if "ids" in facts else Job.objects.all())
    if what == "ended" and not all(job.ended for job in rows):
        return None
    return [show(job) for job in rows]


def main() -> None:
    django.setup()
    for line in sys.stdin:
        facts = json.loads(line)
        try:
            reply = {"value": answer(facts.pop("what"), facts)}
        except Exception as error:  # told to the test, which fails with it
            reply = {"error": f"{type(error).__name__}: {error}"}
            connections.close_all()  # a database that restarted is not met through what is left of the old one
        print(json.dumps(reply, default=str), flush=True)


if __name__ == "__main__":
    main()
