"""All that carries jobs is killed, frozen or emptied in turn, while batches of jobs are in flight.

Each round submits a batch over REST, sends its hints three times, and adds unique jobs and a workflow; a limit bounds
the running jobs of each owner, and a schedule adds jobs. The site, its witnesses and most checks are those of the
acceptance test, whose 300 jobs come one by one.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx

from benchmarks.faults.fault import Fault, Findings

if TYPE_CHECKING:
    from tests.process.acceptance.test_jobs_chaos import Site

BATCH = 40  # jobs of one batch
RUNNING = 5  # jobs of a round that end before its fault
WAITING = 150  # open jobs before the next round begins
LEASE = 3.0  # of the site
FROZEN = 3 * LEASE
ANSWER = 20.0  # seconds for one answer of the web server
WORKFLOW = 5  # jobs of the workflow of a round
PARTS = 3  # its first jobs
OPEN = "select count(*) from snakepit_job where finished_at is null"
TRIED = (httpx.TransportError, ConnectionError)


@functools.cache
def acceptance() -> Any:
    """The module of the acceptance test. It imports models, so Django is set up first."""
    home = tempfile.TemporaryDirectory(prefix="snakepit-")
    atexit.register(home.cleanup)
    own = {"DJANGO_SETTINGS_MODULE": "tests.jobs_settings", "SNAKEPIT_STATE_DIR": home.name}
    with mock.patch.dict("os.environ", own):
        import django

        django.setup()
        from tests.process.acceptance import test_jobs_chaos
    return test_jobs_chaos


class Batches:
    """Submits rounds of jobs, and has what was accepted."""

    def __init__(self, here: Site) -> None:
        self.here = here
        self.marks: dict[str, str] = {}  # job to its mark
        self.same: list[str] = []  # ids that were given for unique jobs
        self.rounds = 0

    def submit(self) -> None:
        """Submit the jobs of one round. What got no answer is asked again."""
        self.rounds += 1
        marks = [f"r{self.rounds}n{number}" for number in range(BATCH)]
        lines = "".join(json.dumps({"mark": mark}) + "\n" for mark in marks)
        ids = self._batch("once", lines, {"Idempotency-Key": f"round-{self.rounds}"})
        self.marks |= dict(zip(ids, marks, strict=True))
        again = self._batch("once", lines, {"Idempotency-Key": f"round-{self.rounds}"})
        assert again == ids, "a repeated batch has other jobs"
        for _ in range(2):  # with that of the submission, three hints
            self._ask("send", ids=ids[:5])
        value = json.dumps({"value": f"unique-{self.rounds}"}) + "\n"
        states = "".join(f"&unique_states={state}" for state in acceptance().SHOWN_STATES)
        self.same += [*self._batch("echo", value * 3, {}, states), *self._batch("echo", value, {}, states)]
        self._ask("workflow", jobs=list(self._workflow()))

    def _workflow(self) -> Iterator[dict[str, Any]]:
        """Jobs side by side, a callback that waits for all of them, and one that receives its result."""
        shared = {"pool": "pool", "command": "echo", "backoff": 0.2, "on_failure": "run"}
        for number in range(PARTS):
            yield {**shared, "id": f"p{number}", "arguments": {"value": number}}
        yield {**shared, "id": "all", "results": {"value": [f"p{number}" for number in range(PARTS)]}}
        yield {**shared, "id": "last", "results": {"value": "all"}}

    def _batch(self, command: str, lines: str, headers: Mapping[str, str], more: str = "") -> list[str]:
        url = f"http://127.0.0.1:{self.here.port}/api/jobs/batch?pool=pool&command={command}&backoff=0.2{more}"
        sent = {"Authorization": f"Bearer {self.here.key}", "Content-Type": "application/x-ndjson", **headers}

        def post() -> list[str]:
            reply = httpx.post(url, content=lines, headers=sent, timeout=ANSWER)
            assert reply.status_code in (200, 201) or reply.status_code >= 500, reply.text
            found: list[str] = reply.json()["ids"] if reply.status_code < 300 else []
            return found

        found: list[str] = self._until(post)
        return found

    def _ask(self, what: str, **facts: Any) -> None:
        self._until(lambda: [self.here.ask(what, **facts)])

    def _until(self, work: Callable[[], Any]) -> Any:
        def attempt() -> Any:
            try:
                return work()
            except TRIED:
                return None  # a part is away, which a caller finds out by such an error

        return self.here.until(attempt, "an answer", self.here.ended)


def freeze_celery_worker(here: Site) -> None:
    """Stop the one that has jobs until their leases are over and others run them; then let it go on."""
    claimed = here.until(
        lambda: here.rows("select claimed_by from snakepit_job where state = 'running'"), "a running job"
    )
    pids = {int(row["claimed_by"].split(":")[1]) for row in claimed}
    both = [here.services[name].process.pid for name in ("w1", "w2")]
    _frozen(here, here.random.choice([pid for pid in both if pid in pids] or both), FROZEN)


def freeze_broker(here: Site) -> None:
    _frozen(here, here.services["broker"].process.pid, LEASE)


def freeze_database(here: Site) -> None:
    """PostgreSQL answers nothing until all leases are over: the clock that decides about them goes on."""
    with here.database.frozen():
        threading.Event().wait(FROZEN)
    here.hit()


def freeze_transport(here: Site) -> None:
    here.transport.freeze()
    try:
        threading.Event().wait(FROZEN)
    finally:
        here.transport.thaw()
    here.hit()


def kill_both_celery_workers(here: Site) -> None:
    """Only their successors, which take seconds to start, can take the jobs over."""
    both = [here.services[name] for name in ("w1", "w2")]
    before = {service.process.pid for service in both}
    here.hit()
    for service in both:
        service.process.kill()

    def claimed() -> bool:
        newest = here.rows("select claimed_by from snakepit_jobattempt order by started_at desc limit 50")
        pids = {service.process.pid for service in both} - before
        return any(int(row["claimed_by"].split(":")[1]) in pids for row in newest)

    here.until(claimed, "a claim of a successor", patience=acceptance().START)


def _frozen(here: Site, pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        threading.Event().wait(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    here.hit()  # what was under way may go on from now


def faults(here: Site) -> list[tuple[str, Callable[[], None]]]:
    return [
        ("Celery worker killed", here.kill_celery_worker),
        ("both Celery workers killed", lambda: kill_both_celery_workers(here)),
        ("Celery worker frozen", lambda: freeze_celery_worker(here)),
        ("broker killed", here.kill_broker),
        ("broker frozen", lambda: freeze_broker(here)),
        ("pool worker killed", lambda: kill_pool_worker(here)),
        ("beat killed", lambda: here.kill("beat")),
        ("web server killed", lambda: here.kill("web")),
        ("Valkey emptied", here.empty_transport),
        ("Valkey frozen", lambda: freeze_transport(here)),
        ("PostgreSQL crashed", here.restart_database),
        ("PostgreSQL frozen", lambda: freeze_database(here)),
    ]


def kill_pool_worker(here: Site) -> None:
    ready = here.until(here.workers, "a pool worker")
    here.hit()
    os.kill(here.random.choice(ready).pid, signal.SIGKILL)


def check_accepted(here: Site, sent: Batches) -> None:
    """Each accepted job is there, has ended, and its attempts follow each other."""
    rows = {str(row["id"]): row for row in here.rows("select * from snakepit_job")}
    assert sent.marks.keys() <= rows.keys(), f"{len(sent.marks.keys() - rows.keys())} accepted jobs are gone"
    own = [row for row in rows.values() if row["command"] == "once"]
    assert len(own) == len(sent.marks), f"{len(own)} jobs of {len(sent.marks)} accepted ones"
    # A workflow has no key: one that got no answer is submitted again.
    flows = here.one("select count(*) from snakepit_workflow")
    assert flows >= sent.rounds, f"{flows} workflows of {sent.rounds}"
    parts = sum(row["workflow_id"] is not None for row in rows.values())
    assert parts == flows * WORKFLOW, f"{parts} jobs of {flows} workflows"
    tries: dict[str, list[dict[str, Any]]] = {key: [] for key in rows}
    for one in here.rows("select * from snakepit_jobattempt order by number"):
        tries[str(one["job_id"])].append(one)
    for key, row in rows.items():
        outcomes = [one["outcome"] for one in tries[key]]
        shown = f"{key} {row['state']} {outcomes}"
        assert row["state"] in ("succeeded", "lost", "quarantined"), shown
        assert row["state"] != "lost" or row["failures"] == row["max_attempts"], shown
        assert [one["number"] for one in tries[key]] == list(range(1, row["attempts"] + 1)), shown
        assert outcomes.count("succeeded") == (row["state"] == "succeeded"), shown


def check_runs(here: Site, sent: Batches) -> None:
    """A command ran once for an attempt at most, and the result of its job is that of one of these runs."""
    runs: dict[str, list[int]] = {}
    for line in here.recent.read_text().splitlines():
        if line.startswith("once "):
            _, mark, pid = line.split()
            runs.setdefault(mark, []).append(int(pid))
    for row in here.rows("select * from snakepit_job where command = 'once'"):
        pids = runs.pop(sent.marks[str(row["id"])], [])
        assert len(pids) <= row["attempts"], f"{row['id']} ran {len(pids)} times in {row['attempts']} attempts"
        assert row["state"] != "succeeded" or row["result"] in pids, f"{row['id']} has the result of no run"
    assert not runs, f"{len(runs)} runs of no job"


def check_unique(here: Site, sent: Batches) -> None:
    there = here.one("select count(*) from snakepit_job where unique_key <> ''")
    assert len(set(sent.same)) == there == sent.rounds, f"{there} unique jobs of {sent.rounds} keys"


def check_order(here: Site, sent: Batches) -> None:
    late = here.one(
        "select count(*) from snakepit_jobedge e join snakepit_job p on p.id = e.needs_id where p.finished_at >"
        " (select min(started_at) from snakepit_jobattempt where job_id = e.job_id)"
    )
    assert late == 0, f"{late} jobs began before one that they wait for had ended"
    wrong = here.one(
        "select count(*) from snakepit_job j where state = 'succeeded' and workflow_id is not null"
        " and result is distinct from arguments->'value'"
    )
    assert wrong == 0, f"{wrong} jobs of workflows have another result"


def check_limits(here: Site, sent: Batches) -> None:
    most = here.one("select coalesce(max(jobs), 0) from running")
    limit = acceptance().LIMIT
    assert 0 < most <= limit, f"{most} jobs of an owner ran at the same time, with a limit of {limit}"


def check(here: Site, sent: Batches, found: Findings) -> None:
    of_test = (acceptance().check_ends, acceptance().check_schedule)
    own = (check_accepted, check_runs, check_unique, check_order, check_limits)
    checks = [partial(one, here) for one in of_test] + [partial(one, here, sent) for one in own]
    for one in checks:
        try:
            one()
        except AssertionError as error:
            found.expect(False, str(error).splitlines()[0][:300] if str(error) else "a check of the ends")


def jobs_in_turn(seconds: float) -> Findings:
    found, made = Findings(), Counter[str]()
    with acceptance().site(random.SystemRandom().randrange(2**32)) as here:
        sent, turn = Batches(here), faults(here)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(made) < len(turn):
            before = here.finished()
            sent.submit()
            here.until(lambda before=before: here.finished() >= before + RUNNING, "ended jobs of a round", here.ended)
            name, fault = turn[sum(made.values()) % len(turn)]
            fault()
            made[name] += 1
            here.until(lambda: here.one(OPEN) <= WAITING, "room for the next round", here.ended)
        last = time.monotonic()
        here.rows("update snakepit_periodicjob set enabled = false")
        here.until(lambda: here.one(OPEN) == 0, "the end of all jobs", here.ended)
        took = time.monotonic() - last
        check(here, sent, found)
        states = Counter(row["state"] for row in here.rows("select state from snakepit_job"))
        again = here.one("select count(*) from snakepit_jobattempt") - sum(states.values())
        ends = ", ".join(f"{count:,} {state}" for state, count in states.items())
        found.measured |= {
            "faults": ", ".join(f"{count} x {name}" for name, count in made.items()),
            "jobs": f"{sum(states.values()):,} ended once: {ends}",
            "attempts after a first one": f"{again:,}",
            "last end": f"{took:.0f} s after the last fault",
        }
    return found


FAULTS = (
    Fault(
        "jobs-in-turn",
        "Celery workers, broker, pool worker, beat and web server are killed or frozen, Valkey emptied or frozen,"
        " PostgreSQL crashed or frozen, in turn, while batches, unique jobs, workflows, limits and a schedule are in"
        " flight",
        "No accepted job is lost, doubled or overtaken. Each ends once. Limits and the order of workflows hold.",
        (
            "process/acceptance/test_jobs_chaos.py::test_300_jobs_end_once_while_all_that_carries_them_is_killed_in"
            "_turn",
            "process/acceptance/test_jobs.py::test_a_frozen_attempt_that_wakes_up_neither_overwrites_the_newer_nor_adds"
            "_to_what_it_said",
            "process/acceptance/test_jobs.py::test_every_job_runs_once_also_when_its_message_comes_three_times_or_two"
            "_schedulers_make_it",
            "process/acceptance/test_clock.py::test_a_jump_of_two_hours_ends_no_living_attempt_and_spares_no_dead_one",
        ),
        jobs_in_turn,
        seconds=120.0,
    ),
)
