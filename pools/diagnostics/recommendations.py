"""What the numbers of a pool advise to change in its definition. Pure: a snapshot and definitions in, advice out.

    status, definitions, machine ─▶ a Case a pool ─▶ rules ─▶ Judgements: advised, fine, not enough evidence ...

Each rule answers for each pool, so that silence is never taken for health.

>>> from snakepit.pools.broker.spec import PoolSpec
>>> growth = {"verdict": "measured", "mb_per_1000_calls": 3.1, "mostly": "embed", "calls": 4000, "samples": 40}
>>> leaking = {"name": "ocr", "growth": growth}
>>> [one] = recommend([leaking], {"ocr": PoolSpec(name="ocr", adapter="ocr")})
>>> one.key, one.sentence
('leak:ocr', 'leaks 3.1 MiB per 1,000 calls in `embed`: max_requests none to 20000')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.diagnostics.advice import ENOUGH, NOT_KNOWN, Capacity, Case, Enough, Judgement, Recommendation
from snakepit.pools.diagnostics.rules import RULES

__all__ = ["Capacity", "Enough", "Judgement", "Recommendation", "judge", "recommend"]


def judge(
    pools: Iterable[Mapping[str, Any]],
    specs: Mapping[str, PoolSpec],
    workers: Iterable[Mapping[str, Any]] = (),
    machine: Capacity = NOT_KNOWN,
    enough: Enough = ENOUGH,
) -> list[Judgement]:
    """Every rule's word on every pool.

    `pools` and `workers` as the broker's status shows them, `specs` the definitions of the rows, by name.
    """
    known = list(workers)
    found = []
    for pool in pools:
        if spec := specs.get(pool["name"]):
            mine = tuple(one for one in known if one["pool"] == spec.name)
            found += [rule(Case(pool, spec, mine, machine, enough)) for rule in RULES.values()]
    return found


def recommend(
    pools: Iterable[Mapping[str, Any]],
    specs: Mapping[str, PoolSpec],
    workers: Iterable[Mapping[str, Any]] = (),
    machine: Capacity = NOT_KNOWN,
    enough: Enough = ENOUGH,
) -> list[Recommendation]:
    """Only what is advised."""
    return [one.advice for one in judge(pools, specs, workers, machine, enough) if one.advice]
