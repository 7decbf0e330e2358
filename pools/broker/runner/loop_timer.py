"""Being woken by the event loop for the next thing that is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER = float("inf")


class LoopTimer:
    """One timer. It may ring too early, which does no harm: a handle that is there is left alone."""

    __slots__ = ("_at", "_handle", "_ring")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._at = NEVER

    def set(self, at: float, now: Callable[[], float]) -> None:
        """Ring at this time at the latest; infinite: nothing is due."""
        if at >= self._at:
            return
        self.cancel()
        self._at = at
        self._handle = asyncio.get_running_loop().call_later(max(0.0, at - now()), self._wake)

    def cancel(self) -> None:
        if self._handle:
            self._handle.cancel()
        self._handle, self._at = None, NEVER

    def _wake(self) -> None:
        self._handle, self._at = None, NEVER
        self._ring()
