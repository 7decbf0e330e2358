"""Jobs between their rows and a fake broker: submission, the claim, the fence, reconcile, and operator actions."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management.sql import emit_post_migrate_signal
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from snakepit.pools import conf, jobs
from snakepit.pools.broker.errors import (
    AdapterError,
    BadArguments,
    BadRequest,
    BrokerError,
    BrokerUnreachable,
    DeadlineExceeded,
    PayloadTooLarge,
    PoolUnknown,
    QueueFull,
    WorkerLost,
)
from snakepit.pools.broker.status import CommandInfo
from snakepit.pools.client import Answer, Chunk, Log, Progress, shared
from snakepit.pools.jobs import (
    after_end,
    attempt,
    bulk_actions,
    commands,
    control,
    deletion,
    leases,
    messages,
    reconciler,
    runner,
    signals,
)
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobAttempt, JobEntry, Pool, job_guard
from snakepit.pools.models.states import STATES, TRANSITIONS, IllegalMove

pytestmark = pytest.mark.django_db


class Wire:
    """In place of Celery: what was sent, and whether it can be."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, float]] = []
        self.away = False

    def send(self, job_id: Any, queue: str, delay: float = 0.0) -> bool:
        if not self.away:
            self.sent.append((str(job_id), queue, delay))
        return not self.away

    def send_many(self, job_ids: Sequence[Any], queue: str) -> messages.Sent:
        return messages.Sent(tuple(one for one in job_ids if self.send(one, queue)), self.away)


class ScriptedClient:
    """In place of the broker's client: each call plays the next script."""

    def __init__(self, *scripts: list[Any], idempotent: bool = False) -> None:
        self.scripts = itertools.chain(scripts, itertools.repeat([Answer(7, "call-1", "digits-1", 0.0, 0.0)]))
        self.idempotent = idempotent
        self.closed = threading.Event()
        self.calls: list[tuple[Any, ...]] = []

    def aevents(self, pool: str, command: str, arguments: Any, /, **options: Any) -> Any:
        self.calls.append((pool, command, arguments, options))
        return _Stream(next(self.scripts), self.closed)

    def listen(self, pool: str, command: str, arguments: Any, receive: Callable[[Any], None], /, **options: Any) -> Any:
        stream = self.aevents(pool, command, arguments, **options)
        return _Listened(asyncio.run_coroutine_threadsafe(_play(stream, receive), _event_loop()))

    def commands(self, pool: str) -> tuple[CommandInfo, ...]:
        return (CommandInfo("classify", idempotent=self.idempotent),)


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


async def _play(stream: _Stream, receive: Callable[[Any], None]) -> None:
    try:
        async with stream as events:
            async for event in events:
                receive(event)
    except BrokerError as error:
        receive(error)
    except Exception as error:
        receive(BrokerError(f"{type(error).__name__}: {error}"))


class _Listened:
    def __init__(self, task: Future[None]) -> None:
        self._task = task

    def read(self, item: Any) -> Any:
        if isinstance(item, BrokerError):
            raise item
        return item

    def close(self) -> None:
        self._task.cancel()


class _Stream:
    def __init__(self, script: list[Any], closed: threading.Event) -> None:
        self._script, self._closed = iter(script), closed

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Any:
        for event in self._script:
            if event == "hang":
                await asyncio.get_running_loop().create_future()
            if isinstance(event, BaseException):
                raise event
            return event() if callable(event) else event
        raise StopAsyncIteration

    async def __aenter__(self) -> _Stream:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._closed.set()


def answer(value: Any) -> Answer:
    return Answer(value, "call-1", "digits-1", 0.0, 0.0)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    fake = Wire()
    monkeypatch.setattr(messages, "send", fake.send)
    monkeypatch.setattr(messages, "send_many", fake.send_many)
    return fake


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers submissions, and as slowly as a busy machine."""
    client = ScriptedClient()
    monkeypatch.setattr(shared, "client", lambda: client)
    monkeypatch.setattr(commands, "cache", commands.CommandCache(patience=60.0))


@pytest.fixture(autouse=True)
def pool(wire: Wire, db: None) -> Pool:
    return Pool.objects.create(name="digits", adapter="digits", size=1)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "TICK", 0.01)
    monkeypatch.setattr(attempt, "FLUSH", 0.01)
    monkeypatch.setattr(attempt, "PATIENCE", 0.05)


def submitted(**options: Any) -> Job:
    return jobs.submit("digits", "classify", {"pixels": [1]}, **options)


def run(job: Job, client: ScriptedClient | None = None) -> Job:
    """One attempt, as the Celery task makes it."""
    Job.objects.filter(pk=job.pk).update(run_after=None)
    claimed = leases.claim(job.pk, "test", "node-1")
    assert claimed is not None
    runner.run_claimed(claimed, client or ScriptedClient())  # type: ignore[arg-type]
    return Job.objects.get(pk=job.pk)


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))


# States, in Python and in the database.


@pytest.mark.parametrize(("old", "new"), list(itertools.product(STATES, STATES)))
def test_a_move_is_made_if_the_table_has_it_and_by_no_other_way(old: str, new: str) -> None:
    job = bring(old)
    rows = Job.objects.filter(pk=job.pk)
    moved = rows.move(new, **columns(new, job))
    assert bool(moved) == (new in TRANSITIONS[old])
    assert Job.objects.get(pk=job.pk).state == (new if moved else old)
    for write in (lambda: rows.update(state=new), lambda: Job.objects.bulk_update([job], ["state"]), job.save):
        with pytest.raises(IllegalMove):
            write()


@pytest.mark.parametrize(("old", "new"), list(itertools.product(STATES, STATES)))
def test_the_database_rejects_illegal_state_transitions(old: str, new: str) -> None:
    job = bring(old)
    changes = {"state": new, **columns(new, job)} if old != new else {"priority": 5}
    if (old, new) == ("queued", "running"):
        changes["attempts"] = 1
    rows = QuerySet(Job).filter(pk=job.pk)  # past our own guard, as a script or another program would write
    if new in TRANSITIONS[old] or old == new:
        assert rows.update(**changes) == 1
    else:
        with pytest.raises(IntegrityError, match="illegal state transition of a job"), transaction.atomic():
            rows.update(**changes)
    assert Job.objects.get(pk=job.pk).state == (new if new in TRANSITIONS[old] else old)


@pytest.mark.parametrize(("state", "attempts"), [("queued", 1), ("running", 0), ("running", 2), ("failed", 2)])
def test_the_database_counts_the_attempts_with_us(state: str, attempts: int) -> None:
    job = bring(state)
    with pytest.raises(IntegrityError, match="rise by one when it is claimed"), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(attempts=attempts)


def test_the_database_rejects_changes_to_the_end_of_a_job() -> None:
    job = bring("succeeded")
    for change in ({"result": 2}, {"result": None}, {"result_raw": b"x"}, {"finished_at": Now()}):
        with pytest.raises(IntegrityError, match="of an ended job must not change"), transaction.atomic():
            Job.objects.filter(pk=job.pk).update(**change)
    assert Job.objects.filter(pk=job.pk).update(expires_at=Now(), tags=",kept,") == 1


def test_the_database_accepts_output_only_from_the_newest_running_attempt() -> None:
    job = bring("running")
    say(job, attempt=1)
    with pytest.raises(IntegrityError, match="only the newest, running attempt"), transaction.atomic():
        say(job, attempt=2)
    expire(job)
    assert reconciler.reconcile()["freed"] == 1
    with pytest.raises(IntegrityError, match="only the newest, running attempt"), transaction.atomic():
        say(job, attempt=1)  # it waits
    Job.objects.filter(pk=job.pk).update(run_after=None)
    assert leases.claim(job.pk, "another", "")
    with pytest.raises(IntegrityError, match="only the newest, running attempt"), transaction.atomic():
        say(job, attempt=1)  # the one that was frozen wakes up
    say(job, attempt=2)
    newest = Job.objects.get(pk=job.pk)
    assert leases.succeed(newest, 1, {})
    with pytest.raises(IntegrityError, match="only the newest, running attempt"), transaction.atomic():
        say(job, attempt=2)  # it has ended
    assert [entry.attempt for entry in job.entries.order_by("seq")] == [1, 2]


def say(job: Job, attempt: int) -> None:
    """Past the fence of `hold.keep`, as a script or another program would write."""
    JobEntry.objects.bulk_create([JobEntry(job_id=job.pk, seq=job.entries.count() + 1, attempt=attempt, kind="log")])


def test_the_guards_are_made_anew_after_a_migrate_that_lost_them() -> None:
    job, running = bring("succeeded"), bring("running")
    with connection.cursor() as cursor:
        # What Django does on SQLite, when it copies a table to change it, does this too.
        for name, table in ((job_guard.NAME, job_guard.TABLE), (job_guard.ENTRIES_NAME, job_guard.ENTRIES)):
            cursor.execute(f"drop trigger {name}{'' if connection.vendor == 'sqlite' else f' on {table}'}")
    with transaction.atomic():
        assert QuerySet(Job).filter(pk=job.pk).update(result=2) == 1
        say(running, attempt=2)
        transaction.set_rollback(True)
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")
    with pytest.raises(IntegrityError), transaction.atomic():
        QuerySet(Job).filter(pk=job.pk).update(result=2)
    with pytest.raises(IntegrityError), transaction.atomic():
        say(running, attempt=2)


def test_a_guard_that_is_there_is_left_alone() -> None:
    with CaptureQueriesContext(connection) as seen:
        job_guard.install()
    assert not [one["sql"] for one in seen if "create" in one["sql"].lower()]


def bring(state: str) -> Job:
    """A job in some state, along legal moves."""
    if state == "blocked":
        return Job.objects.create(pool="digits", command="classify", state="blocked")
    job = submitted()
    if state == "queued":
        return job
    claimed = leases.claim(job.pk, "test", "node-1")
    assert claimed is not None
    if state == "succeeded":
        leases.succeed(claimed, 1, {})
    elif state != "running":
        leases.fail(claimed, Transition(state), {"code": "x"}, {})
    return Job.objects.get(pk=job.pk)


def columns(state: str, job: Job) -> dict[str, Any]:
    held = {"lease_until": Now(), "claimed_by": "x", "attempts": job.attempts + 1}
    free = {"lease_until": None, "claimed_by": "", "error": None}
    if state == "running":
        return {**held, "finished_at": None, "expires_at": None, "result": None}
    return {**free, **(leases.waiting(0) if state in ("blocked", "queued") else leases.ended(1))}


@pytest.mark.parametrize(
    "impossible",
    [
        {"finished_at": Now()},
        {"lease_until": Now()},
        {"claimed_by": "somebody"},
        {"result": 5},
        {"priority": 101},
        {"failures": 1},
        {"max_attempts": 0},
        {"progress": 1.5},
        {"timeout": 0.0},
        {"retry": "perhaps"},
        {"command": ""},
    ],
    ids=str,
)
def test_the_database_refuses_a_row_that_cannot_be(impossible: dict[str, Any]) -> None:
    job = submitted()
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(**impossible)


def test_the_database_refuses_an_end_without_its_time() -> None:
    job = submitted()
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).move("cancelled")


# Submission.


def test_a_job_is_sent_when_the_transaction_commits_and_only_then(
    wire: Wire, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = submitted(tags=["night", "b"], owner="ada")
        assert wire.sent == []
    assert wire.sent == [(str(job.pk), "snakepit.digits", 0.0)]
    assert (job.state, job.tag_list, job.owner, job.max_attempts) == ("queued", ["night", "b"], "ada", 3)


@pytest.mark.django_db(transaction=True)
def test_a_job_is_accepted_if_the_database_goes_after_its_commit(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    def gone(job: Job) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr("snakepit.pools.jobs.submission._announce", gone)
    job = submitted()
    assert Job.objects.get(pk=job.pk).state == "queued"


def test_a_job_for_later_is_not_sent_now(wire: Wire, django_capture_on_commit_callbacks: Callable[..., Any]) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = submitted(run_after=timezone.now() + timedelta(hours=1))
    assert wire.sent == []
    assert leases.claim(job.pk, "test", "") is None
    assert reconciler.reconcile()["sent"] == 0
    Job.objects.filter(pk=job.pk).update(run_after=Now())
    assert reconciler.reconcile()["sent"] == 1
    assert wire.sent == [(str(job.pk), "snakepit.digits", 0.0)]
    assert reconciler.reconcile()["sent"] == 0


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"priority": 101}, BadRequest, "priority"),
        ({"priority": True}, BadRequest, "priority"),
        ({"timeout": 0}, BadRequest, "timeout"),
        ({"timeout": float("nan")}, BadRequest, "timeout"),
        ({"run_after": "tomorrow"}, BadRequest, "run_after"),
        ({"deadline": datetime(2100, 1, 1)}, BadRequest, "deadline"),
        ({"retry": "perhaps"}, BadRequest, "retry"),
        ({"tags": ["No"]}, BadRequest, "tags"),
        ({"tags": "night"}, BadRequest, "tags"),
        ({"idempotency_key": "a\0b"}, BadRequest, "idempotency_key"),
        ({"idempotency_key": "x" * 201}, BadRequest, "idempotency_key"),
        ({"max_attempts": 101}, BadRequest, "max_attempts"),
        ({"retention": -1}, BadRequest, "retention"),
        ({"owner": 5}, BadRequest, "owner"),
        ({"pool": "nothing"}, PoolUnknown, "nothing"),
        ({"pool": "nul\0"}, BadRequest, "pool"),
        ({"command": "a b"}, BadRequest, "command"),
        ({"arguments": [1]}, BadArguments, "arguments"),
        ({"arguments": {"x": float("inf")}}, BadArguments, "x"),
        ({"arguments": {"x": "\0"}}, BadArguments, "x"),
        ({"arguments": {"x": "y" * 2**20}}, PayloadTooLarge, "1,048,576"),
    ],
    ids=str,
)
def test_a_bad_submission_is_refused_by_name(options: dict[str, Any], error: type[BrokerError], named: str) -> None:
    wanted = {"pool": "digits", "command": "classify", "arguments": {}, **options}
    with pytest.raises(error, match=named):
        jobs.submit(**wanted)
    assert not Job.objects.exists()


def test_jobs_that_wait_are_bounded(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_QUEUED_LIMIT": 2}
    submitted()
    submitted()
    with pytest.raises(QueueFull):
        submitted()


def test_an_idempotency_key_finds_its_job() -> None:
    job = submitted(idempotency_key="k", owner="ada")
    assert submitted(idempotency_key="k", owner="ada").pk == job.pk
    assert submitted(idempotency_key="k", owner="bob").pk != job.pk
    with pytest.raises(BadRequest, match="another command or other arguments"):
        jobs.submit("digits", "classify", {"pixels": [2]}, idempotency_key="k", owner="ada")


def together(work: Callable[[], Any], count: int = 4) -> list[Any]:
    """The same work in threads that start at the same moment."""
    start, results = threading.Barrier(count), []

    def one() -> None:
        start.wait(60)
        try:
            results.append(work())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == count
    return results


@pytest.mark.django_db(transaction=True)
def test_one_idempotency_key_in_many_threads_makes_one_job() -> None:
    assert len({job.pk for job in together(lambda: submitted(idempotency_key="k"))}) == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_claims_one_wins() -> None:
    job = submitted()
    won = [one for one in together(lambda: leases.claim(job.pk, "test", "node-1")) if one is not None]
    assert [one.attempts for one in won] == [1]
    assert JobAttempt.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_concurrent_ticks_send_a_job_once(wire: Wire) -> None:
    job = submitted()
    wire.sent.clear()
    Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(hours=1))
    assert sum(tick["sent"] for tick in together(reconciler.reconcile)) == 1
    assert wire.sent == [(str(job.pk), "snakepit.jobs", 0.0)]


# Attempts.


@pytest.mark.usefixtures("fast")
def test_a_job_ends_with_its_result_and_its_output() -> None:
    script = [Progress(0.5, "half"), Log("a line"), Chunk({"n": 1}), Chunk(b"\0\1"), answer({"n": float("nan")})]
    client = ScriptedClient(script)
    job = run(submitted(priority=5, timeout=3.0), client)
    assert (job.state, job.value, job.attempts, job.progress) == ("succeeded", {"n": None}, 1, 1.0)
    said = [(entry.seq, entry.kind, entry.data) for entry in job.entries.order_by("seq")]
    assert said == [
        (1, "progress", {"fraction": 0.5, "message": "half"}),
        (2, "log", {"message": "a line"}),
        (3, "chunk", {"n": 1}),
        (4, "chunk", {"$bytes": "AAE="}),
    ]
    assert client.calls == [("digits", "classify", {"pixels": [1]}, {"timeout": 3.0, "priority": 5})]
    tried = job.tries.get()
    assert (tried.outcome, tried.worker, tried.call, tried.node) == ("succeeded", "digits-1", "call-1", "node-1")
    assert tried.finished_at is not None


@pytest.mark.usefixtures("fast")
def test_bytes_go_in_and_come_out_as_they_are() -> None:
    client = ScriptedClient([answer(b"\0result")])
    job = run(jobs.submit("digits", "classify", {"image": b"\xff"}), client)
    assert job.value == b"\0result"
    assert client.calls[0][2] == {"image": b"\xff"}


@pytest.mark.usefixtures("fast")
def test_output_beyond_the_limits_is_truncated_with_a_mark(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_ENTRIES": 5}
    job = run(submitted(), ScriptedClient([*(Chunk(n) for n in range(100)), answer(1)]))
    assert [entry.kind for entry in job.entries.order_by("seq")] == ["chunk"] * 4 + ["truncated"]
    assert job.truncated
    assert job.state == "succeeded"


@pytest.mark.usefixtures("fast")
def test_a_command_that_raises_fails_its_job_immediately() -> None:
    job = run(submitted(), ScriptedClient([AdapterError("KeyError: 'x'", details={"type": "KeyError"})]))
    assert (job.state, job.attempts) == ("failed", 1)
    assert job.error == {
        "code": "adapter_error", "message": "KeyError: 'x'", "outcome": "failed", "details": {"type": "KeyError"},
    }  # fmt: skip


@pytest.mark.usefixtures("fast")
def test_a_command_that_raises_is_tried_again_where_that_was_asked(wire: Wire) -> None:
    job = submitted(retry="always", max_attempts=2, backoff=0)
    assert run(job, ScriptedClient([AdapterError("no")])).state == "queued"
    job = run(job)
    assert (job.state, job.attempts, job.failures, job.error) == ("succeeded", 2, 1, None)


@pytest.mark.usefixtures("fast")
def test_a_broker_that_comes_back_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "PATIENCE", 20.0)
    away = BrokerUnreachable("away", outcome="not_started")
    job = run(submitted(), ScriptedClient([away], [away]))
    assert (job.state, job.attempts) == ("succeeded", 1)


@pytest.mark.usefixtures("fast")
def test_a_broker_that_stays_away_gives_the_job_back_without_counting(wire: Wire) -> None:
    away = BrokerUnreachable("away", outcome="not_started")
    job = run(submitted(), ScriptedClient(*([away] for _ in range(50))))
    assert (job.state, job.attempts, job.failures) == ("queued", 1, 0)
    assert job.run_after is not None


@pytest.mark.usefixtures("fast")
def test_a_job_that_kills_its_workers_is_quarantined_with_the_evidence() -> None:
    job = submitted(max_attempts=10, backoff=0)
    lost = WorkerLost("Worker digits-1 was lost", details={"worker": "digits-1", "output": "Fatal: \0 segfault"})
    assert run(job, ScriptedClient([lost])).state == "queued"
    job = run(job, ScriptedClient([lost]))
    assert (job.state, job.attempts, job.deaths) == ("quarantined", 2, 2)
    evidence = [one.evidence["output"] for one in job.tries.order_by("number") if one.evidence]
    assert evidence == ["Fatal: \ufffd segfault"] * 2


@pytest.mark.usefixtures("fast")
def test_work_that_may_have_run_is_not_repeated_where_safe_was_asked() -> None:
    job = run(submitted(retry="safe"), ScriptedClient([WorkerLost("gone")]))
    assert job.state == "lost"
    job = run(submitted(retry="safe"), ScriptedClient([WorkerLost("gone")], idempotent=True))
    assert job.state == "queued"


@pytest.mark.usefixtures("fast")
def test_a_deadline_bounds_the_call() -> None:
    client = ScriptedClient()
    run(submitted(deadline=timezone.now() + timedelta(seconds=60), timeout=300), client)
    assert 50 < client.calls[0][3]["timeout"] <= 60
    job = submitted(deadline=timezone.now() - timedelta(seconds=1))
    assert reconciler.reconcile()["overdue"] == 1
    job.refresh_from_db()
    assert job.state == "failed"
    assert job.error["code"] == "deadline_exceeded"


@pytest.mark.usefixtures("fast")
def test_a_running_job_is_cancelled_and_its_call_ended() -> None:
    job = submitted()
    client = ScriptedClient([lambda: (jobs_cancel(job), Progress(0.1, ""))[1], "hang"])
    job = run(job, client)
    assert job.state == "cancelled"
    assert client.closed.wait(60)
    assert job.tries.get().outcome == "cancelled"


def jobs_cancel(job: Job) -> None:
    # The script runs on the event loop, the test's connection belongs to another thread: asked as a note.
    CANCELS.append(job.pk)


CANCELS: list[Any] = []


@pytest.fixture(autouse=True)
def cancels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a script asks for is done by the attempt's own thread, just before it looks at the row."""
    look = leases.check

    def looked(some: Sequence[Job]) -> dict[tuple[Any, int], bool]:
        while CANCELS:
            jobs.cancel(CANCELS.pop())
        return look(some)

    monkeypatch.setattr(leases, "check", looked)
    yield
    CANCELS.clear()


@pytest.mark.usefixtures("fast")
def test_a_celery_worker_that_stops_requeues_its_job(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    stopping = attempt.Stopping()
    monkeypatch.setattr(attempt, "stopping", stopping)
    stopping.begin(0.0)
    job = run(submitted(), ScriptedClient(["hang"]))
    assert (job.state, job.attempts, job.failures) == ("queued", 1, 0)
    assert job.tries.get().outcome == "requeued"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("retry", "idempotent", "state"),
    [("never", True, "lost"), ("safe", False, "lost"), ("safe", True, "queued"), ("always", False, "queued")],
)
def test_a_celery_worker_that_stops_gives_back_only_what_may_run_again(
    monkeypatch: pytest.MonkeyPatch, retry: str, idempotent: bool, state: str
) -> None:
    stopping = attempt.Stopping()
    monkeypatch.setattr(attempt, "stopping", stopping)
    begun = [lambda: (stopping.begin(0.0), Progress(0.1, ""))[1], "hang"]
    job = run(submitted(retry=retry), ScriptedClient(begun, idempotent=idempotent))
    assert job.state == state
    assert job.tries.get().outcome == ("shutting_down" if state == "lost" else "requeued")


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("retry", ["never", "lost"])
def test_a_celery_worker_that_stops_gives_back_a_job_whose_call_was_not_made(
    monkeypatch: pytest.MonkeyPatch, retry: str
) -> None:
    stopping = attempt.Stopping()
    monkeypatch.setattr(attempt, "stopping", stopping)
    stopping.begin(0.0)
    client = ScriptedClient(["hang"])
    assert run(submitted(retry=retry), client).state == "queued"
    assert client.calls == []


@pytest.mark.usefixtures("fast")
def test_a_broker_that_is_lost_before_the_command_reports_costs_no_attempt() -> None:
    job = submitted(max_attempts=1)
    for number in (1, 2, 3):
        job = run(job, ScriptedClient([BrokerUnreachable("silent", outcome="unknown")]))
        assert (job.state, job.attempts, job.failures) == ("queued", number, 0)
    job = run(job, ScriptedClient([Progress(0.1, ""), BrokerUnreachable("silent", outcome="unknown")]))
    assert (job.state, job.failures) == ("lost", 1)


class SilentClient(ScriptedClient):
    """The broker is lost during the call, and answers nothing afterwards, or nothing at all."""

    answering = 1

    def commands(self, pool: str) -> tuple[CommandInfo, ...]:
        self.answering -= 1
        if self.answering < 0:
            raise BrokerUnreachable("silent")
        return super().commands(pool)


@pytest.mark.usefixtures("fast")
def test_a_safe_job_is_repeated_although_the_lost_broker_cannot_be_asked() -> None:
    client = SilentClient([BrokerUnreachable("silent", outcome="unknown")], idempotent=True)
    job = run(submitted(retry="safe", max_attempts=1), client)
    assert (job.state, job.failures) == ("queued", 0)


@pytest.mark.usefixtures("fast")
def test_a_safe_job_is_not_called_on_a_broker_that_does_not_answer() -> None:
    client = SilentClient()
    client.answering = 0
    job = run(submitted(retry="safe", max_attempts=1), client)
    assert (job.state, job.failures) == ("queued", 0)
    assert client.calls == []


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("answering", "state"), [(1, "queued"), (9, "failed")])
def test_a_call_whose_timeout_ends_on_a_silent_broker_costs_no_attempt(answering: int, state: str) -> None:
    client = SilentClient([DeadlineExceeded("silent", outcome="unknown")])
    client.answering = answering
    job = run(submitted(timeout=5, max_attempts=1), client)
    assert (job.state, job.failures) == (state, int(state == "failed"))


@pytest.mark.usefixtures("fast")
def test_a_call_whose_time_ends_in_the_queue_costs_no_attempt_until_the_deadline() -> None:
    waited = DeadlineExceeded("no worker was free", outcome="not_started")
    job = run(submitted(timeout=5, max_attempts=1), ScriptedClient([waited]))
    assert (job.state, job.failures) == ("queued", 0)
    job = run(submitted(deadline=timezone.now() - timedelta(seconds=1)), ScriptedClient())
    assert (job.state, job.error["code"]) == ("failed", "deadline_exceeded")


# The fence, and reconcile.


@pytest.mark.usefixtures("fast")
def test_an_old_attempt_writes_nothing() -> None:
    job = submitted()
    old = leases.claim(job.pk, "frozen", "node-1")
    assert old is not None
    expire(job)
    assert reconciler.reconcile()["freed"] == 1
    Job.objects.filter(pk=job.pk).update(run_after=None)
    new = leases.claim(job.pk, "newer", "node-2")
    assert new is not None
    assert not leases.renew([old])
    assert leases.check([old]) == {}
    assert not leases.append_entries(old, [("chunk", 1)], (0.9, "old"))
    assert not leases.succeed(old, "old", {})
    assert not leases.fail(old, Transition("failed"), None, {})
    runner.run_claimed(old, ScriptedClient([answer("old")]))  # type: ignore[arg-type]
    assert not JobEntry.objects.exists()
    assert leases.succeed(new, "new", {})
    job.refresh_from_db()
    assert (job.state, job.value, job.attempts) == ("succeeded", "new", 2)
    assert [one.outcome for one in job.tries.order_by("number")] == ["lease_expired", "succeeded"]


def test_a_lease_that_is_renewed_is_not_taken_away() -> None:
    job = submitted()
    held = leases.claim(job.pk, "test", "")
    assert held is not None
    expire(job)
    assert leases.renew([held])
    assert reconciler.reconcile()["freed"] == 0


# The wall clock clock_jumps: nothing is lost, nothing runs twice, nothing waits as long as the jump was.


def test_a_clock_that_goes_forward_ends_no_lease_before_the_living_could_renew_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = leases.claim(submitted().pk, "test", "")
    assert held is not None
    assert reconciler.reconcile()["freed"] == 0
    expire(held)
    ahead = reconciler._database_clock() + 7200
    monkeypatch.setattr(reconciler, "_database_clock", lambda: ahead)
    assert reconciler.reconcile()["freed"] == 0
    assert leases.renew([held])


def test_a_clock_that_goes_forward_during_a_tick_ends_no_lease_either(monkeypatch: pytest.MonkeyPatch) -> None:
    held = leases.claim(submitted().pk, "test", "")
    assert held is not None
    repair, ahead = reconciler._repair_after_clock_set_back, reconciler._database_clock() + 7200

    def repair_and_jump(lease: float) -> None:  # between the look at the clock and the search for expired leases
        repair(lease)
        expire(held)
        monkeypatch.setattr(reconciler, "_database_clock", lambda: ahead)

    monkeypatch.setattr(reconciler, "_repair_after_clock_set_back", repair_and_jump)
    assert reconciler.reconcile()["freed"] == 0
    assert leases.renew([held])


def test_a_process_that_begins_after_the_clock_went_forward_ends_no_lease_of_the_living(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciler, "clock_jumps", reconciler.ClockJumps())
    held = leases.claim(submitted().pk, "test", "")
    assert held is not None
    expire(held)
    assert reconciler.reconcile()["freed"] == 0
    assert leases.renew([held])


def test_a_database_that_answers_late_is_no_jump_of_the_clock(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconciler, "clock_jumps", reconciler.ClockJumps())
    now, delays = [1000.0], [0.0, 13.0, 0.0]  # seconds that each reading of the database's clock takes

    def database_clock() -> float:
        now[0] += delays.pop(0) if delays else 0.0
        return now[0] + 5000.0

    monkeypatch.setattr(reconciler, "_database_clock", database_clock)
    monkeypatch.setattr(reconciler, "time", SimpleNamespace(monotonic=lambda: now[0]))
    reconciler.check_clock()
    reconciler.check_clock()
    assert "set forward" not in caplog.text


def test_leases_are_unreliable_for_one_lease_after_a_jump_but_not_after_a_drift() -> None:
    clock_jumps = reconciler.ClockJumps()
    told = [
        (0.0, 100.0), (19.0, 119.0), (20.0, 121.0), (40.0, 141.0),
        (50.0, 7350.0), (79.0, 7379.0), (80.0, 7380.0), (90.0, 190.0), (91.0, 191.0),
    ]  # fmt: skip
    assert [clock_jumps.leases_unreliable(monotonic, wall, 30.0) for monotonic, wall in told] == [
        True, True, False, False, True, True, False, False, False,
    ]  # fmt: skip


def test_a_dead_attempts_lease_ends_in_time_although_the_clock_went_back() -> None:
    job = submitted()
    assert leases.claim(job.pk, "dead", "")
    Job.objects.filter(pk=job.pk).update(lease_until=leases.moment(7200))
    reconciler.reconcile()
    assert Job.objects.filter(pk=job.pk, lease_until__lte=leases.moment(conf.current().jobs_lease)).exists()


def test_a_pause_between_attempts_is_over_although_the_clock_went_back(wire: Wire) -> None:
    job = bring("queued")
    held = leases.claim(job.pk, "test", "")
    assert held is not None
    assert leases.fail(held, Transition("queued", pause=2.0), None, {})
    ahead = {name: leases.moment(7200) for name in ("queued_at", "run_after", "sent_at")}
    Job.objects.filter(pk=job.pk).update(**ahead)
    assert reconciler.reconcile()["sent"] == 1
    assert leases.claim(job.pk, "test", "")


def test_what_was_sent_before_the_clock_went_back_is_sent_again(wire: Wire) -> None:
    job = submitted()
    Job.objects.filter(pk=job.pk).update(sent_at=leases.moment(7200))
    assert reconciler.reconcile()["sent"] == 1
    assert reconciler.reconcile()["sent"] == 0
    later = submitted(run_after=timezone.now() + timedelta(hours=1))
    assert leases.claim(later.pk, "test", "") is None  # the caller's `run_after` is not changed


def test_a_job_whose_attempts_vanish_is_lost_in_the_end() -> None:
    job = submitted(max_attempts=2, backoff=0)
    for _ in range(2):
        Job.objects.filter(pk=job.pk).update(run_after=None)
        assert leases.claim(job.pk, "test", "")
        expire(job)
        reconciler.reconcile()
    job.refresh_from_db()
    assert (job.state, job.attempts) == ("lost", 2)


@pytest.mark.parametrize(("idempotent", "state"), [(True, "queued"), (False, "lost")])
def test_a_safe_job_whose_attempt_vanished_is_repeated_if_its_command_is_idempotent(
    monkeypatch: pytest.MonkeyPatch, idempotent: bool, state: str
) -> None:
    client = ScriptedClient(idempotent=idempotent)
    monkeypatch.setattr(shared, "client", lambda: client)
    job = submitted(retry="safe")
    assert leases.claim(job.pk, "test", "")
    expire(job)
    assert reconciler.reconcile()["freed"] == 1
    job.refresh_from_db()
    assert job.state == state


def test_a_safe_job_whose_attempt_vanished_waits_for_a_broker_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SilentClient(idempotent=True)
    client.answering = 0
    monkeypatch.setattr(shared, "client", lambda: client)
    job = submitted(retry="safe")
    assert leases.claim(job.pk, "test", "")
    expire(job)
    assert reconciler.reconcile()["freed"] == 0
    client.answering = 1
    monkeypatch.setattr(commands, "cache", commands.CommandCache(patience=60.0))
    assert reconciler.reconcile()["freed"] == 1
    job.refresh_from_db()
    assert job.state == "queued"


def test_a_cancelled_job_whose_attempt_vanished_is_cancelled() -> None:
    job = submitted()
    assert leases.claim(job.pk, "test", "")
    jobs.cancel(job.pk)
    expire(job)
    reconciler.reconcile()
    job.refresh_from_db()
    assert job.state == "cancelled"


def test_a_message_that_got_lost_is_sent_again_ever_more_rarely(wire: Wire) -> None:
    job = submitted()
    for ago, sent in ((15, 0), (31, 1), (45, 0), (61, 1), (100, 0), (121, 1), (100, 0), (121, 1)):
        Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(seconds=ago))
        assert reconciler.reconcile()["sent"] == sent, ago
    assert len(wire.sent) == 4


def test_a_message_from_before_a_loss_of_the_transport_is_not_waited_for(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "connection_age", connection_age := ConnectionAge())
    job = submitted()
    connection_age.begin()  # a moment ago: all that was sent before may be gone
    for ago, sent in ((15, 0), (31, 1), (31, 1), (31, 1), (31, 1)):
        Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(seconds=ago))
        assert reconciler.reconcile()["sent"] == sent, ago
    connection_age.lasted = 60.0  # what is younger lies in a queue, and is sent again as rarely as ever
    Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(seconds=40))
    assert reconciler.reconcile()["sent"] == 0
    Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(seconds=61))
    assert reconciler.reconcile()["sent"] == 1


class ConnectionAge(messages.ConnectionAge):
    """The connection of a Celery worker, whose age the test sets."""

    lasted = 0.0

    def seconds(self) -> float | None:
        return None if super().seconds() is None else self.lasted


def test_a_transport_that_is_away_loses_nothing(wire: Wire) -> None:
    job = submitted()
    Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(seconds=31))
    wire.away = True
    assert reconciler.reconcile()["sent"] == 0
    wire.away = False
    assert reconciler.reconcile()["sent"] == 1


def test_ended_jobs_are_pruned_when_their_time_is_over() -> None:
    kept, old, waiting = bring("succeeded"), bring("failed"), submitted()
    Job.objects.filter(pk=old.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert deletion.prune() == 1
    assert set(Job.objects.values_list("pk", flat=True)) == {kept.pk, waiting.pk}
    assert not JobAttempt.objects.filter(job_id=old.pk).exists()


# People.


def test_a_queued_job_is_cancelled_immediately_and_stays_cancelled(wire: Wire) -> None:
    job = jobs.cancel(submitted().pk)
    assert job.state == "cancelled"
    assert leases.claim(job.pk, "test", "") is None
    assert jobs.cancel(job.pk).state == "cancelled"


@pytest.mark.parametrize("state", ["failed", "lost", "quarantined", "cancelled"])
def test_a_job_that_did_not_succeed_is_retried_in_its_row(state: str) -> None:
    job = bring(state)
    again = jobs.retry(job.pk)
    assert (again.state, again.failures, again.error, again.finished_at) == ("queued", 0, None, None)
    claimed = leases.claim(job.pk, "test", "")
    assert claimed is not None
    assert claimed.attempts == 2


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_a_job_that_runs_or_succeeded_is_not_retried(state: str) -> None:
    with pytest.raises(BadRequest, match=state):
        jobs.retry(bring(state).pk)


def test_a_clone_asks_for_the_same_and_is_another_job() -> None:
    job = submitted(priority=3, tags=["a"], idempotency_key="k")
    twin = jobs.clone(job.pk)
    assert twin.pk != job.pk
    assert (twin.arguments, twin.priority, twin.tags, twin.idempotency_key) == ({"pixels": [1]}, 3, ",a,", "")


@pytest.mark.usefixtures("fast")
def test_signals_tell_of_a_job_and_a_receiver_that_raises_harms_nothing(
    django_capture_on_commit_callbacks: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []
    names = {one: getattr(signals, one) for one in ("job_submitted", "job_progressed", "job_finished")}

    def broken(**_: Any) -> None:
        raise RuntimeError("a receiver's own fault")

    def note(signal: Any, job: Job, **_: Any) -> None:
        told.append((next(name for name, one in names.items() if one is signal), job.state))

    for signal in names.values():
        signal.connect(broken)
        signal.connect(note)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            job = submitted()
        run(job, ScriptedClient([Progress(0.5, ""), answer(1)]))
    finally:
        for signal in names.values():
            signal.disconnect(broken)
            signal.disconnect(note)
    assert told == [("job_submitted", "queued"), ("job_progressed", "running"), ("job_finished", "succeeded")]
    assert "a receiver's own fault" in caplog.text


def test_the_settings_of_jobs_have_their_ranges() -> None:
    assert (conf.current().jobs_lease, conf.current().reconcile_interval) == (30.0, 15.0)


# A database that goes away between the write of an end and what follows it.


@pytest.fixture
def finished() -> Iterator[list[str]]:
    """The jobs of which `job_finished` or `job_requeued` was sent."""
    sent: list[str] = []

    def receiver(job: Job, **_: Any) -> None:
        sent.append(str(job.pk))

    for signal in (signals.job_finished, signals.job_requeued):
        signal.connect(receiver)
    yield sent
    for signal in (signals.job_finished, signals.job_requeued):
        signal.disconnect(receiver)


class Lost:
    """Raises the error of a lost connection at the first calls, before or after the work itself."""

    def __init__(self, work: Callable[..., Any], times: int = 1, *, after: bool = False) -> None:
        self.work, self.left, self.after = work, times, after

    def __call__(self, *given: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            return self.work(*given, **more)
        if self.after:
            self.work(*given, **more)
        raise OperationalError("server closed the connection unexpectedly")


DONE: list[Any] = [Answer(7, "call-1", "digits-1", 0.0, 0.0)]
AGAIN: list[Any] = [WorkerLost("gone")]


def run_batch(scripts: list[list[Any]]) -> tuple[runner.BatchRunner, list[str]]:
    made = [leases.claim(submitted().pk, "test", "node-1") for _ in scripts]
    one = runner.BatchRunner(ScriptedClient(*scripts, idempotent=True))  # type: ignore[arg-type]
    one.adopt(job for job in made if job is not None)
    one.run()
    return one, [str(job.pk) for job in made if job is not None]


@pytest.mark.parametrize("name", ["emit_finished", "emit_requeued"])
def test_no_signal_is_lost_with_the_connection_to_the_database(
    name: str, wire: Wire, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, name, Lost(getattr(runner, name)))
    script = DONE if name == "emit_finished" else AGAIN
    _, ids = run_batch([script] * 3)
    assert sorted(finished) == sorted(ids)
    assert len(wire.sent) == (0 if name == "emit_finished" else 3)


@pytest.mark.parametrize("script", [DONE, AGAIN])
def test_an_end_whose_commit_was_not_confirmed_is_no_end_that_came_too_late(
    script: list[Any], wire: Wire, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.ends, "write", Lost(runner.ends.write, after=True))
    one, ids = run_batch([script] * 2)
    assert sorted(finished) == sorted(ids)
    states = dict(Job.objects.values_list("pk", "state"))
    assert one.states == states
    assert len(wire.sent) == list(states.values()).count("queued")


@pytest.mark.django_db(transaction=True)  # no connection is replaced within a transaction
def test_what_follows_an_end_survives_a_lost_connection() -> None:
    done: list[str] = []
    first = Lost(lambda: done.append("first"))
    gone = Lost(lambda: done.append("gone"), 10)
    after_end.announce([first, gone, lambda: done.append("last")])
    assert done == ["first", "last"]


@pytest.mark.django_db(transaction=True)
def test_an_order_on_jobs_is_done_also_if_the_database_goes_after_its_commit(
    wire: Wire, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bulk_actions, control):
        monkeypatch.setattr(module, "emit_requeued", Lost(signals.emit_requeued, 2))
    monkeypatch.setattr(bulk_actions, "emit_finished", Lost(signals.emit_finished))
    ids = [str(submitted().pk) for _ in range(3)]
    assert bulk_actions.act("cancel", Job.objects.all()).done == 3
    assert sorted(finished) == sorted(ids)
    assert bulk_actions.act("retry", Job.objects.all()).done == 3
    jobs.cancel(ids[0])
    assert jobs.retry(ids[0]).state == "queued"
