"""A bounded wait ends for a service that hangs, and not for one that answers on a machine that stops."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from snakepit.pools.jobs import bounded_thread
from snakepit.pools.jobs.bounded_thread import BoundedThread, Hangs


def test_a_machine_that_stops_is_no_service_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    awake, stops = threading.Event(), 0

    class Stopped(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            nonlocal stops
            stops += 1
            if stops == 1:  # the machine stops for longer than the wait, and the service with it
                awake.set()
                raise TimeoutError
            return super().result(60.0)

    def work() -> str:
        awake.wait(60.0)
        return "answer"

    monkeypatch.setattr(bounded_thread, "Future", Stopped)
    assert BoundedThread("test", "service", 60.0).run(work) == "answer"


def test_nothing_waits_behind_work_that_hangs() -> None:
    begun, end, thread = threading.Event(), threading.Event(), BoundedThread("test", "service", 60.0)

    def hang() -> None:
        begun.set()
        end.wait(60.0)

    first = threading.Thread(target=thread.run, args=(hang,))
    first.start()
    try:
        assert begun.wait(60.0)
        thread.patience = 0.0  # it is over
        with pytest.raises(Hangs, match="the service did not answer within 0 s"):
            thread.run(lambda: pytest.fail("it has begun"))
    finally:
        end.set()
        first.join()


def test_a_timeout_of_the_work_is_its_own_error() -> None:
    def work() -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        BoundedThread("test", "service", 60.0).run(work)
