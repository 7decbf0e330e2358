"""What all runners of a broker share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from snakepit.pools.broker.events import Event
from snakepit.pools.broker.ports import Clock, Launcher, Linker, Meter


@dataclass(frozen=True, slots=True)
class RunnerDeps:
    """What all runners of a broker share."""

    launcher: Launcher
    linker: Linker
    clock: Clock
    emit: Callable[[Event], None]
    meter: Meter
    boot: str
    rng: Random

    def count(self, pool: str, ended: Mapping[str, tuple[list[float], list[float]]], delivered: int, full: int) -> None:
        """Pass numbers of calls on to the meter. `ended`: how long those of each command waited and ran."""
        for command, (waited, ran) in ended.items():
            self.meter.succeeded(pool, command, waited, ran)
        if delivered:
            self.meter.delivered(pool, delivered)
        if full:
            self.meter.full(pool, full)
