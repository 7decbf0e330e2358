"""The digits example with a second command that runs without batches."""

from __future__ import annotations

from snakepit.examples.digits import Digits, readable
from snakepit.workers import command


class Batching(Digits):
    @command(idempotent=True)
    def classify_alone(self, pixels: list[float]) -> int:
        """As `classify`, one call at a time."""
        return int(self.model.predict(readable([pixels]))[0])
