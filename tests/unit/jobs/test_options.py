"""The options that single and bulk submissions share."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from snakepit.pools import jobs
from snakepit.pools.jobs.options import JobOptions


def test_both_submissions_show_the_same_options() -> None:
    names = {field.name for field in fields(JobOptions)}
    for function in (jobs.submit, jobs.submit_many):
        assert names <= set(inspect.signature(function).parameters)


def test_options_are_separated_from_arguments_of_the_command() -> None:
    options, arguments = JobOptions.among({"priority": 5, "digit": 7})
    assert options == JobOptions(priority=5)
    assert arguments == {"digit": 7}


def test_a_bulk_submission_refuses_an_unknown_option() -> None:
    with pytest.raises(TypeError, match="no option named 'digit'"):
        jobs.submit_many("digits", "classify", [], digit=7)
