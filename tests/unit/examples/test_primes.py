"""The primes adapter as a plain Python object, also from several threads."""

from __future__ import annotations

import threading
from itertools import islice
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.examples.primes import Primes, is_prime, sieve
from snakepit.workers import CallCancelled
from tests.unit.examples.follower import Follower


@pytest.fixture
def primes() -> Primes:
    adapter = Primes()
    adapter.setup()
    return adapter


@pytest.mark.parametrize(("below", "count"), [(0, 0), (1, 0), (2, 0), (3, 1), (10, 4), (100, 25), (1_000_000, 78_498)])
def test_counts_are_the_known_ones(primes: Primes, below: int, count: int) -> None:
    assert primes.count(below) == count


@given(st.integers(0, 3000))
def test_the_sieve_and_the_test_of_one_number_agree(n: int) -> None:
    assert bool(sieve(n + 1)[n]) == is_prime(n)


@given(st.integers(1, 10**9))
def test_the_factors_are_primes_and_multiply_to_the_number(n: int) -> None:
    adapter = Primes()
    adapter.setup()
    factors = adapter.factor(Follower(), n)
    assert prod(factors) == n
    assert factors == sorted(factors)
    assert all(is_prime(factor) for factor in factors)


def test_the_stream_lists_primes_in_order_with_progress(primes: Primes) -> None:
    follower = Follower()
    assert list(primes.primes(follower, start=90, limit=4)) == [97, 101, 103, 107]
    assert follower.fractions == [0.25, 0.5, 0.75, 1.0]


def test_the_stream_is_lazy(primes: Primes) -> None:
    assert list(islice(primes.primes(Follower(), limit=1_000_000), 5)) == [2, 3, 5, 7, 11]


def test_a_cancelled_factorisation_ends(primes: Primes) -> None:
    follower = Follower()
    follower.cancelled = True
    with pytest.raises(CallCancelled):
        primes.factor(follower, 99_999_999_999_973)


@pytest.mark.parametrize("below", [-1, 20_000_001])
def test_a_count_outside_the_limits_is_refused(primes: Primes, below: int) -> None:
    with pytest.raises(ValueError, match="below: "):
        primes.count(below)


@pytest.mark.parametrize("n", [0, -6, 10**14 + 1])
def test_a_number_outside_the_limits_is_refused(primes: Primes, n: int) -> None:
    with pytest.raises(ValueError, match="n: "):
        primes.factor(Follower(), n)


@pytest.mark.parametrize(("start", "limit", "complaint"), [(-1, 1, "start"), (10**13, 1, "start"), (2, 0, "limit")])
def test_a_stream_outside_the_limits_is_refused(primes: Primes, start: int, limit: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{complaint}: "):
        next(primes.primes(Follower(), start, limit))


def test_the_buffered_meter_misses_no_call_of_eight_threads(primes: Primes) -> None:
    together = threading.Barrier(8)
    own: list[int] = []

    def work() -> None:
        together.wait()
        for _ in range(200):
            primes.count(3)
        own.append(primes.call_counts()["thread"])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert primes.call_counts() == {"all": {"count": 1600}, "thread": 0}
    assert own == [200] * 8
