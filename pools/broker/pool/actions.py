"""The actions that a pool orders. The runner carries them out; the pool itself does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.events import Event
from snakepit.pools.broker.pool.calls import Call


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker: fork it from the template, or spawn it if no template is named."""

    worker: str
    template: str = ""


@dataclass(frozen=True, slots=True)
class StartTemplate:
    """Start a template; the start of workers waits for it."""

    template: str


@dataclass(frozen=True, slots=True)
class StopTemplate:
    """End a template. Its workers go on."""

    template: str


@dataclass(slots=True)  # not frozen, which would double its cost: at rest there is one for each call
class Assign:
    """Send calls of one command to a worker, in this order."""

    calls: Sequence[Call]
    worker: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask the worker to end a call whose caller has been answered."""

    call: Call
    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """Undo the prefetch of calls that the worker has not begun; `Pool.revoked` receives those that it never will."""

    worker: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an idle worker to tear down its adapter and exit."""

    worker: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a worker's process. `stacks`: it hangs, so read first where its threads are."""

    worker: str
    stacks: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer the caller with an error."""

    call: Call
    error: BrokerError


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish an event."""

    event: Event


Action = Start | StartTemplate | StopTemplate | Assign | Cancel | Revoke | Stop | Kill | Fail | Emit
