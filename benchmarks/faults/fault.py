"""What a fault is, what its run found, and the count of the calls that met it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from snakepit.pools.broker.errors import BrokerError


@dataclass(slots=True)
class Findings:
    """Figures of a run by name, and the promises that did not hold."""

    measured: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def expect(self, holds: bool, promise: str) -> None:
        if not holds:
            self.broken.append(promise)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `run` makes it for so many seconds, on processes that it starts and ends itself."""

    name: str
    what: str  # the fault
    promise: str  # what holds under it
    tests: tuple[str, ...]  # of the suite, by `file::name` below tests/
    run: Callable[[float], Findings]
    seconds: float = 60.0  # of a full run


class CallCount:
    """Counts the calls of many threads by how they ended. Each call is either right, wrong, or a typed error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.asked = self.right = self.wrong = 0
        self.errors: Counter[str] = Counter()
        self.untyped: list[str] = []

    def call(self, run: Callable[[], Any], expected: Any) -> bool:
        """Run a call and count its end; return whether it was right."""
        with self._lock:
            self.asked += 1
        try:
            value = run()
        except BrokerError as error:
            with self._lock:
                self.errors[error.code] += 1
        except Exception as error:  # the find: a caller may expect typed errors alone
            with self._lock:
                self.untyped.append(f"{type(error).__name__}: {error}"[:300])
        else:
            with self._lock:
                self.right += value == expected
                self.wrong += value != expected
            return bool(value == expected)
        return False

    @property
    def answered(self) -> int:
        return self.right + self.wrong + sum(self.errors.values()) + len(self.untyped)

    @property
    def share(self) -> float:
        """The right ones, in percent."""
        return 100.0 * self.right / self.asked if self.asked else 0.0

    def check(self, found: Findings, name: str) -> None:
        """Enter what must hold for every call."""
        found.expect(self.asked > 0, f"{name}: no call was made")
        found.expect(self.answered == self.asked, f"{name}: {self.asked - self.answered} calls have no answer")
        found.expect(not self.wrong, f"{name}: {self.wrong} wrong answers")
        found.expect(not self.untyped, f"{name}: {len(self.untyped)} untyped errors, such as {self.untyped[:1]}")

    def __str__(self) -> str:
        errors = ", ".join(f"{count:,} {code}" for code, count in self.errors.most_common())
        return f"{self.right:,} of {self.asked:,} right ({self.share:.2f} %)" + (f"; {errors}" if errors else "")
