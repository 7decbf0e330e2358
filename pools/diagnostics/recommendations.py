"""What the numbers of a pool advise to change in its definition. Pure: a snapshot and definitions in, advice out.

>>> from pools.broker.spec import PoolSpec
>>> leaking = {"name": "ocr", "growth": {"verdict": "measured", "mb_per_1000_calls": 51.0, "samples": 90}}
>>> [one] = recommend([leaking], {"ocr": PoolSpec(name="ocr", adapter="ocr")})
>>> one.title, dict(one.values)
('Replace the workers of ocr every 5,000 calls', {'max_requests': 5000})
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pools.broker.spec import FIELDS, PoolSpec, Profile

GROWTH = 1.0  # MB per 1,000 calls; less is noise
SAMPLES = 20  # pairs of measurements; while a worker warms up it grows without leaking
ROOM = 256.0  # MB that a worker may grow before it is replaced
WAITED = 0.5  # share of queue_timeout after which waiting is called too long
PARALLEL = 1.5  # slots that run at once; less means that the GIL is on in all but name


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`values` are the fields to set; `key` names the same advice again, as long as it stands."""

    key: str
    pool: str
    title: str
    evidence: str
    values: Mapping[str, Any]
    cost: str = ""


def recommend(pools: Iterable[Mapping[str, Any]], specs: Mapping[str, PoolSpec]) -> list[Recommendation]:
    """`pools` as the broker's status shows them, `specs` the definitions of the rows, by name."""
    found = []
    for pool in pools:
        if spec := specs.get(pool["name"]):
            found += [advice for rule in RULES for advice in rule(pool, spec)]
    return found


def _leak(pool: Mapping[str, Any], spec: PoolSpec) -> Iterator[Recommendation]:
    growth = pool.get("growth") or {}
    if growth.get("verdict") != "measured" or growth.get("samples", 0) < SAMPLES:
        return
    if (growth.get("mb_per_1000_calls") or 0.0) < GROWTH:
        return
    mb = growth["mb_per_1000_calls"]
    calls = max(100, int(_rounded(1000 * ROOM / mb)))
    if spec.max_requests is not None and spec.max_requests <= 2 * calls:
        return
    mostly = f", most of it in {growth['mostly']}" if growth.get("mostly") else ""
    then = f"After {calls:,} calls that is {mb * calls / 1000:,.0f} MB."
    evidence = f"Its workers grow by {mb:.1f} MB in 1,000 calls{mostly}. {then}"
    title = f"Replace the workers of {spec.name} every {calls:,} calls"
    yield Recommendation(f"leak:{spec.name}", spec.name, title, evidence, {"max_requests": calls})


def _queue(pool: Mapping[str, Any], spec: PoolSpec) -> Iterator[Recommendation]:
    full = pool.get("slots", 0) > 0 and pool.get("free", 0) == 0
    if not full or spec.paused or pool.get("oldest_wait", 0.0) < WAITED * spec.queue_timeout:
        return
    size = min(int(FIELDS["size"].metadata["high"]), spec.size + max(1, spec.size // 2))
    if size == spec.size:
        return
    each = pool.get("memory_mb", 0.0) / max(1, pool.get("ready", 0))
    evidence = (
        f"{pool['waiting']} calls wait, the oldest for {pool['oldest_wait']:.1f} s of {spec.queue_timeout:g} s, "
        f"and all {pool['slots']} slots are busy."
    )
    cost = f"about {each * (size - spec.size):.0f} MB more" if each else ""
    title = f"Give {spec.name} {size} workers"
    yield Recommendation(f"queue:{spec.name}", spec.name, title, evidence, {"size": size}, cost)


def _gil(pool: Mapping[str, Any], spec: PoolSpec) -> Iterator[Recommendation]:
    measured = pool.get("parallelism") or 0.0
    if spec.profile != Profile.THREAD or spec.threads < 2 or pool.get("gil") != "on" or not 0 < measured < PARALLEL:
        return
    size = min(int(FIELDS["size"].metadata["high"]), spec.size * spec.threads)
    because = f" because of {pool['gil_culprit']}" if pool.get("gil_culprit") else ""
    evidence = (
        f"{spec.threads} threads run {measured:.1f} at once: the GIL is on{because}. Where its commands compute, "
        "processes or a free-threaded interpreter are faster; where they wait for others, leave it as it is."
    )
    each = pool.get("memory_mb", 0.0) / max(1, pool.get("ready", 0))
    cost = f"up to {each * (size - spec.size):.0f} MB more" if each else ""
    title = f"Run {spec.name} in {size} processes instead of threads"
    yield Recommendation(f"gil:{spec.name}", spec.name, title, evidence, {"profile": "process", "size": size}, cost)


RULES = (_leak, _queue, _gil)


def _rounded(value: float) -> float:
    """Down to one digit and zeros: advice that looks exact would be believed to be.

    >>> _rounded(5019.6), _rounded(123.0)
    (5000.0, 100.0)
    """
    power = 10.0 ** (len(str(int(value))) - 1)
    return value // power * power
