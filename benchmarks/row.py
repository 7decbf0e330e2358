"""A row of the suite: a measurement, its peer and its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Measured:
    """`ours` and `peer` in the row's unit; `cpu` is microseconds of CPU per call, by process."""

    ours: float
    peer: float
    cpu: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Contestants(Protocol):
    """Contestants by name; each starts when a row first requests it."""

    def get(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Row:
    """`target` is the limit of `ours / peer`: the maximum if smaller is better, otherwise the minimum.

    `needs` names the contestants in their order of start.
    """

    name: str
    what: str
    peer: str
    unit: str
    measure: Callable[[Contestants], Measured]
    needs: tuple[str, ...] = ()
    target: float | None = None
    smaller: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """Date and machine of a measurement, and whether the machine was busy when it began."""

    date: str
    machine: str
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    row: Row
    measured: Measured
    run: Run

    @property
    def ratio(self) -> float:
        return self.measured.ours / self.measured.peer

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None: no target."""
        if self.row.target is None:
            return None
        return self.ratio <= self.row.target if self.row.smaller else self.ratio >= self.row.target


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that ran and failed. Its target counts as missed."""

    row: Row
    reason: str
    run: Run


Outcome = Result | Failed


def target(row: Row) -> str:
    """The row's target as text; empty: no target."""
    return "" if row.target is None else f"{'≤' if row.smaller else '≥'} {row.target:g}"


def figure(value: float) -> str:
    """Format a number with three significant digits; from 100 on, as an integer.

    >>> figure(0.0612), figure(3.14159), figure(48123.7)
    ('0.0612', '3.14', '48,124')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
