"""A row of the suite: what is measured, beside whom, and the bar that it must meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Measured:
    """`ours` and `peer` in the row's unit; `cpu` is microseconds of CPU for each call, by process."""

    ours: float
    peer: float
    cpu: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Contestants(Protocol):
    """Each contestant by its name, started when the first row asks for it."""

    def get(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Row:
    """`target` bounds `ours / peer`: from above where smaller is better, else from below.

    `needs` names the contestants in the order in which they are started.
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
    """When and where a row was measured, and whether the machine had much else to do as it began."""

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
        """Whether the bar is met; None where there is none."""
        if self.row.target is None:
            return None
        return self.ratio <= self.row.target if self.row.smaller else self.ratio >= self.row.target


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that was run and gave no figures. Its bar, where it has one, counts as not met."""

    row: Row
    reason: str
    run: Run


Outcome = Result | Failed


def bar(row: Row) -> str:
    """The row's bar in words; empty where it has none."""
    return "" if row.target is None else f"{'≤' if row.smaller else '≥'} {row.target:g}"


def figure(value: float) -> str:
    """Three digits that count, however large the number is.

    >>> figure(0.0612), figure(3.14159), figure(48123.7)
    ('0.0612', '3.14', '48,124')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
