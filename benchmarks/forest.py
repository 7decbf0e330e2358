"""A large model to share: a random forest over scikit-learn's digits, fitted at load time."""

from __future__ import annotations

from typing import Any, ClassVar

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from snakepit.workers import Adapter, command

TREES = 200


class Forest(Adapter):
    thread_safe = True
    model: ClassVar[Any]
    rows: ClassVar[Any]

    @classmethod
    def preload(cls) -> None:
        digits = load_digits()
        cls.rows = digits.data
        cls.model = RandomForestClassifier(TREES, random_state=0).fit(digits.data, digits.target)
        cls.model.predict(cls.rows[:1])  # also loads what the first call would import

    @command(idempotent=True)
    def classify(self, index: int) -> int:
        """The digit in one of the bundled scans."""
        return int(self.model.predict(self.rows[index : index + 1])[0])
