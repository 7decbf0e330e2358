"""An adapter whose commands return annotated types, for clients that are generated from its pool's description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from snakepit.workers import Adapter, Context, command


@dataclass
class Match:
    label: Literal["tea", "cake"]
    score: float
    found: datetime
    price: Decimal | None = None


class Line(TypedDict):
    number: int
    text: NotRequired[str]


class Typed(Adapter):
    @command(idempotent=True)
    def find(self, text: str, limit: int = 2) -> list[Match]:
        """Find matches."""
        found = datetime(2026, 1, 2, tzinfo=UTC)
        return [Match("tea", 0.5, found, Decimal("1.10")), Match("cake", 0.25, found)][:limit]

    @command
    def watch(self, ctx: Context, lines: list[Line]) -> Iterator[Line]:
        """Give the lines back, one chunk each."""
        ctx.progress(0.5, "half")
        yield from lines

    @command
    def double(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        doubled: NDArray[np.float64] = values * 2
        return doubled

    @command
    def picture(self, data: bytes) -> bytes:
        return data[::-1]

    @command
    def fail(self) -> None:
        raise KeyError("region")
