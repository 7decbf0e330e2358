"""Who may come in: a call is taken or refused at once, and who is refused learns when to try again."""

from __future__ import annotations

from snakepit.pools.broker import errors
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.pool.actions import Action, Fail
from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.pool.call_queue import CallQueue
from snakepit.pools.broker.pool.dispatcher import Dispatcher
from snakepit.pools.broker.pool.rates import RateMeter
from snakepit.pools.broker.pool.worker_set import WorkerSet


class Admission:
    def __init__(self, worker_set: WorkerSet, line: CallQueue, hands: Dispatcher) -> None:
        self.pace = RateMeter()  # of the calls that end
        self.refused_count = 0
        self.saturated = False  # the queue is full, and that was told
        self._worker_set = worker_set
        self._line = line
        self._hands = hands

    @property
    def waiting(self) -> int:
        """Calls that have no slot yet, in the line or in a worker's hands."""
        return len(self._line) + self._hands.waiting

    def is_full(self) -> bool:
        """Whether the next call would wait."""
        return not self._hands.load_index.free

    def refusal(self, call: Call, now: float) -> errors.BrokerError | None:
        """Why a call is not taken in; None: it is."""
        worker_set, spec = self._worker_set, self._worker_set.spec
        if worker_set.closing:
            return errors.ShuttingDown()
        if spec.paused:
            return errors.PoolPaused()
        if worker_set.gate.failed and worker_set.is_hopeless():
            return errors.PoolFailed(f"The pool's workers cannot start: {worker_set.gate.failed}", retry_after=5.0)
        if call.size > spec.max_payload:
            message = f"The arguments have {call.size:,} bytes; pool {spec.name} takes {spec.max_payload:,}."
            return errors.PayloadTooLarge(message, details={"bytes": call.size, "limit": spec.max_payload})
        if self._hands.load_index.free:
            return None  # it will not wait
        if self.waiting >= spec.queue_limit:
            full = f"{self.waiting} calls wait, {spec.queue_limit} may"
        elif self._line.bytes + call.size > spec.queue_bytes:
            full = f"{self._line.bytes} bytes wait, {spec.queue_bytes} may"
        else:
            return None
        return errors.QueueFull(f"The pool's queue is full: {full}.", retry_after=self.retry_after(now))

    def refused(self, call: Call, refusal: errors.BrokerError) -> list[Action]:
        """Answer the call. One event for each time the queue fills up, not one for each refused call."""
        self.refused_count += 1
        call.answered = True
        fail = Fail(call, refusal)
        if self.saturated or not isinstance(refusal, errors.QueueFull):
            return [fail]
        self.saturated = True
        message = f"{refusal.message} {self._worker_set.describe_load()}."
        return [fail, self._worker_set.tell(Kind.POOL_SATURATED, reason="queue_full", message=message, level="warning")]

    def retry_after(self, now: float) -> float:
        """Seconds after which a place may be free, from how fast calls end at present."""
        rate = self.pace.rate(now)
        return round(min(60.0, max(0.1, self.waiting / rate)), 1) if rate else 1.0
