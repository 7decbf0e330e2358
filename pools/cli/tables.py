"""Tables of the shell, as wide as the terminal at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NARROW = 100  # columns for a pipe, where the terminal's width is not known
STYLES = {"ready": "green", "starting": "cyan", "degraded": "yellow", "paused": "yellow", "failed": "bold red"}
NUMBERS = {
    "ready", "busy", "free", "waiting", "oldest", "calls/s", "done", "memory", "load", "served", "pid", "age",
    "attempts", "progress",
}  # fmt: skip
LONG = {"pool", "worker", "command", "why", "error", "name"}  # columns that wrap where the terminal is narrow
LESS = ("profile", "done", "gil", "served", "busy")  # columns that a narrow terminal leaves out, in this order
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


def fitted(console: Console, columns: Mapping[str, Sequence[str | Text]]) -> Table:
    """A table as wide as the console at most: some columns are left out where it is narrow, and names wrap."""
    chosen = dict(columns)
    for name in LESS:
        if _room(console, chosen) >= LEAST_NAME * sum(one in LONG for one in chosen):
            break
        chosen.pop(name, None)
    table = new_table(*chosen)
    names = [column for column in table.columns if not column.no_wrap]
    for column in names:
        column.max_width = max(LEAST_NAME, _room(console, chosen) // len(names))
    for row in zip(*chosen.values(), strict=True):
        table.add_row(*row)
    return table


def _room(console: Console, columns: Mapping[str, Sequence[str | Text]]) -> int:
    """The width that is left for names. Each column takes 3 more than its text, for padding and border."""
    taken = 0
    for name, cells in columns.items():
        if name not in LONG:
            taken += max(console.measure(cell).maximum for cell in (name, *cells))
    return console.width - taken - 3 * len(columns)
