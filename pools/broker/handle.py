"""A submitted call, as its caller holds it."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.pools.broker.runner.runner import Runner


@dataclass(slots=True)  # not frozen: that doubles the cost of what is made for each call
class CallHandle:
    """Cancels a call or grants it credit. Both do nothing once the call is answered."""

    _runner: Runner | None
    _number: int

    def cancel(self) -> None:
        if self._runner:
            self._runner.cancel(self._number)

    def credit(self, chunks: int) -> None:
        if self._runner:
            self._runner.credit(self._number, chunks)
