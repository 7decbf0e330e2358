"""A stand-in for a call's Context: keeps what the command tells, and can be told to cancel."""

from __future__ import annotations

from snakepit.workers import CallCancelled


class Follower:
    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.cancelled = False

    def progress(self, fraction: float, message: str = "") -> None:
        self.fractions.append(fraction)

    def raise_if_cancelled(self) -> None:
        if self.cancelled:
            raise CallCancelled("cancelled")
