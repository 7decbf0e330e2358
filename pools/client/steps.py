"""Steps of a thread through the client's shared state, which a signal handler or a finalizer may interrupt anywhere.

    run_step ─▶ busy ─▶ send, or wait on the loop ─▶ not busy
                 ├─ an exception came out: the state is unknown, so the loop and its sessions are retired
                 └─ busy at the next step: this thread is in a step still (refuse), or the last one was torn (retire)

An exception that came while the loop waited for events tore nothing: the session stays. No step raises an error by
design, so any other exception counts.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.client import loop_thread as background
from snakepit.workers.transport.loop_owner import came_while_waiting

P = ParamSpec("P")
T = TypeVar("T")

NESTED = (
    "A signal handler or a finalizer (__del__) called the client while its thread was inside another call of it: "
    "note the event and call later, or call from another thread"
)


class _Thread(threading.local):
    busy = False


_thread = _Thread()


def run_step(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run one step; refuses one inside another of the same thread, which would wait for itself."""
    if _thread.busy:
        if is_nested():
            raise BadRequest(NESTED)
        background.retire(None, None)
    _thread.busy = True
    try:
        result = step(*args, **kwargs)
    except BaseException as error:
        if not came_while_waiting(error):
            background.retire(None, error)
        _thread.busy = False
        raise
    _thread.busy = False
    return result


def run_short_step(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a step that never waits: a finalizer may do so inside another step."""
    if _thread.busy and is_nested():
        return step(*args, **kwargs)
    return run_step(step, *args, **kwargs)


def is_nested() -> bool:
    """Whether a frame below runs a step; after a torn one `busy` alone remains."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        if frame.f_code is run_step.__code__:
            return True
        frame = frame.f_back
    return False
