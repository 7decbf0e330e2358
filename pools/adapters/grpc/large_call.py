"""Refuses a call that is larger than any pool allows, by its declared length, before its bytes are buffered.

A session's message may hold small requests before the large call. They are taken; the number of the large one is read
from its first bytes, and the rest is dropped as it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.errors import BrokerError, PayloadTooLarge
from snakepit.pools.broker.size_errors import call_too_large
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.workers.transport.grpclib_internals import MessageTooLarge
from snakepit.workers.transport.message_stream import BATCH_BYTES

ROOM = BATCH_BYTES + 2**17  # bytes beside the largest call: requests that travel with it, names, tags
REQUEST = CALL = 0x0A  # the tag of field 1, with a length
REF = 0x08  # the tag of field 1, a number


def largest_message(broker: Broker) -> int:
    """The largest message of a client that the broker buffers now, in bytes."""
    return broker.largest_payload + ROOM


def too_large(broker: Broker, length: int) -> PayloadTooLarge:
    return call_too_large(length, broker.largest_payload)


class LargeCalls:
    """The Oversize of a session. `take` gets whole requests, `refuse_call` the number of a large call."""

    def __init__(
        self, broker: Broker, take: Callable[[Any], None], refuse_call: Callable[[int, BrokerError], None]
    ) -> None:
        self._broker = broker
        self._take = take
        self._refuse_call = refuse_call

    def takes_over(self, head: bytes | memoryview, length: int) -> bool:
        """Refuse a call that is too large, as soon as its number has surely arrived."""
        if len(head) < ROOM or length <= largest_message(self._broker):
            return False
        self._refuse(bytes(head), length)
        return True

    def _refuse(self, head: bytes, length: int) -> None:
        at = 0
        while at < len(head) and head[at] == REQUEST:
            size, start = _number(head, at + 1)
            if start + size > len(head):
                self._refuse_call(_ref_of(head, start, length), too_large(self._broker, size))
                return
            self._take(pb.Request.FromString(head[start : start + size]))
            at = start + size
        raise _unreadable(length)


def _ref_of(head: bytes, at: int, length: int) -> int:
    if head[at : at + 1] == bytes((CALL,)):
        _, at = _number(head, at + 1)
        if head[at : at + 1] == bytes((REF,)):
            return _number(head, at + 1)[0]
    raise _unreadable(length)


def _unreadable(length: int) -> MessageTooLarge:
    return MessageTooLarge(f"a message of {length:,} bytes arrived, more than any pool allows, without a readable call")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint of protobuf, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise MessageTooLarge("a large message with an unreadable number arrived")
