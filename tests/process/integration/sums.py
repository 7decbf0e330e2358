"""An adapter whose commands add, for jobs that wait for others and receive their results."""

from __future__ import annotations

from typing import Any

from snakepit import Adapter, command


class Sums(Adapter):
    broken = True  # whether `fail` raises

    @command
    def add(self, number: int, more: int = 1) -> int:
        return number + more

    @command
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)

    @command
    def fail(self, text: str = "") -> str:
        if Sums.broken:
            raise ValueError(text)
        return text

    @command
    def show(self, found: Any = 7) -> str:
        return repr(found)
