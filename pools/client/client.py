"""The public API: what a Client can do.

Every call may raise an error of `snakepit.pools.broker.errors`; its `outcome` shows whether the work was
`not_started`, `failed` or is `unknown`. Times are in seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, cast

from google.protobuf.message import Message

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import BrokerStatus, CommandInfo, RecyclePlan, SweepResult, WorkerDump
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall, Json, Options, encode, encode_each
from snakepit.pools.client.call_messages import Answer, Delivered, Packed, answer, exception, value_of
from snakepit.pools.client.encoded import Encoded
from snakepit.pools.client.listening import ListenedCall, Receive
from snakepit.pools.client.mapped import results_of
from snakepit.pools.client.pending import CallFuture, LoopPending, SentCall, ThreadPending
from snakepit.pools.client.pool import PoolClient
from snakepit.pools.client.questions import Question
from snakepit.pools.client.session import end_session
from snakepit.pools.client.streams import WINDOW, WINDOW_BYTES, AsyncStream, Stream
from snakepit.pools.status_codec import decode_commands, decode_dump, decode_plan, decode_status, decode_sweep
from snakepit.pools.wire.broker_pb2 import (
    ApplyRequest,
    CommandsRequest,
    DrainRequest,
    DumpRequest,
    KillRequest,
    MetricsRequest,
    PlanRequest,
    RecycleRequest,
    Result,
    StatusRequest,
    SweepRequest,
)

Arguments = Mapping[str, Any] | None
QUESTION_TIMEOUT = 10.0  # seconds for status, commands and sweep
ORDER_TIMEOUT = 30.0  # seconds for apply and recycle, which read definitions


class Client:
    """Calls commands of a broker's pools; safe to use from any thread and any event loop, and after a fork."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def __repr__(self) -> str:
        return f"<Client {self.target}>"

    # One call.

    def call(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Any:  # fmt: skip
        """Run a command and return its result.

        `arguments` and `more` together are its keyword arguments; pass a parameter called `timeout`, `priority` or
        `affinity` in `arguments`. Arguments of type bytes are sent unchanged. `timeout` is the time for the answer to
        arrive, including the wait in the queue (default: the command's or the pool's). Then the call ends with
        DeadlineExceeded, at most one second later even if the broker is silent. `priority` is from -100 to 100; higher
        goes first. Calls with the same `affinity` go to the same node and worker while it has a free slot, else to any.
        """
        return value_of(self._run(encode(pool, command, arguments, more, Options(timeout, priority, affinity))))

    def execute(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Answer:  # fmt: skip
        """As `call`, with the call's id, its worker, and the seconds it waited and ran."""
        return answer(self._run(encode(pool, command, arguments, more, Options(timeout, priority, affinity))))

    async def acall(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Any:  # fmt: skip
        """As `call`, for an event loop; cancelling the task that awaits it cancels the call."""
        return value_of(await self._arun(encode(pool, command, arguments, more, Options(timeout, priority, affinity))))

    async def aexecute(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Answer:  # fmt: skip
        """As `execute`, for an event loop."""
        return answer(await self._arun(encode(pool, command, arguments, more, Options(timeout, priority, affinity))))

    async def aexecute_encoded(
        self, pool: str, command: str, arguments: Json, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "",
    ) -> Answer:  # fmt: skip
        """As `aexecute`, for programs that pass a result on: its `value` is an Encoded, which the caller closes."""
        arguments.keeps_types = True
        reply = await self._arun(encode(pool, command, arguments, {}, Options(timeout, priority, affinity)))
        return answer(reply, Encoded.of(reply))

    # One call that streams.

    def stream(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Stream:  # fmt: skip
        """Iterate over the chunks that a streaming command yields.

        The command waits while it is 128 chunks or 1 MiB ahead of the reader. Leaving the loop early, `close()`, or
        dropping the iterator cancels the call. A command that does not stream is a stream of one chunk.
        """
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return Stream(self.target, message, only_chunks=True)

    def events(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> Stream:  # fmt: skip
        """Iterate over the events of a call: Chunk, Progress and Log, and at the end the Answer."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return Stream(self.target, message, only_chunks=False)

    def astream(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> AsyncStream:  # fmt: skip
        """As `stream`, for `async for`."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return AsyncStream(self.target, message, only_chunks=True)

    def aevents(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> AsyncStream:  # fmt: skip
        """As `events`, for `async for`."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity, WINDOW, WINDOW_BYTES))
        return AsyncStream(self.target, message, only_chunks=False)

    def listen(
        self, pool: str, command: str, arguments: Arguments, receive: Receive, /, *,
        timeout: float | None = None, priority: int = 0,
    ) -> ListenedCall:  # fmt: skip
        """Start a call whose replies `receive` gets, on the thread that runs the connections; see `listening`."""
        message = encode(pool, command, arguments, {}, Options(timeout, priority, "", WINDOW, WINDOW_BYTES))
        call = ListenedCall(receive)
        call.send(self.target, message)
        return call

    # Many calls.

    def submit(
        self, pool: str, command: str, arguments: Arguments = None, /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "", **more: Any,
    ) -> CallFuture:  # fmt: skip
        """Start a call and return its Future; `cancel()` cancels the call, also while it runs."""
        message = encode(pool, command, arguments, more, Options(timeout, priority, affinity))
        future = CallFuture()
        sent = SentCall(self.target, message, future)
        try:
            sent.send()
            future.sent_as(sent)
        except BaseException:  # of a signal handler: the caller does not get the Future
            sent.cancel()
            raise
        return future

    def map(
        self, pool: str, command: str, items: Iterable[Mapping[str, Any]], /, *,
        timeout: float | None = None, priority: int = 0, affinity: str = "",
        window: int = 128, return_errors: bool = False,
    ) -> Iterator[Any]:  # fmt: skip
        """Call a command once for each item (its arguments) and yield the results in the items' order.

        `window` calls are in flight, so the iterable may be endless. `timeout` is for each call. An error is raised in
        its turn, and the calls behind it are cancelled; with `return_errors` it is yielded instead. The first `next`
        sends the first calls.
        """
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window: {window!r} is not a number of calls, 1 or more")
        options = Options(timeout, priority, affinity)
        calls = encode_each(pool, command, iter(items), options)
        return results_of(calls, window, self._target_of, self._finished, return_errors=return_errors)

    def _target_of(self, call: EncodedCall) -> Target:
        """The broker that takes a call."""
        return self.target

    def _finished(self, sent: SentCall, pending: ThreadPending, call: EncodedCall) -> Result | Packed | Delivered:
        return _finish(sent, pending)

    def pool(self, name: str) -> PoolClient:
        """Return a client for one pool, which is also a `concurrent.futures.Executor`."""
        return PoolClient(self, name)

    def _run(self, message: EncodedCall) -> Result | Packed | Delivered:
        pending = ThreadPending()
        sent = SentCall(self.target, message, pending)
        try:
            sent.send()
            return _finish(sent, pending)
        except BrokerError:
            raise
        except BaseException:  # KeyboardInterrupt, or another exception of a signal handler
            sent.cancel()
            raise

    async def _arun(self, message: EncodedCall) -> Result | Packed | Delivered:
        pending = LoopPending()
        sent = SentCall(self.target, message, pending)
        sent.send()
        while True:
            kind, reply = await pending.take(sent)
            if kind == "packed":
                return cast(Packed | Delivered, reply)
            if kind == "result":
                return cast(Result, reply.result)
            if kind == "error":
                raise exception(reply.error)

    # The broker itself.

    def status(self, pool: str = "", timeout: float = QUESTION_TIMEOUT) -> BrokerStatus:
        """The broker, its pools and their workers; of one pool where `pool` is given."""
        return decode_status(self._ask("Status", StatusRequest(pool=pool), timeout))

    async def astatus(self, pool: str = "", timeout: float = QUESTION_TIMEOUT) -> BrokerStatus:
        """As `status`, for an event loop."""
        return decode_status(await self._aask("Status", StatusRequest(pool=pool), timeout))

    async def ameasured(self, pool: str = "", timeout: float = QUESTION_TIMEOUT) -> BrokerStatus:
        """As `astatus`, with the `histograms` of how long calls ran and waited."""
        return decode_status(await self._aask("Status", StatusRequest(pool=pool, histograms=True), timeout))

    def watch(self, after: int = 0, timeout: float = QUESTION_TIMEOUT) -> BrokerStatus:
        """As `status`, with the `events` after this number, and `histograms` of how long calls ran and waited."""
        request = StatusRequest(watch=True, events_after=after)
        return decode_status(self._ask("Status", request, timeout))

    async def awatch(self, after: int = 0, timeout: float = QUESTION_TIMEOUT) -> BrokerStatus:
        """As `watch`, for an event loop."""
        request = StatusRequest(watch=True, events_after=after)
        return decode_status(await self._aask("Status", request, timeout))

    def commands(self, pool: str, timeout: float = QUESTION_TIMEOUT) -> tuple[CommandInfo, ...]:
        """A pool's commands; `arguments` of each is the JSON Schema of its arguments."""
        return decode_commands(self._ask("Commands", CommandsRequest(pool=pool), timeout))

    async def acommands(self, pool: str, timeout: float = QUESTION_TIMEOUT) -> tuple[CommandInfo, ...]:
        """As `commands`, for an event loop."""
        return decode_commands(await self._aask("Commands", CommandsRequest(pool=pool), timeout))

    def sweep(self, source: str, interval: float) -> SweepResult:
        """Have every worker's age, memory and health judged now; the next sweep is due in `interval` seconds."""
        request = SweepRequest(source=source, interval=interval)
        return decode_sweep(self._ask("Sweep", request, QUESTION_TIMEOUT))

    async def asweep(self, source: str, interval: float) -> SweepResult:
        """As `sweep`, for an event loop."""
        request = SweepRequest(source=source, interval=interval)
        return decode_sweep(await self._aask("Sweep", request, QUESTION_TIMEOUT))

    def apply(self, pool: str = "", action: str = "", actor: str = "", reason: str = "") -> int:
        """Read the pools' definitions again now; returns how many pools are defined.

        With an `action`, the broker records an event with actor, change and reason.
        """
        request = ApplyRequest(pool=pool, action=action, actor=actor, reason=reason)
        return int(self._ask("Apply", request, ORDER_TIMEOUT).pools)

    async def aapply(self, pool: str = "", action: str = "", actor: str = "", reason: str = "") -> int:
        """As `apply`, for an event loop."""
        request = ApplyRequest(pool=pool, action=action, actor=actor, reason=reason)
        return int((await self._aask("Apply", request, ORDER_TIMEOUT)).pools)

    def recycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> int:
        """Replace a pool's workers, or one, successor first; returns how many. The event has actor and reason."""
        request = RecycleRequest(pool=pool, worker=worker, actor=actor, reason=reason)
        return int(self._ask("Recycle", request, ORDER_TIMEOUT).planned)

    async def arecycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> int:
        """As `recycle`, for an event loop."""
        request = RecycleRequest(pool=pool, worker=worker, actor=actor, reason=reason)
        return int((await self._aask("Recycle", request, ORDER_TIMEOUT)).planned)

    def plan(self, pool: str, worker: str = "", timeout: float = QUESTION_TIMEOUT) -> RecyclePlan:
        """What `recycle` would replace, in which order, and what age and count will; replaces nothing."""
        return decode_plan(pool, self._ask("Plan", PlanRequest(pool=pool, worker=worker), timeout))

    async def aplan(self, pool: str, worker: str = "", timeout: float = QUESTION_TIMEOUT) -> RecyclePlan:
        """As `plan`, for an event loop."""
        return decode_plan(pool, await self._aask("Plan", PlanRequest(pool=pool, worker=worker), timeout))

    def drain(self, actor: str = "", reason: str = "") -> None:
        """Take no new calls on the node until `resume`; accepted calls finish. The event has actor and reason."""
        self._ask("Drain", DrainRequest(actor=actor, reason=reason), ORDER_TIMEOUT)

    async def adrain(self, actor: str = "", reason: str = "") -> None:
        """As `drain`, for an event loop."""
        await self._aask("Drain", DrainRequest(actor=actor, reason=reason), ORDER_TIMEOUT)

    def resume(self, actor: str = "", reason: str = "") -> None:
        """Take calls on the broker's node again, after `drain`."""
        self._ask("Drain", DrainRequest(resume=True, actor=actor, reason=reason), ORDER_TIMEOUT)

    async def aresume(self, actor: str = "", reason: str = "") -> None:
        """As `resume`, for an event loop."""
        await self._aask("Drain", DrainRequest(resume=True, actor=actor, reason=reason), ORDER_TIMEOUT)

    def kill(self, worker: str, actor: str = "", reason: str = "") -> None:
        """Kill the process of a worker; its calls fail, or run again where allowed. The event has actor and reason."""
        self._ask("Kill", KillRequest(worker=worker, actor=actor, reason=reason), ORDER_TIMEOUT)

    async def akill(self, worker: str, actor: str = "", reason: str = "") -> None:
        """As `kill`, for an event loop."""
        await self._aask("Kill", KillRequest(worker=worker, actor=actor, reason=reason), ORDER_TIMEOUT)

    def dump(self, worker: str, actor: str = "", reason: str = "") -> WorkerDump:
        """The Python stacks of all threads of a live worker, and its calls. The event has actor and reason."""
        request = DumpRequest(worker=worker, actor=actor, reason=reason)
        return decode_dump(self._ask("Dump", request, QUESTION_TIMEOUT))

    async def adump(self, worker: str, actor: str = "", reason: str = "") -> WorkerDump:
        """As `dump`, for an event loop."""
        request = DumpRequest(worker=worker, actor=actor, reason=reason)
        return decode_dump(await self._aask("Dump", request, QUESTION_TIMEOUT))

    def metrics(self, timeout: float = QUESTION_TIMEOUT) -> str:
        """Return the broker's metrics in the Prometheus text format."""
        return str(self._ask("Metrics", MetricsRequest(), timeout).text)

    async def ametrics(self, timeout: float = QUESTION_TIMEOUT) -> str:
        """As `metrics`, for an event loop."""
        return str((await self._aask("Metrics", MetricsRequest(), timeout)).text)

    def _ask(self, method: str, request: Message, timeout: float) -> Any:
        question = Question(self.target, method, request, timeout)
        try:
            question.send()
            return question.wait()
        except BrokerError:
            raise
        except BaseException:
            question.cancel()
            raise

    async def _aask(self, method: str, request: Message, timeout: float) -> Any:
        answered = asyncio.get_running_loop().create_future()
        question = Question(self.target, method, request, timeout, answered)
        question.send()
        try:
            return await answered
        finally:
            answered.cancel()  # does nothing once it is answered
            question.cancel()

    # The end.

    def close(self) -> None:
        """End the connection; calls in flight end with BrokerUnreachable. A later call opens a new connection."""
        end_session(self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _finish(sent: SentCall, pending: ThreadPending) -> Result | Packed | Delivered:
    found: Result | Packed | Delivered
    while True:
        kind, reply = pending.take(sent)
        if kind in ("packed", "result"):
            found = reply if kind == "packed" else reply.result
            return found
        if kind == "error":
            raise exception(reply.error)
