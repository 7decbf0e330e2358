"""A client whose calls find a node. Each leg of a call is a call of the plain client."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from snakepit.pools.broker.errors import UNKNOWN, BrokerError
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall, Options, encode
from snakepit.pools.client.call_messages import Delivered, Packed
from snakepit.pools.client.client import Arguments, Client
from snakepit.pools.client.listening import ListenedCall, Receive
from snakepit.pools.client.pending import CallFuture, SentCall, ThreadPending
from snakepit.pools.client.routing.policy import may_move
from snakepit.pools.client.routing.router import Router
from snakepit.pools.client.routing.trip import Trip, is_movable
from snakepit.pools.client.streams import WINDOW, WINDOW_BYTES, AsyncStream, Stream
from snakepit.pools.wire.broker_pb2 import Result

Reply = Result | Packed | Delivered
MOVED = ("Commands", "Plan")  # questions about a pool, which another node of it may answer


class RoutedClient(Client):
    """A Client whose calls go to another node if the broker at its address does not take them."""

    def __init__(self, target: Target, router: Router) -> None:
        super().__init__(target)
        self.router = router

    def _run(self, message: EncodedCall) -> Reply:
        began = time.monotonic()
        if self.router.rests(message.pool, message.affinity):
            try:
                return super()._run(message)
            except BrokerError as error:
                trip = Trip(self.router, message, self.target, passed=time.monotonic() - began)
                trip.at_rest()
                trip.failed(error)
        else:
            trip = Trip(self.router, message, self.target)
        return _travel(trip)

    async def _arun(self, message: EncodedCall) -> Reply:
        began = time.monotonic()
        if self.router.rests(message.pool, message.affinity):
            try:
                return await super()._arun(message)
            except BrokerError as error:
                trip = Trip(self.router, message, self.target, passed=time.monotonic() - began)
                trip.at_rest()
                await trip.afailed(error)
        else:
            trip = Trip(self.router, message, self.target)
        while True:
            target, call = await trip.aleg()
            try:
                return await Client(target)._arun(call)
            except BrokerError as error:
                await trip.afailed(error)

    def stream(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Stream:  # fmt: skip
        """As `Client.stream`."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return RoutedStream(self, message, only_chunks=True)

    def events(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Stream:  # fmt: skip
        """As `Client.events`."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return RoutedStream(self, message, only_chunks=False)

    def astream(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> AsyncStream:  # fmt: skip
        """As `Client.astream`."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return RoutedAsyncStream(self, message, only_chunks=True)

    def aevents(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> AsyncStream:  # fmt: skip
        """As `Client.aevents`."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return RoutedAsyncStream(self, message, only_chunks=False)

    def listen(
        self, pool: str, command: str, arguments: Arguments, receive: Receive, /, *,
        timeout: float | None = None, priority: int = 0,
    ) -> ListenedCall:  # fmt: skip
        """As `Client.listen`."""
        message = encode(pool, command, arguments, {}, Options(timeout, priority, "", WINDOW, WINDOW_BYTES))
        call = RoutedListenedCall(receive, Trip(self.router, message, self.target))
        if self.router.rests(pool):
            call.go_on()
        else:  # it may have to wait for the nodes
            background.run(call.go_on)
        return call

    def submit(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> CallFuture:  # fmt: skip
        """As `Client.submit`. While the call is on its way to another node, `cancel()` returns False."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity))
        future = RoutedFuture(Trip(self.router, message, self.target))
        future.send()
        return future

    def _target_of(self, call: EncodedCall) -> Target:
        if self.router.rests(call.pool, call.affinity):
            return self.target
        node = self.router.choose(call.pool, (), key=call.affinity)
        return self.target if node is None else node.target

    def _finished(self, sent: SentCall, pending: ThreadPending, call: EncodedCall) -> Reply:
        began = time.monotonic()
        left = sent.remaining()
        try:
            return super()._finished(sent, pending, call)
        except BrokerError as error:
            passed = 0.0 if left is None else max(0.0, call.timeout - left) + time.monotonic() - began
            trip = Trip(self.router, call, self.target, passed=passed)
            trip.at(sent.session.target)
            trip.failed(error)
        return _travel(trip)

    def _ask(self, method: str, request: Message, timeout: float) -> Any:
        pool = str(getattr(request, "pool", ""))
        if method not in MOVED or self.router.rests(pool):
            try:
                return super()._ask(method, request, timeout)
            except BrokerError as error:
                if method not in MOVED or not may_move(error):
                    raise
                refused = error
        else:
            refused = None
        self.router.wake()
        for node in self.router.candidates(pool, (self.target,) if refused else ()):
            try:
                return Client(node.target)._ask(method, request, timeout)
            except BrokerError as error:
                refused = refused or error
        if refused is None:
            return super()._ask(method, request, timeout)
        raise refused


def _travel(trip: Trip) -> Reply:
    while True:
        target, call = trip.leg()
        try:
            return Client(target)._run(call)
        except BrokerError as error:
            trip.failed(error)


class RoutedStream(Stream):
    """A stream that may begin on another node, as long as nothing of it was read."""

    _seen = False

    def __init__(self, client: RoutedClient, message: EncodedCall, *, only_chunks: bool) -> None:
        self._trip = Trip(client.router, message, client.target)
        self._only = only_chunks
        self._begin()

    def _begin(self) -> None:
        while True:
            target, call = self._trip.leg()
            try:
                super().__init__(target, call, only_chunks=self._only)
                return
            except BrokerError as error:
                self._trip.failed(error)

    def _read(self, item: tuple[str, Any]) -> tuple[bool, Any]:
        found = super()._read(item)
        self._seen = True
        return found

    def __next__(self) -> Any:
        while True:
            try:
                return super().__next__()
            except BrokerError as error:
                if self._seen:
                    raise
                self._trip.failed(error)
                self._begin()
                self._ended = False


class RoutedAsyncStream(AsyncStream):
    """As RoutedStream, for `async for`."""

    _seen = False

    def __init__(self, client: RoutedClient, message: EncodedCall, *, only_chunks: bool) -> None:
        super().__init__(client.target, message, only_chunks=only_chunks)
        self._routed = (client, message, only_chunks)
        self._trip: Trip | None = None

    def _read(self, item: tuple[str, Any]) -> tuple[bool, Any]:
        found = super()._read(item)
        self._seen = True
        return found

    async def __anext__(self) -> Any:
        client, message, only_chunks = self._routed
        if self._trip is None:
            self._trip = Trip(client.router, message, client.target)
        while True:
            if self._sent is None and not self._ended:
                self._call = (*(await self._trip.aleg()), only_chunks)
            try:
                return await super().__anext__()
            except BrokerError as error:
                if self._seen:
                    raise
                await self._trip.afailed(error)
                self._ended, self._sent = False, None


class RoutedFuture(CallFuture):
    """The Future of a call that may go on to another node."""

    def __init__(self, trip: Trip) -> None:
        super().__init__()
        self._trip = trip

    def send(self) -> None:
        """Send the call to the next node; raises what `Trip.leg` raises."""
        target, call = self._trip.leg()
        sent = SentCall(target, call, self)
        try:
            sent.send()
            self.sent_as(sent)
        except BaseException:  # of a signal handler: the caller does not get the Future
            sent.cancel()
            raise

    def fail(self, error: BrokerError) -> None:
        self._trip.suspect(error)
        if self.done() or not is_movable(error):
            super().fail(error)
        else:  # this is the thread that runs the connections: it must not wait for a node
            self._end_watch()
            background.run(lambda: self._go_on(error))

    def _go_on(self, error: BrokerError) -> None:
        try:
            self._trip.failed(error)
            self.send()
        except BrokerError as refused:
            super().fail(refused)
        except Exception as bug:  # the Future must end, and the thread must go on
            super().fail(BrokerError(f"The call could not go on: {bug}", outcome=error.outcome))


class RoutedListenedCall(ListenedCall):
    """A call that may go on to another node, as long as nothing of it was received."""

    def __init__(self, receive: Receive, trip: Trip) -> None:
        super().__init__(receive)
        self._trip = trip
        self._seen = False

    def go_on(self, refused: BrokerError | None = None) -> None:
        """Send the call to the next node."""
        if self._closed:
            return
        try:
            if refused is not None:
                self._trip.failed(refused)
            target, call = self._trip.leg()
        except BrokerError as error:
            super().fail(error)
        except Exception as bug:  # the call must end, and the thread must go on
            super().fail(BrokerError(f"The call could not go on: {bug}", outcome=UNKNOWN))
        else:
            self.send(target, call)

    def deliver(self, kind: str, reply: Any) -> None:
        self._seen = self._seen or kind != "error"
        super().deliver(kind, reply)

    def fail(self, error: BrokerError) -> None:
        self._trip.suspect(error)
        if self._seen or self._closed or not is_movable(error):
            super().fail(error)
        else:  # this may be the thread that runs the connections: it must not wait for a node
            self._end_watch()
            background.run(lambda: self.go_on(error))


class _Background:
    """A thread for what a Future has to wait for, started when it is first needed."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin anew, also in the child of a fork, which has no thread."""
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="snakepit-move-calls", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            self._work.get()()


background = _Background()
