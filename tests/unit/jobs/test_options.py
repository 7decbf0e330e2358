"""The options that single and bulk submissions share."""

from __future__ import annotations

import inspect
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs.options import JobOptions

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_both_submissions_show_the_same_options() -> None:
    names = {field.name for field in fields(JobOptions)}
    for function in (jobs.submit, jobs.submit_many):
        assert names <= set(inspect.signature(function).parameters)


def test_options_are_separated_from_arguments_of_the_command() -> None:
    options, arguments = JobOptions.among({"priority": 5, "digit": 7})
    assert options == JobOptions(priority=5)
    assert arguments == {"digit": 7}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_attempts": 0}, "max_attempts: 0 is not a whole number from 1 to 100"),
        ({"expires": NOON, "run_after": NOON}, "expires: is not after run_after"),
        ({"deadline": NOON, "run_after": NOON + timedelta(hours=1)}, "deadline: is not after run_after"),
        ({"run_after": NOON.replace(tzinfo=None)}, "run_after: 2026-01-31T12:00:00 has no time zone"),
        ({"timeout": 10**5000}, "timeout: a number of more than 40 digits is outside 0.001 to 2678400 seconds"),
        ({"backoff": float("inf")}, "backoff: inf is not a number of seconds"),
    ],
)
def test_options_that_no_job_could_follow_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        JobOptions(**given).columns()


def test_a_bulk_submission_refuses_an_unknown_option() -> None:
    with pytest.raises(TypeError, match="no option named 'digit'"):
        jobs.submit_many("digits", "classify", [], digit=7)
