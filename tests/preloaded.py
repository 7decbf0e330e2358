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
        """Runs once, in the template. Load what all workers share and only read."""
        cls.lengths = MappingProxyType({"Danube": 2850, "Rhine": 1233, "Oder": 866})

    def setup(self) -> None:
        """Runs once in each worker, after the fork. Make what each worker needs for itself."""
        self.random = random.Random()
        self.cache = sqlite3.connect(":memory:")

    def teardown(self) -> None:
        self.cache.close()

    @command(idempotent=True)
    def length(self, river: str) -> int:
        return int(self.lengths[river])

    @command
    def draw(self) -> dict[str, Any]:
        """A number from the worker's own generator, and whether its connection works."""
        return {"number": self.random.random(), "answer": self.cache.execute("SELECT 1").fetchone()[0]}
