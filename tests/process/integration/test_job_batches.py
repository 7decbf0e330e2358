"""Claims and ends of many jobs at once: one statement, and each row behind its own guard."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from snakepit.pools import jobs
from snakepit.pools.jobs import claimed_rows, claims, ends, leases, signals
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobAttempt, Pool
from tests.process.integration.test_jobs import broker, pool, submitted, wire

__all__ = ["broker", "pool", "wire"]  # fixtures
pytestmark = pytest.mark.django_db

BIG = 200  # jobs: more than one statement of `ends` has rows


def many(count: int, **options: Any) -> list[Job]:
    return jobs.submit_many("digits", "classify", [{"pixels": [n]} for n in range(count)], **options)


def rows(state: str) -> list[Job]:
    return list(Job.objects.filter(state=state).order_by("id"))


def test_a_batch_takes_the_urgent_jobs_first_and_adds_their_attempts() -> None:
    low, high = many(3), many(2, priority=5)
    taken = claims.claim_batch("digits", 4, "host:1:1", "node-1")
    assert [job.pk for job in taken] == [job.pk for job in (*high, *low[:2])]
    assert {(job.state, job.attempts, job.claimed_by) for job in taken} == {("running", 1, "host:1:1")}
    assert all(job.lease_until > job.started_at for job in taken if job.lease_until and job.started_at)
    assert taken[0].arguments == {"pixels": [0]}
    tried = JobAttempt.objects.filter(job__in=taken)
    assert {(one.number, one.claimed_by, one.node, one.outcome) for one in tried} == {(1, "host:1:1", "node-1", "")}
    assert {one.job_id: one.started_at for one in tried} == {job.pk: job.started_at for job in taken}
    assert [job.pk for job in claims.claim_batch("digits", 4, "host:1:1", "")] == [low[2].pk]
    assert claims.claim_batch("digits", 4, "host:1:1", "") == []


def test_a_claim_reads_nothing_first_while_one_owner_has_all_queued_jobs() -> None:
    many(3, owner="ada")
    with CaptureQueriesContext(connection) as seen:
        assert len(claims.claim_batch("digits", 2, "host:1:1", "")) == 2
    assert not [one["sql"] for one in seen if one["sql"].startswith("SELECT")]
    made = many(1, owner="bob")
    taken = claims.claim_batch("digits", 1, "host:1:1", "")
    assert [job.pk for job in taken] == [made[0].pk], "the owners do not take turns"


def test_a_claim_reads_the_columns_that_an_attempt_needs_and_a_receiver_gets_all() -> None:
    many(2, tags=["a"], deadline=timezone.now() + timedelta(hours=1))
    (few,) = claims.claim_batch("digits", 1, "a", "here")
    signals.job_started.connect(print)
    try:
        (full,) = claims.claim_batch("digits", 1, "b", "here")
    finally:
        signals.job_started.disconnect(print)
    assert {"result", "created_at", "claimed_by"} <= few.get_deferred_fields()
    assert not full.get_deferred_fields()
    names = [name for name in claimed_rows.USED if name not in ("id", "arguments")]
    assert [getattr(few, name) for name in names] == [getattr(full, name) for name in names]
    for one in (few, full):
        row = Job.objects.get(pk=one.pk)
        assert [getattr(one, name) for name in claimed_rows.ALL] == [getattr(row, name) for name in claimed_rows.ALL]


def test_a_batch_leaves_jobs_that_are_not_due_or_cancelled_or_of_another_pool() -> None:
    Pool.objects.create(name="other", adapter="digits", size=1)
    due = submitted()
    jobs.submit("other", "classify", {"pixels": [1]})
    Job.objects.filter(pk=submitted().pk).update(run_after=Now() + timedelta(hours=1))
    Job.objects.filter(pk=submitted().pk).update(cancel_requested=True)
    assert [job.pk for job in claims.claim_batch("digits", 9, "host:1:1", "")] == [due.pk]
    assert claims.claim_batch("digits", 0, "host:1:1", "") == []


@pytest.mark.django_db(transaction=True)
def test_concurrent_batches_share_no_job() -> None:
    made = many(40)
    start, taken = threading.Barrier(4), []

    def take(number: int) -> None:
        start.wait(60)
        try:
            while found := leases.with_retries(lambda: claims.claim_batch("digits", 3, f"host:{number}:1", ""), 60):
                taken.extend(job.pk for job in found)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # A batch may skip rows that another claim has locked, so the last ones may be left.
    taken += [job.pk for job in claims.claim_batch("digits", 40, "host:9:1", "")]
    assert sorted(taken) == [job.pk for job in made]
    assert JobAttempt.objects.count() == 40


def test_the_ends_of_a_batch_are_written_by_few_statements() -> None:
    many(BIG)
    taken = claims.claim_batch("digits", BIG, "host:1:1", "")
    with CaptureQueriesContext(connection) as seen:
        facts = {"worker": "digits-1", "call": "call-1"}
        written = ends.write(leases.success(job, {"n": n}, facts) for n, job in enumerate(taken))
    assert written == {job.pk for job in taken}
    assert sum("UPDATE" in one["sql"].upper() for one in seen) <= 6
    found = rows("succeeded")
    assert [job.value for job in found] == [{"n": n} for n in range(BIG)]
    assert {(job.progress, job.claimed_by, job.error) for job in found} == {(1.0, "", None)}
    assert all(job.finished_at and job.expires_at and job.expires_at > job.finished_at for job in found)
    tried = JobAttempt.objects.all()
    assert {(one.outcome, one.worker, one.call) for one in tried} == {("succeeded", "digits-1", "call-1")}
    assert all(one.finished_at for one in tried)


def test_one_batch_may_have_ends_of_each_kind() -> None:
    many(5, retention=60)
    text, raw, again, dead, gone = claims.claim_batch("digits", 5, "host:1:1", "")
    error = {"code": "worker_lost", "message": "gone", "outcome": "unknown", "details": {}}
    facts = {"outcome": "worker_lost", "worker": "digits-1", "error": error, "evidence": {"output": "Fatal"}}
    mixed = [
        leases.success(text, None, {}),
        leases.success(raw, b"\0\1", {}),
        ends.End(again, Transition("queued", death=True, pause=5.0), error, facts=facts),
        ends.End(dead, Transition("quarantined", death=True), error, facts=facts),
        ends.End(gone, Transition("cancelled", counts=False), facts={"outcome": "cancelled"}),
    ]
    assert len(ends.write(mixed)) == 5
    text, raw, again, dead, gone = Job.objects.order_by("id")
    assert (text.state, text.value, raw.state, raw.value) == ("succeeded", None, "succeeded", b"\0\1")
    assert (again.state, again.failures, again.deaths, again.error, again.finished_at) == ("queued", 1, 1, error, None)
    assert again.run_after is not None
    assert again.run_after == again.sent_at
    assert (dead.state, dead.failures, dead.deaths, dead.error) == ("quarantined", 1, 1, error)
    assert (gone.state, gone.failures, gone.error, gone.result) == ("cancelled", 0, None, None)
    tried = dead.tries.get()
    assert (tried.outcome, tried.error, tried.evidence) == ("worker_lost", error, {"output": "Fatal"})


def test_a_batch_overwrites_no_row_that_has_a_newer_attempt_or_has_ended() -> None:
    many(4)
    old = claims.claim_batch("digits", 4, "host:1:1", "")
    superseded, requeued, ended, own = old
    for job in (superseded, requeued):
        assert leases.fail(job, Transition("queued", counts=False), None, {"outcome": "lease_expired"})
    Job.objects.filter(pk=superseded.pk).update(run_after=None)
    newer = leases.claim(superseded.pk, "host:2:1", "")
    assert newer is not None
    assert leases.succeed(ended, "first", {})
    assert ends.write(leases.success(job, "late", {}) for job in old) == {own.pk}
    states = {job.pk: (job.state, job.value) for job in Job.objects.all()}
    assert states == {
        superseded.pk: ("running", None), requeued.pk: ("queued", None), ended.pk: ("succeeded", "first"),
        own.pk: ("succeeded", "late"),
    }  # fmt: skip
    assert [one.outcome for one in superseded.tries.order_by("number")] == ["lease_expired", ""]


def test_the_end_of_a_queued_job_leaves_its_earlier_attempts_alone() -> None:
    job = submitted()
    held = leases.claim(job.pk, "host:1:1", "")
    assert held is not None
    error = {"code": "worker_lost", "message": "gone", "outcome": "unknown", "details": {}}
    assert leases.fail(held, Transition("queued"), error, {"outcome": "worker_lost"})
    assert jobs.cancel(job.pk).error == error
    tried = job.tries.get()
    assert (tried.outcome, tried.error) == ("worker_lost", error)


def test_an_end_that_the_table_of_states_does_not_have_is_refused() -> None:
    job = submitted()
    with pytest.raises(ValueError, match="queued cannot become succeeded"):
        ends.write([ends.End(job, Transition("succeeded"), source="queued")])
