"""Prime numbers in pure Python: CPU-bound work that is safe in many threads.

It uses the three patterns of a thread-safe adapter: read-only data shared by all threads (`WHEEL`), thread-local state
(`self.local`), and shared state behind the lock (`self.lock`). With the GIL off the threads run in parallel. With the
GIL on they take turns, and the pool's page shows this.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Any

from snakepit.workers import Adapter, Context, command

WHEEL = (4, 2, 4, 2, 4, 6, 2, 6)  # steps from 7 on that skip multiples of 2, 3 and 5
LARGEST_SIEVE = 20_000_000
LARGEST_NUMBER = 10**14
LARGEST_START = 10**12
CHECK_EVERY = 4096  # steps between two checks for cancellation


class Primes(Adapter):
    """Counts, factors and lists prime numbers."""

    thread_safe = True

    def setup(self) -> None:
        self.calls: dict[str, int] = {}

    @command(idempotent=True)
    def count(self, below: int) -> int:
        """The number of primes smaller than `below`."""
        if not 0 <= below <= LARGEST_SIEVE:
            raise ValueError(f"below: {below} is outside 0 to {LARGEST_SIEVE}")
        self._note("count")
        return sum(sieve(below))

    @command(idempotent=True)
    def factor(self, ctx: Context, n: int) -> list[int]:
        """The prime factors of `n`, smallest first, repeated as often as they divide it."""
        if not 1 <= n <= LARGEST_NUMBER:
            raise ValueError(f"n: {n} is outside 1 to {LARGEST_NUMBER}")
        self._note("factor")
        factors = []
        for step, divisor in enumerate(candidates()):
            if step % CHECK_EVERY == 0:
                ctx.raise_if_cancelled()
            while n % divisor == 0:
                factors.append(divisor)
                n //= divisor
            if divisor * divisor > n:
                break
        return factors + [n] * (n > 1)

    @command(idempotent=True)
    def primes(self, ctx: Context, start: int = 2, limit: int = 100) -> Iterator[int]:
        """Streams `limit` primes from `start` on."""
        if not 0 <= start <= LARGEST_START:
            raise ValueError(f"start: {start} is outside 0 to {LARGEST_START}")
        if not 1 <= limit <= 1_000_000:
            raise ValueError(f"limit: {limit} is outside 1 to 1000000")
        self._note("primes")
        number, found = max(start, 2), 0
        while found < limit:
            if number % CHECK_EVERY == 0:
                ctx.raise_if_cancelled()
            if is_prime(number):
                found += 1
                yield number
                ctx.progress(found / limit, str(number))
            number += 1

    @command(idempotent=True)
    def call_counts(self) -> dict[str, Any]:
        """The calls of this worker: `all` by command, and `thread`, those of the current thread."""
        with self.lock:
            return {"all": dict(self.calls), "thread": getattr(self.local, "calls", 0)}

    def _note(self, name: str) -> None:
        self.local.calls = getattr(self.local, "calls", 0) + 1
        with self.lock:
            self.calls[name] = self.calls.get(name, 0) + 1


def sieve(below: int) -> bytearray:
    """One byte for each number: 1 where it is prime.

    >>> [n for n, prime in enumerate(sieve(12)) if prime]
    [2, 3, 5, 7, 11]
    """
    flags = bytearray([1]) * below
    flags[:2] = bytes(min(below, 2))
    for n in range(2, isqrt(max(below - 1, 0)) + 1):
        if flags[n]:
            flags[n * n :: n] = bytes(len(range(n * n, below, n)))
    return flags


def candidates() -> Iterator[int]:
    """2, 3, 5, and all numbers from 7 on that are not divisible by them."""
    yield from (2, 3, 5)
    number = 7
    while True:
        for step in WHEEL:
            yield number
            number += step


def is_prime(n: int) -> bool:
    """
    >>> [n for n in range(20) if is_prime(n)]
    [2, 3, 5, 7, 11, 13, 17, 19]
    """
    if n < 2:
        return False
    for divisor in candidates():
        if divisor * divisor > n:
            return True
        if n % divisor == 0:
            return False
    raise AssertionError("candidates never end")
