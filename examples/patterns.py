"""The three patterns of a thread-safe adapter, and a data race that the race checker finds.

shared read-only   created in `setup`, never written again      many threads read it concurrently
thread-local       `self.local`                                 each thread has its own
locked             `with self.lock:` or `@locked`               one thread at a time writes
"""

from __future__ import annotations

import re
from collections import Counter

from snakepit.workers import Adapter, command, locked

WORD = re.compile(r"\w+")
COMMON = frozenset({"a", "an", "and", "in", "is", "it", "of", "the", "to"})


class Words(Adapter):
    """Counts words of texts, in many threads concurrently."""

    thread_safe = True

    def setup(self) -> None:
        self.common = COMMON  # shared, read-only: no lock is needed
        self.counts: Counter[str] = Counter()  # shared and written: needs the lock
        self.texts = 0

    @command(idempotent=True)
    def words(self, text: str) -> list[str]:
        """The words of a text, without common words."""
        return [word for word in self._split(text) if word not in self.common]

    @command
    def add(self, text: str) -> int:
        """Count a text's words. Returns the number of counted texts."""
        found = Counter(self.words(text))  # the long part, outside the lock
        with self.lock:
            self.counts.update(found)
        return self._counted()

    @locked
    def _counted(self) -> int:
        self.texts += 1
        return self.texts

    @command
    def add_carelessly(self, text: str) -> int:
        """As `add`, without the lock: two threads may read the same number and both write it plus one."""
        self.texts += 1
        self.counts.update(self.words(text))
        return self.texts

    @command(idempotent=True)
    def top(self, limit: int = 10) -> list[tuple[str, int]]:
        """The most frequent words."""
        with self.lock:  # also for reading: iterating over a dict that grows raises an error
            return self.counts.most_common(limit)

    def _split(self, text: str) -> list[str]:
        if not hasattr(self.local, "seen"):
            self.local.seen = {}  # only this thread reads and writes it
        seen: dict[str, list[str]] = self.local.seen
        if text not in seen:
            seen.clear()
            seen[text] = WORD.findall(text.lower())
        return seen[text]
