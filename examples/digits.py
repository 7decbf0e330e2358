"""Handwritten digits: a scikit-learn classifier over the 1,797 scans that come with the library.

The model is fitted once in `preload`, on the first half of the scans, for all workers: they are forked afterwards and
share it. A call costs only its prediction.

    pixels (64 numbers, 0 to 16) ──▶ classify ──▶ the digit
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from snakepit.workers import Adapter, command

SIDE = 8
PIXELS = SIDE * SIDE
BRIGHTEST = 16
TRAINED_ON = 898
MOST_ROWS = 2000


@cache
def scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans, one row of 64 pixels each, and the digits that people read in them."""
    bundle = load_digits()
    return bundle.data, bundle.target


@cache
def reference_model() -> SVC:
    """The model itself. The same scans give the same model in every process, so its answers can be compared."""
    rows, digits = scans()
    return SVC(gamma=0.001, C=10.0, random_state=0).fit(rows[:TRAINED_ON], digits[:TRAINED_ON])


class Digits(Adapter):
    """Reads handwritten digits."""

    model: SVC

    @classmethod
    def preload(cls) -> None:
        cls.model = reference_model()

    @command(idempotent=True)
    def classify(self, pixels: list[float]) -> int:
        """The digit in one scan of 8 x 8 pixels, each 0 (white) to 16 (black), row by row."""
        return int(self.model.predict(readable([pixels]))[0])

    @command(idempotent=True)
    def classify_many(self, rows: list[list[float]]) -> list[int]:
        """The digits in many scans; one call for a batch saves the way there and back for each."""
        if len(rows) > MOST_ROWS:
            raise ValueError(f"rows: {len(rows)} scans are too many for one call; send at most {MOST_ROWS}")
        return [int(digit) for digit in self.model.predict(readable(rows))] if rows else []

    @command(idempotent=True)
    def sample(self, index: int) -> dict[str, Any]:
        """One of the bundled scans, as `pixels` for classify, and its `label`: what a person read in it."""
        rows, digits = scans()
        if not 0 <= index < len(rows):
            raise ValueError(f"index: {index} is outside 0 to {len(rows) - 1}")
        return {"pixels": rows[index].tolist(), "label": int(digits[index])}

    @command(idempotent=True)
    def info(self) -> dict[str, Any]:
        """What the model is, and how often it is right about the scans that it was not fitted on."""
        rows, digits = scans()
        accuracy = self.model.score(rows[TRAINED_ON:], digits[TRAINED_ON:])
        return {"scans": len(rows), "trained_on": TRAINED_ON, "accuracy": round(float(accuracy), 4)}


def readable(rows: list[list[float]]) -> np.ndarray:
    """The rows as an array; refuses what is no scan, and says which row and why."""
    for number, row in enumerate(rows):
        if len(row) != PIXELS:
            raise ValueError(f"pixels: scan {number} has {len(row)} values; a scan has {PIXELS} ({SIDE} x {SIDE})")
    array = np.asarray(rows, dtype=float)
    # A comparison with NaN is false, so this refuses NaN too.
    if array.size and not bool(((array >= 0) & (array <= BRIGHTEST)).all()):
        raise ValueError(f"pixels: every value must lie between 0 and {BRIGHTEST}")
    return array
