"""Adapters for the rows of batches: each has its command once with batches and once without."""

from __future__ import annotations

import time

from snakepit.examples.digits import Digits, readable
from snakepit.workers import Adapter, command

MODEL_SECONDS = 0.02  # of the model below, for one input or 64: as a model on an accelerator


class Batching(Digits):
    @command(idempotent=True)
    def classify_alone(self, pixels: list[float]) -> int:
        """As `classify`, one call at a time."""
        return int(self.model.predict(readable([pixels]))[0])


class Model(Adapter):
    @command(idempotent=True, batch=64)
    def infer(self, value: list[float]) -> list[float]:
        time.sleep(MODEL_SECONDS)
        return [one * 2 for one in value]

    @command(idempotent=True)
    def infer_alone(self, value: float) -> float:
        """As `infer`, one call at a time."""
        time.sleep(MODEL_SECONDS)
        return value * 2
