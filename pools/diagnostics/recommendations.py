"""Advises changes of the definitions of pools, from their numbers. Pure: a status and definitions in, advice out.

    status, definitions, machine ─▶ a Case for each pool ─▶ rules ─▶ Judgements: advised, fine, not enough evidence ...

Each rule answers for each pool, so a missing answer never looks like a healthy pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import PoolStatus, WorkerStatus
from snakepit.pools.diagnostics.advice import ENOUGH, NOT_KNOWN, Advice, Capacity, Case, Enough, Judgement
from snakepit.pools.diagnostics.rules import RULES


def judge(
    pools: Iterable[PoolStatus],
    specs: Mapping[str, PoolSpec],
    workers: Iterable[WorkerStatus] = (),
    machine: Capacity = NOT_KNOWN,
    enough: Enough = ENOUGH,
) -> list[Judgement]:
    """The judgement of every rule on every pool; `specs` are the definitions by name."""
    known = list(workers)
    found = []
    for pool in pools:
        if spec := specs.get(pool.name):
            mine = tuple(one for one in known if one.pool == spec.name)
            found += [rule(Case(pool, spec, mine, machine, enough)) for rule in RULES.values()]
    return found


def recommend(
    pools: Iterable[PoolStatus],
    specs: Mapping[str, PoolSpec],
    workers: Iterable[WorkerStatus] = (),
    machine: Capacity = NOT_KNOWN,
    enough: Enough = ENOUGH,
) -> list[Advice]:
    """Only what is advised."""
    return [one.advice for one in judge(pools, specs, workers, machine, enough) if one.advice]
