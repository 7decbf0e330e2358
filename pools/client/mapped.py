"""Many calls with a bounded number in flight, and their results in the calls' order.

items ─▶ EncodedCall, or the error of one that cannot be sent ─▶ [window] ─▶ result, or error, in its turn
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.call_messages import Delivered, Packed, value_of
from snakepit.pools.client.pending import SentCall, ThreadPending
from snakepit.pools.wire.broker_pb2 import Result

Finish = Callable[[SentCall, ThreadPending, EncodedCall], Result | Packed | Delivered]
Flight = tuple[SentCall, ThreadPending, EncodedCall] | BrokerError


def results_of(
    calls: Iterator[EncodedCall | BrokerError],
    window: int,
    target_of: Callable[[EncodedCall], Target],
    finish: Finish,
    *,
    return_errors: bool,
) -> Iterator[Any]:
    """Yield the result of each call. An error is raised, and the calls behind it are cancelled, or it is yielded."""
    flying: deque[Flight] = deque()
    try:
        while True:
            while len(flying) < window and (call := next(calls, None)) is not None:
                _start(call, target_of, flying)
            if not flying:
                return
            try:
                value = _value(flying[0], finish)
                flying.popleft()
            except BrokerError as error:
                if not return_errors:
                    raise
                flying.popleft()
                yield error
            else:
                yield value
    finally:
        for one in flying:
            if not isinstance(one, BrokerError):
                one[0].cancel()


def _start(call: EncodedCall | BrokerError, target_of: Callable[[EncodedCall], Target], flying: deque[Flight]) -> None:
    if isinstance(call, BrokerError):
        flying.append(call)
        return
    pending = ThreadPending()
    sent = SentCall(target_of(call), call, pending)
    flying.append((sent, pending, call))  # before it is sent: an interrupt then also cancels it
    sent.send()


def _value(one: Flight, finish: Finish) -> Any:
    if isinstance(one, BrokerError):
        raise one
    return value_of(finish(*one))
