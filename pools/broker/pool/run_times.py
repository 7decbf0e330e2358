"""How long the commands of a pool run: what it has learned, for handing calls ahead and for people who ask.

>>> times = RunTimes()
>>> times.expected("echo") == UNKNOWN
True
>>> for _ in range(ENOUGH):
...     times.note("echo", 0.001)
>>> times.expected("echo")
0.001
>>> times.note("echo", 8.0)  # once in a while it takes long: not short for the next fifty calls
>>> 1.0 < times.expected("echo") < 1.01
True
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

UNKNOWN = 3600.0  # seconds; a number and no infinity, because it is added to sums and taken off again
ENOUGH = 8  # runs after which a command is known
MEMORY = 1 / 8  # share of the newest run in the smoothed time
BOUNDS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)  # seconds; the last bucket holds what took longer
MAX_COMMANDS = 1000  # names that are kept; as many as an adapter may have


class Command:
    """One command's runs: how many, how long, smoothed and by size."""

    __slots__ = ("buckets", "count", "seconds", "smoothed")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.smoothed = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)


class RunTimes:
    """Constant time a call, constant memory a command."""

    __slots__ = ("commands",)

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}

    def note(self, command: str, seconds: float) -> None:
        known = self.commands.get(command)
        if known is None:
            if len(self.commands) >= MAX_COMMANDS:
                return
            known = self.commands[command] = Command()
            known.smoothed = seconds
        known.count += 1
        known.seconds += seconds
        known.smoothed += (seconds - known.smoothed) * MEMORY
        known.buckets[bisect_left(BOUNDS, seconds)] += 1

    def expected(self, command: str) -> float:
        """Seconds that the next run will take, as far as one knows."""
        known = self.commands.get(command)
        return UNKNOWN if known is None or known.count < ENOUGH else known.smoothed

    def rows(self) -> list[dict[str, Any]]:
        """For the snapshot, by name. `buckets`: runs up to each of BOUNDS, and at the end those above."""
        return [
            {
                "command": name,
                "count": known.count,
                "seconds": round(known.seconds, 6),
                "smoothed": round(known.smoothed, 6),
                "buckets": list(known.buckets),
            }
            for name, known in sorted(self.commands.items())
        ]
