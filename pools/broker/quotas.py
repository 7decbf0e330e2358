"""Admission of calls by key and by owner: rate and calls in flight. Pure: no I/O and no clock.

>>> from snakepit.pools.broker.caller import CallerIdentity, Limits
>>> quotas, caller = Quotas(), CallerIdentity("snk_1", "ada", Limits(calls_per_second=10, calls_burst=2))
>>> [quotas.admit(caller, now=0.0) for _ in range(2)]
[None, None]
>>> error = quotas.admit(caller, now=0.0)
>>> error.details["limit"], error.details["value"], error.retry_after
('calls_per_second', 10, 0.1)
>>> quotas.admit(caller, now=0.1) is None
True
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from snakepit.pools.broker.caller import CallerIdentity, Limits, QuotaStatus, part_of
from snakepit.pools.broker.errors import LimitReached

MOST = 10_000  # idle keys and owners that are remembered
FEWEST = 4  # places of a small queue that a key or owner may have, whatever its share is
COUNTED = RATE, IN_FLIGHT, WAITING = "calls_per_second", "calls_in_flight", "calls_waiting"
BUSY_PAUSE = 0.1  # seconds until a caller with too many calls in flight should try again


@dataclass(slots=True)
class Quota:
    """What one key or owner has used."""

    of: str
    name: str
    limits: Limits
    tokens: float = 0.0
    at: float = 0.0  # the time of `tokens`
    in_flight: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by limit

    def refill(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.tokens = min(limits.burst, self.tokens + (now - self.at) * limits.calls_per_second)
        self.at = now

    def refusal(self) -> LimitReached | None:
        limits = self.limits
        if limits.calls_in_flight and self.in_flight >= limits.calls_in_flight:
            return reached(self.of, self.name, IN_FLIGHT, limits.calls_in_flight, BUSY_PAUSE)
        if limits.calls_per_second and self.tokens < 1:
            pause = (1 - self.tokens) / limits.calls_per_second
            return reached(self.of, self.name, RATE, limits.calls_per_second, pause)
        return None


class Quotas:
    """The quotas of all keys and owners that call."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Quota] = {}

    def status(self) -> tuple[QuotaStatus, ...]:
        return tuple(
            QuotaStatus(
                one.of, one.name, one.in_flight, one.accepted, one.refused.total(),
                one.refused[RATE], one.refused[IN_FLIGHT], one.refused[WAITING],
                one.limits.calls_per_second, one.limits.burst, one.limits.calls_in_flight,
            )
            for _, one in sorted(self._known.items())
        )  # fmt: skip

    def admit(self, caller: CallerIdentity, now: float) -> LimitReached | None:
        """Count a call of this caller, or return why it is refused. `ended` takes an admitted one back."""
        quotas = [self._of(kind, name, limits, now) for kind, name, limits, _ in caller.scopes()]
        for quota in quotas:
            if error := quota.refusal():
                self.refused(caller, error)
                return error
        for quota in quotas:
            quota.in_flight += 1
            quota.accepted += 1
            if quota.limits.calls_per_second:
                quota.tokens -= 1
        return None

    def refused(self, caller: CallerIdentity, error: LimitReached) -> None:
        """Count a refusal for the key or owner whose limit it was."""
        for kind, name in caller.names:
            if kind == error.details["of"] and (quota := self._known.get((kind, name))):
                quota.refused[str(error.details["limit"])] += 1

    def ended(self, caller: CallerIdentity) -> None:
        for kind, name, _, _ in caller.scopes():
            if quota := self._known.get((kind, name)):
                quota.in_flight -= 1

    def left(self, caller: CallerIdentity, now: float) -> tuple[int, float]:
        """The calls that the caller may make now, and the seconds until its burst is complete; -1: no rate."""
        rated = [
            self._of(kind, name, limits, now) for kind, name, limits, _ in caller.scopes() if limits.calls_per_second
        ]
        if not rated:
            return -1, 0.0
        least = min(rated, key=lambda one: one.tokens)
        return int(least.tokens), (least.limits.burst - least.tokens) / least.limits.calls_per_second

    def _of(self, kind: str, name: str, limits: Limits, now: float) -> Quota:
        quota = self._known.get((kind, name))
        if quota is None:
            if len(self._known) >= MOST:
                self._known = {one: known for one, known in self._known.items() if known.in_flight}
            quota = self._known[kind, name] = Quota(kind, name, limits, float(limits.burst), now)
        quota.refill(limits, now)
        return quota


def queue_refusal(
    caller: CallerIdentity, waiting: Mapping[tuple[str, str], int], queue_limit: int, pause: float
) -> LimitReached | None:
    """Why a call may not wait in the queue of a pool: its key or owner has its share of the queue."""
    for kind, name, limits, share in caller.scopes():
        most = min(limits.calls_waiting or queue_limit, max(FEWEST, part_of(share, queue_limit)))
        if 0 < most <= waiting.get((kind, name), 0):
            return reached(kind, name, WAITING, most, pause)
    return None


def reached(of: str, name: str, limit: str, value: float, pause: float) -> LimitReached:
    """The error of a limit that a key or an owner has reached."""
    what = "API key" if of == "key" else "user"
    value = int(value) if value == int(value) else value
    message = f"The {what} {name} has reached its limit {limit}: {value}."
    return LimitReached(
        message, retry_after=round(max(pause, 0.001), 3), details={"limit": limit, "value": value, "of": of}
    )
