"""Who runs the loop: the thread that waits, or the keeper when that is away for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from snakepit.workers.transport.loop_owner import LoopOwner

PATIENCE = 20.0


class Kept:
    """A loop_owner with its keeper running."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop_owner = LoopOwner(self.loop)
        self.over = False
        self.thread = threading.Thread(target=self.loop_owner.keep, args=(lambda: self.over,), daemon=True)
        self.thread.start()

    def who(self) -> threading.Thread:
        """The thread on which the loop runs something now."""
        seen: list[threading.Thread] = []
        done = threading.Event()

        def look() -> None:
            seen.append(threading.current_thread())
            done.set()

        self.loop.call_soon_threadsafe(look)
        assert done.wait(PATIENCE), "nobody runs the loop"
        return seen[0]

    def close(self) -> None:
        self.over = True
        self.loop_owner.leave_for_good()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.loop.close()


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.close()


def test_the_keeper_runs_the_loop_while_the_other_thread_is_away(kept: Kept) -> None:
    assert kept.who() is kept.thread


def test_the_thread_that_waits_runs_the_loop_itself(kept: Kept) -> None:
    ran_on: list[threading.Thread] = []

    def work() -> None:
        ran_on.append(threading.current_thread())
        kept.loop.stop()

    kept.loop_owner.call(work)
    kept.loop_owner.hold(lambda: bool(ran_on))
    kept.loop_owner.call(work)  # nobody runs it now: it waits until somebody does
    kept.loop_owner.hold(lambda: len(ran_on) == 2)
    assert ran_on[1] is threading.current_thread()


def test_a_thread_that_comes_back_takes_the_loop_from_the_keeper(kept: Kept) -> None:
    for turn in range(50):
        assert kept.who() is kept.thread  # away for longer than the keeper's patience
        seen: list[threading.Thread] = []
        kept.loop_owner.call(lambda seen=seen: (seen.append(threading.current_thread()), kept.loop.stop()))
        kept.loop_owner.hold(lambda seen=seen: bool(seen))
        assert seen, turn


def test_the_keeper_comes_at_once_when_there_is_something_urgent(kept: Kept) -> None:
    first: list[int] = []
    kept.loop_owner.call(lambda: (first.append(1), kept.loop.stop()))
    kept.loop_owner.hold(lambda: bool(first))
    done = threading.Event()
    kept.loop_owner.call(done.set)
    kept.loop_owner.hurry()
    assert done.wait(PATIENCE)


def test_a_sleeping_keeper_is_woken_by_the_next_absence(kept: Kept) -> None:
    def held_until(event: threading.Event) -> None:
        kept.loop_owner.hold(event.is_set)

    release = threading.Event()
    main = threading.Thread(target=held_until, args=(release,))
    main.start()
    while not kept.loop_owner._asleep:  # after some looks at nothing
        kept.who()
    release.set()
    kept.loop.call_soon_threadsafe(kept.loop.stop)
    main.join(PATIENCE)
    assert kept.who() is kept.thread


class Interrupt(Exception):
    """What a signal handler raises."""


def test_an_interrupt_while_the_loop_is_taken_leaves_it_to_the_keeper(kept: Kept) -> None:
    class Interrupted:
        """A lock in whose acquire a signal arrives."""

        def __init__(self, lock: threading.Lock) -> None:
            self.lock = lock

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if not blocking:
                return False
            raise Interrupt

        def release(self) -> None:
            self.lock.release()

    assert kept.who() is kept.thread
    real = kept.loop_owner._running
    kept.loop_owner._running = Interrupted(real)  # type: ignore[assignment]
    with pytest.raises(Interrupt):
        kept.loop_owner.borrow(lambda: False, 1.0, alone=True)
    with pytest.raises(Interrupt):
        kept.loop_owner.hold(lambda: False)
    kept.loop_owner._running = real
    assert kept.who() is kept.thread
