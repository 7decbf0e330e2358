"""Submissions that the pool's workers would refuse: a fake broker that answers, is away, hangs, or changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerUnreachable, CommandUnknown, PoolUnknown
from snakepit.pools.broker.status import CommandInfo
from snakepit.pools.client import shared
from snakepit.pools.jobs import commands, messages
from snakepit.pools.models import Job, Pool

pytestmark = pytest.mark.django_db
WITHIN = 20.0  # a bound, never a wait


def schema(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


class Broker:
    """A client whose broker has one command, or does not answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.names = ["classify"]
        self.schema = schema(pixels={"type": "array", "items": {"type": "number"}})
        self.error: Exception | None = None
        self.hangs: threading.Event | None = None

    def commands(self, pool: str) -> tuple[CommandInfo, ...]:
        self.asked += 1
        if self.hangs:
            self.hangs.wait(WITHIN)
        if self.error:
            raise self.error
        return tuple(CommandInfo(name, schema=json.dumps(self.schema)) for name in self.names)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, db: None) -> Broker:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    fake = Broker()
    monkeypatch.setattr(shared, "client", lambda: fake)
    monkeypatch.setattr(messages, "send", lambda *_: True)
    return fake


def test_an_unknown_command_is_refused_with_the_one_that_was_meant(broker: Broker) -> None:
    with pytest.raises(CommandUnknown, match="Did you mean classify"):
        jobs.submit("digits", "clasify", {"pixels": [1]})
    assert not Job.objects.exists()


def test_wrong_arguments_are_refused_by_name(broker: Broker) -> None:
    with pytest.raises(BadArguments, match=r"pixels\[1\] must be number, not a string") as refusal:
        jobs.submit("digits", "classify", {"pixels": [1, "2"]})
    assert list(refusal.value.details["arguments"]) == ["pixels"]
    assert not Job.objects.exists()


def test_a_name_that_is_no_argument_makes_no_job_unique(broker: Broker) -> None:
    only = jobs.Unique(by=["pixls"])
    with pytest.raises(BadRequest, match=r"unique: by: pixls is unknown \(did you mean 'pixels'\?\)"):
        jobs.submit("digits", "classify", {"pixels": [1]}, unique=only)
    with pytest.raises(BadRequest, match="row 0: unique: by: pixls is unknown"):
        jobs.submit_many("digits", "classify", [{"pixels": [1]}], unique=only)
    assert not Job.objects.exists()


def test_a_refusal_over_rest_has_its_status(broker: Broker, client: Client, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": make_key()}
    for command, arguments, status in (("clasify", {}, 404), ("classify", {"pixls": []}, 422)):
        body = {"pool": "digits", "command": command, "arguments": arguments}
        reply = client.post("/api/jobs", body, content_type="application/json", headers=headers)
        assert reply.status_code == status, reply.content


def test_good_submissions_share_one_question(broker: Broker) -> None:
    for _ in range(5):
        jobs.submit("digits", "classify", {"pixels": [1]})
    assert broker.asked == 1


def test_a_command_that_a_rollout_added_is_accepted_at_once(broker: Broker) -> None:
    jobs.submit("digits", "classify", {"pixels": [1]})
    broker.names.append("train")
    broker.schema = schema()
    jobs.submit("digits", "train", {})
    assert Job.objects.count() == 2


@pytest.mark.parametrize("error", [BrokerUnreachable("away"), PoolUnknown("another node has it")], ids=str)
def test_without_an_answer_the_job_is_stored(broker: Broker, error: Exception) -> None:
    broker.error = error
    jobs.submit("digits", "clasify", {})
    assert Job.objects.count() == 1


def test_a_broker_that_is_away_is_not_asked_by_every_submission(broker: Broker) -> None:
    broker.error = BrokerUnreachable("away")
    for _ in range(5):
        jobs.submit("digits", "clasify", {})
    assert (broker.asked, Job.objects.count()) == (1, 5)


def test_a_pool_whose_workers_still_start_takes_the_job(broker: Broker) -> None:
    broker.names = []
    jobs.submit("digits", "clasify", {})
    assert Job.objects.count() == 1


def test_a_broker_that_hangs_blocks_no_submission(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "cache", commands.CommandCache())
    broker.hangs = threading.Event()
    try:
        jobs.submit("digits", "clasify", {})  # returns while the broker still hangs
        jobs.submit("digits", "clasify", {})
        assert (broker.asked, Job.objects.count()) == (1, 2)
        assert not broker.hangs.is_set()
    finally:
        broker.hangs.set()


def test_a_clone_is_refused_as_its_submission_would_be_now(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "cache", commands.CommandCache(WITHIN))  # the broker answers, also on a slow machine
    job = jobs.submit("digits", "classify", pixels=[1.0])
    assert jobs.clone(job.pk).arguments == {"pixels": [1.0]}
    broker.schema = schema(picture={"type": "string"})
    commands.cache.clear()
    with pytest.raises(BadArguments, match="pixels"):
        jobs.clone(job.pk)
    broker.names = ["read"]
    commands.cache.clear()
    with pytest.raises(CommandUnknown):
        jobs.clone(job.pk)
    Pool.objects.filter(name="digits").update(enabled=False)
    with pytest.raises(PoolUnknown, match="disabled"):
        jobs.clone(job.pk)
    Pool.objects.all().delete()
    with pytest.raises(PoolUnknown):
        jobs.clone(job.pk)
    assert Job.objects.count() == 2
