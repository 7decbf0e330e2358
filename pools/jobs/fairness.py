"""The order of claims among owners: jobs of one owner do not hold up those of another.

Priority decides first. Among jobs of one priority, owners take turns, and the running jobs of an owner count as turns
that it has had. A tie is decided at random, so that a claim of a single job favours no owner.

>>> waiting = {"ada": [(1, 0), (2, 0), (3, 0)], "bob": [(4, 0)]}
>>> fair_order(waiting, running={}, ties={"ada": 0.1, "bob": 0.2})
[1, 4, 2, 3]
>>> fair_order(waiting, running={"ada": 2}, ties={"ada": 0.1, "bob": 0.2})
[4, 1, 2, 3]
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.models import Case, Count, IntegerField, QuerySet, Subquery, Value, When

from snakepit.pools.jobs.distinct import values_of
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.states import QUEUED, RUNNING

OWNERS = 16  # whose jobs one claim compares; of more, some are chosen at random
KNOWN = 1000  # owners that one claim chooses from
SPARE = 32  # jobs above those wanted, for rows that another claim takes meanwhile
Waiting = Mapping[str, Sequence[tuple[Any, int]]]  # (id, priority) of each owner's next jobs, in their order


def fair_order(waiting: Waiting, running: Mapping[str, int], ties: Mapping[str, float]) -> list[Any]:
    """The ids in the order of claims."""
    ranked: list[tuple[int, int, float, Any]] = []
    for owner, jobs in waiting.items():
        for turn, (job_id, priority) in enumerate(jobs, running.get(owner, 0)):
            ranked.append((-priority, turn, ties[owner], job_id))
    return [job_id for *_, job_id in sorted(ranked)]


def first_owner(pool: str) -> tuple[str, Any] | None:
    """The first owner by name with queued jobs, and the pool's limits of jobs; None: nothing is queued."""
    rules = Subquery(Pool.objects.filter(name=pool).values("job_limits")[:1])
    queued = Job.objects.filter(pool=pool, state=QUEUED).order_by("owner")
    return queued.annotate(rules=rules).values_list("owner", "rules").first()


def fairly(claimable: Callable[..., QuerySet[Job]], pool: str, most: int, first: str) -> QuerySet[Job]:
    """The jobs of a pool that a claim takes, in order. With one owner, they are those of `claimable`."""
    plain = claimable(pool=pool)
    if not Job.objects.filter(pool=pool, state=QUEUED, owner__gt=first).exists():
        return plain[:most]
    counts = Job.objects.filter(pool=pool, state=RUNNING).order_by().values_list("owner").annotate(count=Count("pk"))
    running = dict(counts)
    waiting: dict[str, list[tuple[Any, int]]] = {}
    for owner, job_id, priority in plain.values_list("owner", "pk", "priority")[: most + SPARE]:
        waiting.setdefault(owner, []).append((job_id, priority))
    for owner in _some_owners(pool, running):
        waiting[owner] = list(claimable(pool=pool, owner=owner).values_list("pk", "priority")[:most])
    order = fair_order(waiting, running, {owner: random.random() for owner in waiting})[: most + SPARE]
    ranks = [When(pk=job_id, then=Value(rank)) for rank, job_id in enumerate(order)]
    if not ranks:
        return plain[:most]
    return claimable(pk__in=order).order_by(Case(*ranks, output_field=IntegerField()))[:most]


def _some_owners(pool: str, running: Mapping[str, int]) -> list[str]:
    """Owners with queued jobs: those with the fewest running ones, in random order."""
    owners = _owners(pool)
    random.shuffle(owners)
    return sorted(owners, key=lambda owner: running.get(owner, 0))[:OWNERS]


def _owners(pool: str) -> list[str]:
    """The owners with queued jobs."""
    return values_of("owner", f"pool = %s and state = '{QUEUED}'", [pool], KNOWN)
