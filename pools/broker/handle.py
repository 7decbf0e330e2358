"""A submitted call, as its caller holds it."""

from __future__ import annotations

from snakepit.pools.broker.runner.runner import Runner


class Handle:
    """Both methods are harmless once the call is answered."""

    __slots__ = ("_number", "_runner")

    def __init__(self, runner: Runner | None, number: int) -> None:
        self._runner = runner
        self._number = number

    def cancel(self) -> None:
        if self._runner:
            self._runner.cancel(self._number)

    def credit(self, chunks: int) -> None:
        if self._runner:
            self._runner.credit(self._number, chunks)
