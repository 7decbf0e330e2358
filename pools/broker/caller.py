"""The identity of a caller of the web side, and the limits of its key and owner.

The web process authenticates a caller, and sends this with the caller's calls over its trusted connection. Calls and
jobs of code in the project have no such identity, and only the limits of the pool.

>>> key = Limits(calls_in_flight=4)
>>> Limits.of({"calls_in_flight": 2}, key).calls_in_flight
2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

YEAR = 366 * 86_400.0  # seconds


def limit(default: float, high: float, help: str) -> Any:
    return field(default=default, metadata={"help": help, "high": high, "whole": isinstance(default, int)})


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an API key, or of an owner over all keys and sessions; 0: no limit of its own."""

    calls_per_second: float = limit(0.0, 1e6, "Rate of calls, on each node.")
    calls_burst: int = limit(0, 10**7, "Burst of calls after a pause; 0: twice the rate.")
    calls_in_flight: int = limit(0, 10**6, "Calls that wait or run, on each node.")
    calls_waiting: int = limit(0, 10**6, "Calls in the queue of one pool.")
    jobs_waiting: int = limit(0, 10**7, "Queued jobs of one pool.")
    jobs_waiting_bytes: int = limit(0, 2**40, "Arguments of queued jobs of one pool. [bytes]")
    streams: int = limit(0, 10**6, "Open streams, in each web process.")
    stream_lifetime: float = limit(0.0, 86_400.0, "Time that a stream of a job stays open. [s]")
    body_bytes: int = limit(0, 2**30, "Body of a request. [bytes]")
    run_after: float = limit(0.0, 1e9, "Largest delay of a job. [s]")
    retention: int = limit(0, 10**9, "Largest retention of a job. [s]")

    @classmethod
    def of(cls, values: Mapping[str, Any], base: Self | None = None) -> Self:
        """These values, and for the others those of `base`."""
        return replace(base or cls(), **values)  # type: ignore[return-value, unused-ignore]

    @property
    def burst(self) -> int:
        return self.calls_burst or max(1, math.ceil(2 * self.calls_per_second))


LIMITS = {one.name: one for one in fields(Limits)}
KEY_DEFAULTS = Limits(
    calls_per_second=1000.0, calls_in_flight=256, streams=1024, run_after=YEAR, retention=int(YEAR)
)  # fmt: skip
OWNER_DEFAULTS = Limits(calls_in_flight=1024, streams=4096, run_after=YEAR, retention=int(YEAR))


def find_limit_problem(values: object) -> str:
    """What is wrong with limits that a setting or a form gives; empty: nothing."""
    if not isinstance(values, Mapping):
        return f"{values!r} is not a dict of limit: number"
    for name, value in values.items():
        if name not in LIMITS:
            return f"{name!r} is not a limit; the limits are {', '.join(LIMITS)}"
        about = LIMITS[name].metadata
        if isinstance(value, bool) or not isinstance(value, int if about["whole"] else int | float):
            return f"{name}: {value!r} is not a {'whole ' * about['whole']}number"
        if not 0 <= value <= about["high"]:
            return f"{name}: {value} is outside 0 to {about['high']:g}"
    return ""


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """A caller that the web side has authenticated."""

    key: str  # the visible part of an API key; empty: a session
    owner: str
    key_limits: Limits = Limits()
    owner_limits: Limits = Limits()
    key_share: float = 1.0  # of a pool's queues
    owner_share: float = 1.0

    def scopes(self) -> Iterator[tuple[str, str, Limits, float]]:
        """What limits hold: of what, its name, the limits and the share of a pool's queues."""
        if self.key:
            yield "key", self.key, self.key_limits, self.key_share
        if self.owner:
            yield "owner", self.owner, self.owner_limits, self.owner_share

    @property
    def names(self) -> list[tuple[str, str]]:
        return [(kind, name) for kind, name in (("key", self.key), ("owner", self.owner)) if name]

    def smallest(self, name: str) -> float:
        """The smallest limit of this name; infinity: there is none."""
        return min((value for _, _, limits, _ in self.scopes() if (value := getattr(limits, name))), default=math.inf)


@dataclass(frozen=True, slots=True)
class QuotaStatus:
    """What one key or owner used of its limits."""

    of: str  # key or owner
    name: str
    in_flight: int
    accepted: int
    refused: int  # calls, by every limit together
    over_rate: int  # by calls_per_second
    over_in_flight: int  # by calls_in_flight
    over_waiting: int  # by its share of the queue of a pool
    calls_per_second: float  # its limits; 0: none
    calls_burst: int
    calls_in_flight: int


def part_of(share: float, whole: int) -> int:
    """The places of a queue that a share of it has, at least one."""
    return max(1, math.ceil(share * whole))


_current: ContextVar[CallerIdentity | None] = ContextVar("snakepit_caller", default=None)


# Returns the caller that the code of this context works for.
current: Callable[[], CallerIdentity | None] = _current.get


@contextmanager
def acting_for(caller: CallerIdentity | None) -> Iterator[None]:
    """Make calls and submit jobs for this caller."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)
