"""What all runners of a broker share."""

from __future__ import annotations

from collections.abc import Callable
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
