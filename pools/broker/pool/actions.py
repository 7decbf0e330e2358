"""What a pool wants done. The runner does it; the pool never does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.events import Event
from snakepit.pools.broker.pool.call import Call


@dataclass(frozen=True, slots=True)
class Start:
    """Bring a worker to life: forked from the template, or spawned if none is named."""

    worker: str
    template: str = ""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Start a template; workers wait for it."""

    template: str


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End a template, whose workers live on."""

    template: str


@dataclass(slots=True)  # not frozen, which would double its price: at rest there is one for each call
class Assign:
    """Hand calls of one command to a worker, in this order."""

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
    """Get calls back that the worker holds and has not begun; `Pool.returned` is told of those that came back."""

    worker: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an idle worker to tear down and leave."""

    worker: str


@dataclass(frozen=True, slots=True)
class Kill:
    worker: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer the caller with an error."""

    call: Call
    error: BrokerError


@dataclass(frozen=True, slots=True)
class Tell:
    event: Event


Action = Start | Prepare | Dismiss | Assign | Cancel | Revoke | Stop | Kill | Fail | Tell
