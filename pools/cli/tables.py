"""Tables of the shell, as wide as the terminal at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Column, Table
    from rich.text import Text

NARROW = 100  # columns for a pipe, where the terminal's width is not known
STYLES = {"ready": "green", "starting": "cyan", "degraded": "yellow", "paused": "yellow", "failed": "bold red"}
NUMBERS = {
    "ready", "busy", "free", "waiting", "oldest", "calls/s", "done", "memory", "load", "served", "pid", "age",
    "attempts", "progress",
}  # fmt: skip
LONG = {  # columns that wrap where the terminal is narrow
    "pool", "worker", "command", "why", "error", "name", "arguments", "problem", "schedule", "scopes", "pools",
    "library",
}  # fmt: skip
LESS = (  # columns that a narrow terminal leaves out, in this order
    "profile", "done", "gil", "served", "busy", "memory", "free", "load", "waiting", "why",
)  # fmt: skip
WHOLE_IDS = 120  # columns of a terminal whose tables show whole ids of jobs, and not their ends
LEAST_NAME = 12  # columns for a name that wraps


def new_table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        # A column that may not wrap keeps its width: numbers stay readable, long names take several lines.
        table.add_column(
            name,
            justify="right" if name in NUMBERS else "left",
            no_wrap=name not in LONG,
            overflow="fold" if name in LONG else "ellipsis",
        )
    return table


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table that fits itself into the width at which it is drawn."""

    columns: Mapping[str, Sequence[str | Text]]
    less: Sequence[str] = LESS
    least: int = LEAST_NAME

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield fitted(console, self.columns, self.less, self.least)


def fitted(
    console: Console,
    columns: Mapping[str, Sequence[str | Text]],
    less: Sequence[str] = LESS,
    least: int = LEAST_NAME,
) -> Table:
    """A table as wide as the console at most: where it is narrow, names wrap and the columns of `less` are left out.

    Empty columns go first, then the others in their order, until each column that wraps has `least` characters.
    """
    chosen = dict(columns)
    for name in sorted(less, key=lambda one: any(map(str, columns.get(one, ())))):
        if _room(console, chosen) >= least * sum(one in LONG for one in chosen):
            break
        chosen.pop(name, None)
    table = new_table(*chosen)
    _share(console, [column for column in table.columns if not column.no_wrap], chosen)
    for row in zip(*chosen.values(), strict=True):
        table.add_row(*row)
    return table


def short_id(console: Console, ident: str) -> str:
    """An id of a job: its end where the table is narrow. The commands take both."""
    return ident if console.width >= WHOLE_IDS else ident[-12:]


def _share(console: Console, names: Sequence[Column], columns: Mapping[str, Sequence[str | Text]]) -> None:
    """Share the room for names: each column gets what it needs, and the widest the rest."""

    def needs(column: Column) -> int:
        title = str(column.header)
        return max(console.measure(cell).maximum for cell in (title, *columns[title]))

    room = _room(console, columns)
    for left, column in zip(range(len(names), 0, -1), sorted(names, key=needs), strict=True):
        column.max_width = max(min(LEAST_NAME, needs(column)), min(needs(column), room // left))
        room -= column.max_width


def _room(console: Console, columns: Mapping[str, Sequence[str | Text]]) -> int:
    """The width that is left for names. Each column takes 3 more than its text, for padding and border."""
    taken = 0
    for name, cells in columns.items():
        if name not in LONG:
            taken += max(console.measure(cell).maximum for cell in (name, *cells))
    return console.width - taken - 3 * len(columns)
