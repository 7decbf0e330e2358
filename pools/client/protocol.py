"""What a session needs of a call that waits."""

from __future__ import annotations

from typing import Any, Protocol

from snakepit.pools.broker.errors import BrokerError


class Pending(Protocol):
    """A call that waits for its replies. The methods are called on the loop thread (or in the child of a fork)."""

    runs_loop: bool  # the thread that sends it then waits for the answer, and runs the loop meanwhile

    def deliver(self, kind: str, reply: Any) -> None:
        """`kind` is that of the Reply; "packed": a result that came with others or from its worker; "parts": large
        parts of a chunk or result that follows."""
        ...

    def fail(self, error: BrokerError) -> None: ...

    def forked(self, error: BrokerError) -> None: ...
