"""Handwritten digits: a scikit-learn classifier over the 1,797 scans that come with the library.

`preload` fits the model once, on the first half of the scans. Workers are forked afterwards and share it, so a call
costs only its prediction.

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
    """All scans, one row of 64 pixels each, and their labels."""
    bundle = load_digits()
    return bundle.data, bundle.target


@cache
def reference_model() -> SVC:
    """The model. It is the same in every process, so results can be compared."""
    rows, digits = scans()
    return SVC(gamma=0.001, C=10.0, random_state=0).fit(rows[:TRAINED_ON], digits[:TRAINED_ON])


class Digits(Adapter):
    """Reads handwritten digits."""

    model: SVC

    @classmethod
    def preload(cls) -> None:
        cls.model = reference_model()

    @command(idempotent=True, batch=64)
    def classify(self, pixels: list[list[float]]) -> list[int]:
        """The digit in one scan of 8 x 8 pixels, each 0 (white) to 16 (black), row by row."""
        return [int(digit) for digit in self.model.predict(readable(pixels))]

    @command(idempotent=True)
    def classify_many(self, rows: list[list[float]]) -> list[int]:
        """The digits in many scans. One call for a batch saves a round trip for each scan."""
        if len(rows) > MOST_ROWS:
            raise ValueError(f"rows: {len(rows)} scans are too many for one call; the limit is {MOST_ROWS}")
        return [int(digit) for digit in self.model.predict(readable(rows))] if rows else []

    @command(idempotent=True)
    def sample(self, index: int) -> dict[str, Any]:
        """One of the bundled scans, as `pixels` for classify, with its `label`."""
        rows, digits = scans()
        if not 0 <= index < len(rows):
            raise ValueError(f"index: {index} is outside 0 to {len(rows) - 1}")
        return {"pixels": rows[index].tolist(), "label": int(digits[index])}

    @command(idempotent=True)
    def info(self) -> dict[str, Any]:
        """Sizes of the data, and the model's accuracy on the scans that it was not fitted on."""
        rows, digits = scans()
        accuracy = self.model.score(rows[TRAINED_ON:], digits[TRAINED_ON:])
        return {"scans": len(rows), "trained_on": TRAINED_ON, "accuracy": round(float(accuracy), 4)}


def readable(rows: list[list[float]]) -> np.ndarray:
    """Convert the rows to an array. ValueError names a row that is not a scan."""
    for number, row in enumerate(rows):
        if len(row) != PIXELS:
            raise ValueError(f"pixels: scan {number} has {len(row)} values; a scan has {PIXELS} ({SIDE} x {SIDE})")
    array = np.asarray(rows, dtype=float)
    # Comparisons with NaN are false, so NaN is rejected too.
    if array.size and not bool(((array >= 0) & (array <= BRIGHTEST)).all()):
        raise ValueError(f"pixels: every value must lie between 0 and {BRIGHTEST}")
    return array
