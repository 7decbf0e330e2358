"""The loop of the client passes on what a signal handler raises while an error is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit.pools.client.loop_thread import ClientLoop
from snakepit.workers.transport.loop_owner import BoundedSelector, LoopOwner


class Interrupt(Exception):
    """A signal handler raises it."""


@pytest.fixture
def loop() -> Iterator[ClientLoop]:
    loop = ClientLoop(BoundedSelector())
    yield loop
    loop.close()


def interrupted(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    raise Interrupt


def test_an_interrupt_of_the_report_of_an_error_reaches_the_thread_that_waits(loop: ClientLoop) -> None:
    loop.set_exception_handler(interrupted)
    owner = LoopOwner(loop)
    loop.call_soon(lambda: 1 / 0)  # asyncio would log the interrupt, and the loop would go on in an unknown state
    with pytest.raises(Interrupt):
        owner.try_run_until(lambda: False, 20.0, alone=True)
    assert owner.retired


def test_an_interrupt_of_the_report_of_a_callback_before_the_loop_runs_is_raised_too(loop: ClientLoop) -> None:
    loop.set_exception_handler(interrupted)
    owner = LoopOwner(loop)
    owner.call_soon(lambda: 1 / 0)
    with pytest.raises(Interrupt):
        owner.try_run_until(lambda: False, 20.0, alone=True)
    assert owner.retired


def test_without_a_handler_errors_are_logged_as_ever(loop: ClientLoop, caplog: pytest.LogCaptureFixture) -> None:
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert "ZeroDivisionError" in caplog.text
