"""The adapter of docs/howto/preload.md."""

from __future__ import annotations

import random
import sqlite3
from types import MappingProxyType
from typing import Any

from snakepit.workers import Adapter, command


class Rivers(Adapter):
    @classmethod
    def preload(cls) -> None:
        """Once, in the template: what all workers read and nobody writes."""
        cls.lengths = MappingProxyType({"Danube": 2850, "Rhine": 1233, "Oder": 866})

    def setup(self) -> None:
        """Once in each worker, after the fork: what each must have for itself."""
        self.random = random.Random()
        self.cache = sqlite3.connect(":memory:")

    def teardown(self) -> None:
        self.cache.close()

    @command(idempotent=True)
    def length(self, river: str) -> int:
        return int(self.lengths[river])

    @command
    def draw(self) -> dict[str, Any]:
        """A number from a generator of its own, and whether its connection answers."""
        return {"number": self.random.random(), "answer": self.cache.execute("SELECT 1").fetchone()[0]}
