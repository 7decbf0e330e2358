"""Steps of a thread through the client's shared state, which a signal handler or a finalizer may interrupt anywhere.

    run_step ─▶ inside ─▶ send, or wait on the loop ─▶ outside
                  ├─ an exception came out: the state is unknown, so the loop and its sessions are given up as one
                  └─ inside at the next step: a call within a call (next level), or the last step never ended (give up)

Nothing of a loop that was given up is used again, so it does not matter where the exception came, nor which locks were
held. An exception that came while the loop waited for events changed nothing: the session stays.

A signal handler or a finalizer that calls inside another call gets a loop and a session of its own, those of the next
level.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import current_thread, get_ident
from types import FrameType
from typing import Any, TypeVar

from snakepit.pools.broker.errors import UNKNOWN, BadRequest, BrokerUnreachable
from snakepit.pools.client import loop_thread as background
from snakepit.pools.client.loop_thread import LoopThread, at_level, retire
from snakepit.workers.transport.loop_owner import came_while_waiting

T = TypeVar("T")

LEVELS = 4  # calls of one thread inside each other
NESTED = (
    "A signal handler or a finalizer (__del__) called the client while its thread was inside another call of it: "
    "note the event and call later, or call from another thread"
)
FORKED = "The call belongs to the process that forked this one."


def current_loop() -> LoopThread:
    """Return the loop that this thread's next call may use."""
    found = background.current.get(0)
    if found is not None and not found.retired and get_ident() not in found.inside:  # nearly always
        return found
    for level in range(LEVELS):
        found = at_level(level)
        if get_ident() not in found.inside:
            return found
        if not _is_nested(found, sys._getframe()):
            return at_level(level)
    raise BadRequest(NESTED)


def _is_nested(loop_thread: LoopThread, frame: FrameType | None) -> bool:
    """Whether a frame below runs a step of a loop. If not, the last step never ended, and the loop is given up."""
    if current_thread() is loop_thread.thread:
        return True
    while frame is not None:
        if frame.f_code is run_step.__code__ and frame.f_locals.get("loop_thread") is loop_thread:
            return True
        frame = frame.f_back
    retire(loop_thread, None)
    return False


def run_step(loop_thread: LoopThread, step: Callable[..., T], *args: Any) -> T:
    """Run one step; refuses one inside another of the same thread, which would wait for itself."""
    thread, inside = get_ident(), loop_thread.inside
    if thread in inside and _is_nested(loop_thread, sys._getframe(1)):
        raise BadRequest(NESTED)
    try:
        inside.add(thread)
        result = step(*args)
        inside.discard(thread)
    except BaseException as error:
        if loop_thread.forked:  # in the child, the wait itself fails
            raise BrokerUnreachable(FORKED, outcome=UNKNOWN) from None
        if not came_while_waiting(error):
            retire(loop_thread, error)
        inside.discard(thread)
        if isinstance(error, OSError) and error.errno is not None:  # not the TimeoutError of a signal handler
            reason = f"The client's own descriptors cannot be used: {error.strerror}."
            raise BrokerUnreachable(reason, outcome=UNKNOWN) from error
        raise
    return result


def run_short_step(loop_thread: LoopThread, step: Callable[..., T], *args: Any) -> T:
    """Run a step that never waits: a finalizer may do so inside another step."""
    if get_ident() in loop_thread.inside and _is_nested(loop_thread, sys._getframe()):
        return step(*args)
    return run_step(loop_thread, step, *args)
