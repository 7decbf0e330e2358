"""The drawing of a workflow: each job on the line after its last predecessor. Pure: no I/O.

>>> drawing = draw([Box("a", "x.count", "succeeded"), Box("b", "x.sum", "blocked")], [("a", "b")])
>>> [(node.box.id, node.x, node.y) for node in drawing.nodes], len(drawing.lines)
([('a', 8, 8), ('b', 264, 8)], 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 200, 44  # of a box
GAP_X, GAP_Y, MARGIN = 56, 14, 8


@dataclass(frozen=True, slots=True)
class Box:
    """One job."""

    id: str
    text: str
    state: str


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A box at its place."""

    box: Box
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes and lines, each line as the path of an SVG."""

    nodes: tuple[PlacedBox, ...]
    lines: tuple[str, ...]
    width: int
    height: int


def draw(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Place the boxes. They must come in the order of submission, predecessors first."""
    columns = _columns(boxes, edges)
    rows: dict[int, int] = {}
    places: dict[str, PlacedBox] = {}
    for box in boxes:
        column = columns[box.id]
        row = rows[column] = rows.get(column, -1) + 1
        places[box.id] = PlacedBox(box, MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    lines = tuple(_line(places[old], places[new]) for old, new in edges if old in places and new in places)
    width = 2 * MARGIN + (max(columns.values(), default=0) + 1) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + (max(rows.values(), default=0) + 1) * (HEIGHT + GAP_Y) - GAP_Y
    return Drawing(tuple(places.values()), tuple(dict.fromkeys(lines)), width, height)


def _columns(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    before: dict[str, list[str]] = {}
    for old, new in edges:
        before.setdefault(new, []).append(old)
    columns: dict[str, int] = {}
    for box in boxes:
        columns[box.id] = max((columns[old] + 1 for old in before.get(box.id, ()) if old in columns), default=0)
    return columns


def _line(old: PlacedBox, new: PlacedBox) -> str:
    """A curve from the right side of one box to the left side of another."""
    x, y, to_x, to_y = old.x + WIDTH, old.y + HEIGHT // 2, new.x, new.y + HEIGHT // 2
    bend = max(GAP_X // 2, (to_x - x) // 2)
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"
