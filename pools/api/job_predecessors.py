"""The jobs that a submission over REST waits for: only jobs that the caller may see, and results that it may read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from snakepit.pools.broker.errors import BadRequest, PermissionDenied
from snakepit.pools.jobs import predecessors
from snakepit.pools.jobs.predecessors import MOST
from snakepit.pools.jobs.workflows import MOST_EDGES
from snakepit.pools.models import Job
from snakepit.pools.models.job import JobQuerySet

BATCH = 500  # ids of one statement


class VisibleJobs:
    """Finds jobs among those that a caller may see. `reads`: whether it may read the results of this owner's jobs."""

    def __init__(self, rows: JobQuerySet, reads: Callable[[str], bool]) -> None:
        self._rows, self._reads = rows, reads

    def find(self, field: str, given: Iterable[Any], *, results: bool = False) -> dict[uuid.UUID, Job]:
        """The jobs by id. BadRequest and PermissionDenied name the field."""
        ids = list(dict.fromkeys(predecessors.id_of(field, one) for one in given))
        _check_count(field, len(ids), MOST_EDGES)
        found: dict[uuid.UUID, Job] = {}
        for start in range(0, len(ids), BATCH):
            some = self._rows.filter(pk__in=ids[start : start + BATCH]).order_by().only("pk", "owner")
            found |= {job.pk: job for job in some}
        for job_id in ids:
            if job_id not in found:
                message = f"{field}: there is no job {job_id}, or you may not see it"
                raise BadRequest(message, details={"fields": {field: message}})
            if results and not self._reads(found[job_id].owner):
                raise PermissionDenied(
                    f"{field}: the result of the job {job_id} is another user's; it needs the permission view_payload"
                )
        return found

    def results(self, wanted: Mapping[str, str | list[str]]) -> dict[str, Job | list[Job]]:
        """The arguments that are results of jobs, for `submit`."""
        arguments: dict[str, Job | list[Job]] = {}
        _check_count("results", sum(len(ids) if isinstance(ids, list) else 1 for ids in wanted.values()), MOST)
        for name, given in wanted.items():
            ids = given if isinstance(given, list) else [given]
            if not ids:
                raise BadRequest(f"results.{name}: must be the id of a job, or a list of ids")
            found = self.find(f"results.{name}", ids, results=True)
            jobs = [found[uuid.UUID(one)] for one in ids]
            arguments[name] = jobs if isinstance(given, list) else jobs[0]
        return arguments


def _check_count(field: str, count: int, most: int) -> None:
    """Before the first query: a body has room for tens of thousands of ids."""
    if count > most:
        raise BadRequest(f"{field}: has {count} jobs; at most {most} are possible", details={"fields": {field: most}})


def refuse_both(arguments: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Refuse an argument that has a value and shall receive a result: one of them would be lost."""
    if both := sorted(arguments.keys() & results.keys()):
        message = f"results.{both[0][:100]}: is in arguments too; give the value or the job"
        raise BadRequest(message, details={"fields": {"results": message}})
