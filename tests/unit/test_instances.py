"""Instances that share most columns, made without `Model.__init__`."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models.signals import post_init

from snakepit.pools.models import Job
from snakepit.pools.models.instances import maker
from snakepit.pools.models.job import uuid7

LIKE = Job(pool="digits", command="classify", priority=3)
SHARED = {field.attname: getattr(LIKE, field.attname) for field in Job._meta.concrete_fields}


@pytest.fixture(params=[False, True], ids=["no receiver", "receiver"])
def seen(request: pytest.FixtureRequest) -> Any:
    """The instances that a receiver of `post_init` got."""
    got: list[Job] = []

    def note(sender: Any, instance: Job, **_: Any) -> None:
        got.append(instance)

    if request.param:
        post_init.connect(note, sender=Job)
    yield got if request.param else None
    post_init.disconnect(note, sender=Job)


def test_a_new_instance_is_as_if_the_model_had_made_it(seen: list[Job] | None) -> None:
    make = maker(Job, SHARED, stored_in=None)
    first, second = (make({"id": uuid7(), "arguments": {"n": n}}) for n in range(2))
    like = Job(id=second.pk, pool="digits", command="classify", priority=3, arguments={"n": 1})
    assert {name: getattr(second, name) for name in SHARED} == {name: getattr(like, name) for name in SHARED}
    assert (first.arguments, first != second, first._state is second._state) == ({"n": 0}, True, False)
    assert (second._state.adding, second._state.db, second.existed, second.workflow) == (True, None, False, None)
    assert seen is None or seen[:2] == [first, second]


def test_a_stored_instance_reads_other_columns_when_they_are_used(seen: list[Job] | None) -> None:
    job = maker(Job, {}, stored_in="default")({"state": "running", "id": uuid7(), "pool": "digits"})
    assert (job.state, job.pool, job._state.adding, job._state.db) == ("running", "digits", False, "default")
    assert job.get_deferred_fields() == set(SHARED) - {"id", "state", "pool"}
    assert seen is None or seen == [job]
