"""A pool as a test plays it: actions are carried out on paper, time is a number."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from snakepit.pools.broker.events import Event
from snakepit.pools.broker.pool.actions import (
    Action,
    Assign,
    Cancel,
    Emit,
    Fail,
    Kill,
    Revoke,
    Start,
    StartTemplate,
    Stop,
    StopTemplate,
)
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.pool import Pool
from snakepit.pools.broker.pool.times import MIN_RUNS
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec


class Table:
    """Notes every action of a pool in the order it came. Workers are named by their number: 1, 2, ..."""

    def __init__(self, seed: int = 1, **fields: Any) -> None:
        self.now = 1000.0
        self.spec = PoolSpec(
            **{"name": "p", "adapter": "a", "size": 1, "min_lifetime": 0.0, "preload": "off", **fields}
        )
        self.pool = Pool(self.spec, "0", Random(seed))
        self.actions: list[Action] = []
        self._numbers = 0
        self.do(self.pool.sweep(self.now))

    def do(self, actions: list[Action]) -> list[Action]:
        self.actions += actions
        return actions

    def _of(self, kind: type) -> list[Any]:
        return [action for action in self.actions if isinstance(action, kind)]

    # Facts

    def ready(self, *workers: int) -> Table:
        for worker in workers:
            self.do(self.pool.ready(self.id(worker), self.now))
        return self

    def submit(self, patience: float = 60.0, **fields: Any) -> int:
        return self.submit_together(1, patience, **fields)[0]

    def submit_together(self, count: int, patience: float = 60.0, **fields: Any) -> list[int]:
        calls = []
        for _ in range(count):
            self._numbers += 1
            given = {"command": "run", "arrived": self.now, "deadline": self.now + patience, **fields}
            calls.append(Call(self._numbers, **given))
        self.do(self.pool.submit(calls, self.now))
        return [call.id for call in calls]

    def finish(self, worker: int, call: int, ok: bool = True) -> None:
        self.do(self.pool.finished(self.id(worker), call, self.now, ok=ok))

    def finish_together(self, worker: int, *calls: int, seconds: float | None = None) -> None:
        self.do(self.pool.finished_many(self.id(worker), [(call, seconds) for call in calls], self.now))

    def knows(self, command: str = "run", seconds: float = 0.0001) -> Table:
        """It has run often enough to be known, and takes this long."""
        for _ in range(MIN_RUNS):
            self.pool.dispatcher.run_times.record(command, seconds)
        return self

    def confirm_revoked(self, worker: int, *calls: int) -> None:
        self.do(self.pool.revoked(self.id(worker), calls, self.now))

    def cancel(self, call: int) -> None:
        self.do(self.pool.cancel(call, self.now))

    def die(self, worker: int, exit: Exit | None = None, begun: set[int] | None = None) -> None:
        self.do(self.pool.exited(self.id(worker), exit or Exit(signal=11), self.now, begun=begun))

    def leave(self, worker: int) -> None:
        self.die(worker, Exit(code=0))

    def fail_boot(self, worker: int, why: str = "no model") -> None:
        self.pool.boot_failed(self.id(worker), why)
        self.die(worker, Exit(code=3))

    def pass_time(self, seconds: float) -> None:
        """Every timer on the way is due at its own moment, as in the runner."""
        until = self.now + seconds
        for _ in range(10_000):
            due = self.pool.timers.next()
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            self.do(self.pool.tick(self.now))
        raise AssertionError("timers are due without end")

    def apply(self, **fields: Any) -> None:
        values = {name: getattr(self.pool.spec, name) for name in self.pool.spec.__dataclass_fields__}
        self.do(self.pool.apply(PoolSpec(**{**values, **fields}), self.now))

    def recycle(self, worker: int = 0) -> None:
        self.do(self.pool.recycle(self.id(worker) if worker else "", "asked", self.now))

    def sweep(self, horizon: float = 0.0) -> None:
        self.do(self.pool.sweep(self.now, horizon))

    # Facts about templates, which are named by their number, too

    def load(self, template: int, seconds: float = 2.0) -> Table:
        self.do(self.pool.template_loaded(f"p-0-t{template}", seconds, self.now))
        return self

    def refuse(self, template: int, reason: str = "unsafe", why: str = "a thread runs") -> None:
        self.do(self.pool.template_refused(f"p-0-t{template}", reason, why, self.now))

    def lose(self, template: int, exit: Exit | None = None) -> None:
        self.do(self.pool.template_ended(f"p-0-t{template}", exit or Exit(signal=9), "", self.now))

    def unforked(self, worker: int, why: str = "its template has ended") -> None:
        self.do(self.pool.fork_failed(self.id(worker), why, self.now))

    # What came of it

    def prepared(self) -> list[str]:
        return [action.template for action in self._of(StartTemplate)]

    def dismissed(self) -> list[str]:
        return [action.template for action in self._of(StopTemplate)]

    def origins(self) -> dict[int, str]:
        """Which template each started worker came from; empty: it was spawned."""
        return {int(action.worker.rsplit("-", 1)[1]): action.template for action in self._of(Start)}

    def id(self, worker: int) -> str:
        return f"p-0-{worker}"

    def worker(self, worker: int) -> Worker:
        return self.pool.worker_set.workers[self.id(worker)]

    def states(self) -> dict[int, str]:
        return {int(name.rsplit("-", 1)[1]): str(worker.state) for name, worker in self.pool.worker_set.workers.items()}

    def count(self, state: State) -> int:
        return len(self.pool.worker_set.among(state))

    def assigned(self) -> list[tuple[int, int]]:
        """(call, worker) in order."""
        assigns = self._of(Assign)
        return [(call.id, int(one.worker.rsplit("-", 1)[1])) for one in assigns for call in one.calls]

    def failed(self) -> dict[int, str]:
        return {action.call.id: action.error.code for action in self._of(Fail)}

    def error(self, call: int) -> Any:
        (error,) = [action.error for action in self._of(Fail) if action.call.id == call]
        return error

    def asked_to_stop(self) -> list[tuple[int, str]]:
        return [(action.call.id, action.reason) for action in self._of(Cancel)]

    def revoked(self) -> list[tuple[int, list[int]]]:
        """(worker, calls) in order."""
        return [
            (int(action.worker.rsplit("-", 1)[1]), [call.id for call in action.calls]) for action in self._of(Revoke)
        ]

    def _workers(self, kind: type) -> list[int]:
        return [int(action.worker.rsplit("-", 1)[1]) for action in self._of(kind)]

    def started(self) -> list[int]:
        return self._workers(Start)

    def killed(self) -> list[int]:
        return self._workers(Kill)

    def stopped(self) -> list[int]:
        return self._workers(Stop)

    def told(self, kind: str) -> list[Event]:
        return [action.event for action in self._of(Emit) if action.event.kind == kind]


@pytest.fixture
def table() -> Callable[..., Table]:
    """table(size=2, ...) is a pool that has asked for its first workers; none is ready yet."""
    return Table
