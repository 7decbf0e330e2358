"""A submitted call, as its caller holds it."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.pools.broker.caller import CallerIdentity
from snakepit.pools.broker.errors import BrokerError, LimitReached
from snakepit.pools.broker.messages import Reply, Timing
from snakepit.pools.broker.ports import Clock, Payload
from snakepit.pools.broker.quotas import Quotas
from snakepit.pools.broker.runner.runner import Runner


@dataclass(slots=True)  # not frozen: that doubles the cost of what is made for each call
class CallHandle:
    """Cancels a call or grants it credit. Both do nothing once the call is answered."""

    _runner: Runner | None
    _number: int

    def cancel(self) -> None:
        if self._runner:
            self._runner.cancel(self._number)

    def credit(self, chunks: int) -> None:
        if self._runner:
            self._runner.credit(self._number, chunks)


@dataclass(slots=True)
class CountedReply:
    """The reply of a call whose caller has limits: its end makes room for another call of the caller."""

    _reply: Reply
    _quotas: Quotas
    _caller: CallerIdentity
    _clock: Clock

    def done(self, payload: Payload | None, timing: Timing) -> None:
        self._ended(timing)
        self._reply.done(payload, timing)

    def failed(self, error: BrokerError, timing: Timing) -> None:
        self._ended(timing)
        if isinstance(error, LimitReached):  # of the queue of a pool
            self._quotas.refused(self._caller, error)
        self._reply.failed(error, timing)

    def _ended(self, timing: Timing) -> None:
        self._quotas.ended(self._caller)
        timing.calls_left, timing.calls_reset = self._quotas.left(self._caller, self._clock.monotonic())

    def chunk(self, payload: Payload) -> None:
        self._reply.chunk(payload)

    def progress(self, fraction: float, message: str) -> None:
        self._reply.progress(fraction, message)

    def log(self, message: str) -> None:
        self._reply.log(message)
