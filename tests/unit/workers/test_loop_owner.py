"""Which thread runs the loop: the waiter, or the backup thread while no waiter does."""

from __future__ import annotations

import _thread
import asyncio
import os
import selectors
import signal
import threading
from collections.abc import Iterator

import pytest

from snakepit.workers.process.template_safety import current_frames
from snakepit.workers.transport.loop_owner import WAITING, BoundedSelector, LoopOwner, came_while_waiting

PATIENCE = 20.0


class Owned:
    """A loop with its backup thread running."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop_owner = LoopOwner(self.loop)
        self.over = False
        self.thread = threading.Thread(target=self.loop_owner.run_backup, args=(lambda: self.over,), daemon=True)
        self.thread.start()

    def runner(self) -> threading.Thread:
        """The thread on which the loop runs something now."""
        seen: list[threading.Thread] = []
        done = threading.Event()

        def look() -> None:
            seen.append(threading.current_thread())
            done.set()

        self.loop.call_soon_threadsafe(look)
        assert done.wait(PATIENCE), "no thread runs the loop"
        return seen[0]

    def close(self) -> None:
        self.over = True
        self.loop_owner.leave_to_backup()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.loop.close()


@pytest.fixture
def owned() -> Iterator[Owned]:
    made = Owned()
    yield made
    made.close()


def test_the_backup_thread_runs_the_loop_while_there_is_no_waiter(owned: Owned) -> None:
    assert owned.runner() is owned.thread


def test_the_thread_that_waits_runs_the_loop_itself(owned: Owned) -> None:
    ran_on: list[threading.Thread] = []

    def work() -> None:
        ran_on.append(threading.current_thread())
        owned.loop.stop()

    owned.loop_owner.call_soon(work)
    owned.loop_owner.run_until(lambda: bool(ran_on))
    owned.loop_owner.call_soon(work)  # no thread runs the loop now: it waits for the next one
    owned.loop_owner.run_until(lambda: len(ran_on) == 2)
    assert ran_on[1] is threading.current_thread()


def test_a_waiter_takes_the_loop_from_the_backup_thread(owned: Owned) -> None:
    for turn in range(50):
        assert owned.runner() is owned.thread  # no waiter for longer than BACKUP_DELAY
        seen: list[threading.Thread] = []
        owned.loop_owner.call_soon(lambda seen=seen: (seen.append(threading.current_thread()), owned.loop.stop()))
        owned.loop_owner.run_until(lambda seen=seen: bool(seen))
        assert seen, turn


def test_the_backup_thread_runs_the_loop_immediately_when_it_is_urgent(owned: Owned) -> None:
    first: list[int] = []
    owned.loop_owner.call_soon(lambda: (first.append(1), owned.loop.stop()))
    owned.loop_owner.run_until(lambda: bool(first))
    done = threading.Event()
    owned.loop_owner.call_soon(done.set)
    owned.loop_owner.ensure_running()
    assert done.wait(PATIENCE)


def test_a_sleeping_backup_thread_wakes_when_the_waiter_leaves(owned: Owned) -> None:
    def wait_until(event: threading.Event) -> None:
        owned.loop_owner.run_until(event.is_set)

    release = threading.Event()
    main = threading.Thread(target=wait_until, args=(release,))
    main.start()
    while not owned.loop_owner._backup_sleeps:  # after some checks
        owned.runner()
    release.set()
    owned.loop.call_soon_threadsafe(owned.loop.stop)
    main.join(PATIENCE)
    assert owned.runner() is owned.thread


class Interrupt(BaseException):
    """A signal handler raises it."""


def test_an_interrupt_while_a_waiter_takes_the_loop_leaves_it_to_the_backup_thread(owned: Owned) -> None:
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

    assert owned.runner() is owned.thread
    real = owned.loop_owner._running
    owned.loop_owner._running = Interrupted(real)  # type: ignore[assignment]
    with pytest.raises(Interrupt):
        owned.loop_owner.try_run_until(lambda: False, 1.0, alone=True)
    with pytest.raises(Interrupt):
        owned.loop_owner.run_until(lambda: False)
    owned.loop_owner._running = real
    assert owned.runner() is owned.thread


class InterruptedSelector(BoundedSelector):
    """A signal arrives in its first wait of the main thread."""

    interrupts = 1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.interrupts and threading.current_thread() is threading.main_thread():
            self.interrupts -= 1
            raise Interrupt
        return super().select(timeout)


def test_no_other_thread_gets_the_failure_of_a_waiter_that_was_interrupted_before_it_raised_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = (*WAITING, InterruptedSelector.select.__code__)
    monkeypatch.setattr("snakepit.workers.transport.loop_owner.WAITING", waiting)
    loop = asyncio.SelectorEventLoop(InterruptedSelector())
    owner = LoopOwner(loop)

    def fail() -> None:
        owner.failure = ValueError("of a signal handler of the first waiter")

    owner.call_soon(fail)
    with pytest.raises(Interrupt):
        owner.try_run_until(lambda: False, None, alone=True)
    owner.try_run_until(lambda: False, 0.1, alone=True)
    assert owner.retired
    loop.close()


def test_a_second_interrupt_does_not_leave_a_loop_of_unknown_state_to_the_next_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: BaseException) -> bool:
        raise Interrupt

    monkeypatch.setattr("snakepit.workers.transport.loop_owner.came_while_waiting", interrupted)
    loop = asyncio.new_event_loop()
    owner = LoopOwner(loop)
    with pytest.raises(Interrupt):
        owner.try_run_until(lambda: bool(1 / 0), None, alone=True)
    assert not owner.retired
    owner.try_run_until(lambda: False, 0.1, alone=True)
    assert owner.retired
    owner.run_backup(lambda: False)
    loop.close()


def test_a_waiter_with_a_timeout_comes_back_without_its_answer(owned: Owned) -> None:
    assert owned.runner() is owned.thread
    owned.loop_owner.try_run_until(lambda: False, 0.01, alone=True)
    assert owned.runner() is owned.thread


def test_one_turn_of_the_loop_runs_what_waits_and_does_not_wait_for_more(owned: Owned) -> None:
    ran: list[int] = []
    owned.loop_owner.run_until(lambda: True)
    owned.loop_owner.call_soon(ran.append, 1)
    owned.loop_owner.run_once()
    assert ran == [1]


def test_a_callback_that_fails_does_not_stop_the_others(owned: Owned) -> None:
    failed: list[object] = []
    ran: list[int] = []
    owned.loop_owner.run_until(lambda: True)
    owned.loop.set_exception_handler(lambda loop, context: failed.append(context["exception"]))
    error = ValueError("no")

    def fail() -> None:
        raise error

    owned.loop_owner.call_soon(fail)
    owned.loop_owner.call_soon(ran.append, 1)
    owned.loop_owner.run_once()
    assert (failed, ran) == ([error], [1])


def test_an_exception_in_a_callback_is_distinguished_from_one_while_the_loop_waits(owned: Owned) -> None:
    def interrupt() -> None:
        raise Interrupt

    owned.loop_owner.run_until(lambda: True)
    owned.loop_owner.call_soon(interrupt)
    with pytest.raises(Interrupt) as caught:  # before the loop runs
        owned.loop_owner.run_once()
    assert not came_while_waiting(caught.value)
    before = signal.signal(signal.SIGUSR1, lambda *_: interrupt())
    try:
        owned.loop.call_soon_threadsafe(lambda: threading.Timer(0, interrupt_select).start())
        with pytest.raises(Interrupt) as caught:
            owned.loop_owner.run_until(lambda: False)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came_while_waiting(caught.value)


def test_a_signal_right_before_the_wait_for_events_is_handled_soon() -> None:
    """Such a signal does not interrupt the system call, and no event may come for long."""
    loop = asyncio.SelectorEventLoop(BoundedSelector())
    loop_owner = LoopOwner(loop)
    handled, rescued = threading.Event(), threading.Event()

    def interrupt() -> None:
        while current_frames()[main].f_code not in WAITING:
            pass
        _thread.interrupt_main()  # marks the signal as received, and interrupts no system call
        if not handled.wait(PATIENCE):
            rescued.set()
            loop.call_soon_threadsafe(loop.stop)

    main = threading.get_ident()
    thread = threading.Thread(target=interrupt)
    loop.call_soon(thread.start)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            loop_owner.run_until(lambda: False)
        assert came_while_waiting(caught.value)
    finally:
        handled.set()
        thread.join(PATIENCE)
        loop.close()
    assert not rescued.is_set()


def interrupt_select() -> None:
    main = threading.main_thread().ident
    assert main is not None
    while current_frames()[main].f_code is not selectors.DefaultSelector.select.__code__:
        pass
    os.kill(os.getpid(), signal.SIGUSR1)


def test_a_retired_owner_lets_the_backup_thread_go_even_if_a_lock_stays_held() -> None:
    loop = asyncio.new_event_loop()
    loop_owner = LoopOwner(loop)
    loop_owner._running.acquire()
    loop_owner._state.acquire()  # as an interrupt after the acquire would leave them
    thread = threading.Thread(target=loop_owner.run_backup, args=(lambda: False,), daemon=True)
    thread.start()
    loop_owner.retire()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    loop.close()
