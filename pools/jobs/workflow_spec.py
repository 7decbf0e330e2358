"""A workflow as JSON, for REST and the command line: names of jobs in place of Python objects.

>>> steps = read([{"id": "a", "pool": "p", "command": "c"},
...               {"pool": "p", "command": "d", "results": {"parts": ["a"]}, "after": ["a"]}])
>>> [(need.index, need.argument, need.position) for need in steps[1].needs]
[(0, '', None), (0, 'parts', 0)]
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from django.utils.dateparse import parse_datetime

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.client import Json
from snakepit.pools.jobs.options import JobOptions
from snakepit.pools.jobs.predecessors import check_policy
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.jobs.workflows import EARLIER, MOST_JOBS, Need, Step

MOMENTS = ("run_after", "deadline", "expires")
OPTIONS = frozenset(field.name for field in fields(JobOptions)) - {"owner", "unique", "depends_on"}
KEYS = OPTIONS | {"id", "pool", "command", "arguments", "after", "results", "on_failure"}


def read(jobs: Any) -> list[Step]:
    """The steps of a list of objects. BadRequest names the job by its place, from 0, and the field."""
    if not isinstance(jobs, list) or len(jobs) > MOST_JOBS:
        raise BadRequest(f"jobs: must be a list of at most {MOST_JOBS} objects")
    steps: list[Step] = []
    names: dict[str, int] = {}
    for index, job in enumerate(jobs):
        try:
            steps.append(_step(index, job, names))
        except BadRequest as error:
            raise BadRequest(f"jobs[{index}]: {error.message}", details={"job": index, **error.details}) from None
    return steps


def _step(index: int, job: Any, names: dict[str, int]) -> Step:
    if not isinstance(job, dict):
        raise BadRequest("must be an object")
    if unknown := sorted(set(job) - KEYS):
        raise BadRequest(f"{unknown[0]}: is not a field of a job in a workflow; it has {', '.join(sorted(KEYS))}")
    for field in ("pool", "command"):
        if not isinstance(job.get(field), str) or not job[field]:
            raise BadRequest(f"{field}: is missing" if field not in job else f"{field}: must be the name of a {field}")
    arguments = job.get("arguments", {})
    if not isinstance(arguments, dict):
        raise BadRequest("arguments: must be an object")
    needs = [*_after(job.get("after", []), names), *_results(job.get("results", {}), names)]
    if both := sorted({need.argument for need in needs} & arguments.keys()):
        raise BadRequest(f"results.{both[0][:100]}: is in arguments too; give the value or the job")
    step = Step(
        index,
        job["pool"],
        job["command"],
        Json(arguments),
        JobOptions(**{name: _option(name, job[name]) for name in OPTIONS & set(job)}),
        tuple(needs),
        check_policy(job.get("on_failure", "cancel")),
    )
    name = job.get("id", str(index))
    if not isinstance(name, str) or name in names:
        raise BadRequest(f"id: {shown(name)} must be text that no other job of the workflow has")
    names[name] = index
    return step


def _option(name: str, value: Any) -> Any:
    if name not in MOMENTS or not isinstance(value, str):
        return value
    try:
        return parse_datetime(value) or value  # what is no time is refused with the other options
    except ValueError:
        return value


def _after(wanted: Any, names: Mapping[str, int]) -> Sequence[Need]:
    if not isinstance(wanted, list):
        raise BadRequest("after: must be a list of ids of jobs")
    return [_need("after", one, names) for one in wanted]


def _results(wanted: Any, names: Mapping[str, int]) -> Sequence[Need]:
    if not isinstance(wanted, dict):
        raise BadRequest("results: must be an object: the argument, and the id or ids of jobs")
    found: list[Need] = []
    for argument, value in wanted.items():
        if value == []:
            raise BadRequest(f"results.{argument}: must be the id of a job, or a list of ids")
        if isinstance(value, list):
            found += [_need(f"results.{argument}", one, names, argument, at) for at, one in enumerate(value)]
        else:
            found.append(_need(f"results.{argument}", value, names, argument))
    return found


def _need(field: str, name: Any, names: Mapping[str, int], argument: str = "", position: int | None = None) -> Need:
    """A job of the workflow by its name in it, or a job that was submitted before by its id."""
    if isinstance(name, str) and name in names:
        return Need(names[name], argument, position)
    try:
        return Need(EARLIER, argument, position, uuid.UUID(name))
    except (ValueError, TypeError, AttributeError):
        raise BadRequest(
            f"{field}: {shown(name)} is neither the name of a job before this one nor the id of a submitted job"
        ) from None
