"""`override_pools()`: the pools of a test, in its own process."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import Client, session, stand_in
from snakepit.pools.client.address import Target
from snakepit.testing.broker import LocalBroker
from snakepit.testing.calls import Calls
from snakepit.testing.definitions import Given, PoolDefinitions
from snakepit.testing.fakes import ANY, Fakes, error_of
from snakepit.workers.schema import commands
from snakepit.workers.schema.annotation import nearest

if TYPE_CHECKING:
    from snakepit.pools.models import Job

WORKERS = 2  # of a pool: one may serve a stream while the test makes other calls
INLINE, MANUAL = "inline", "manual"


class Pools:
    """The pools of a test. What the project calls meanwhile comes here, whatever broker its clients name."""

    def __init__(self, given: Given | None, workers: int, jobs: str) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers: {workers!r} is not a number of workers, 1 or more")
        if jobs not in (INLINE, MANUAL):
            raise ValueError(f"jobs: {jobs!r} is neither {INLINE!r} nor {MANUAL!r}")
        self.calls = Calls()
        self.definitions = PoolDefinitions(given)
        self.jobs = jobs
        self._fakes = Fakes()
        self._broker = LocalBroker(self.definitions, self._fakes, self.calls, workers)
        self.target = Target(local=self._broker)
        self.client = Client(self.target)

    def answer(self, pool: str, command: str, value: Any) -> None:
        """Give this answer to the command's calls, after the real check of their arguments.

        A function gets the checked arguments by name, and its result, generator or coroutine is that of the command.
        An exception is raised as the command's own. A list for a streaming command is its chunks. Set it before the
        pool's first call, and the adapter's instance is not made, nor its model loaded.
        """
        self._require(pool, command)
        self._fakes.set_answer(pool, command, value)

    def fail(
        self, pool: str, command: str, error: str | BrokerError | type[BrokerError], *, times: int | None = None
    ) -> None:
        """Give this error of the broker to the command's calls, which then do not run.

        `error` is a code such as "queue_full", an error class or an error. `command` may be "*": all of the pool; and
        `pool` too. After `times` calls the command answers again; None: it never does.
        """
        if pool != ANY and command != ANY:
            self._require(pool, command)
        self._fakes.set_failure(pool, command, error_of(error), times)

    def reset(self) -> None:
        """Discard the calls, the answers and the errors so far. The pools go on."""
        self._fakes.clear()
        self.calls.clear()

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Meanwhile no broker answers: calls and questions fail with BrokerUnreachable."""
        self._broker.unreachable = True
        try:
            yield
        finally:
            self._broker.unreachable = False
            _switch_jobs()  # a broker that did not answer is not asked for its commands for a while

    def run_jobs(self, *, scheduled: bool = False) -> list[Job]:
        """Run the queued jobs that are due until none is left, and return them. With `scheduled`, later ones as well.

        A job that an attempt queued again runs again, without its pause.
        """
        from snakepit.testing.jobs import run_queued

        return run_queued(scheduled=scheduled)

    def _require(self, pool: str, command: str) -> None:
        """Refuse a fake of something that does not exist: the test would pass, and the project would fail."""
        definition = self.definitions.find(pool)
        if definition is None:
            names = self.definitions.names()
            raise ValueError(
                f"no pool is named {pool!r}{nearest(pool, names)}; known are: {', '.join(names) or 'none'}"
            )
        try:
            kind = self.definitions.classes.get(pool) or commands.load_class(definition.adapter_path)
        except (ImportError, commands.ModuleMissing):
            return  # its libraries are not installed here: the fake is the command
        known = commands.find_commands(kind)
        if command not in known:
            raise ValueError(f"pool {pool} has no command {command!r}{nearest(command, known)}")

    def close(self) -> None:
        self._broker.stop()


class override_pools(contextlib.ContextDecorator):
    """Run the pools in this process: a context manager, a decorator, and for a test case `self.enterContext(...)`.

    `pools` maps names to an adapter's class, its dotted path, or a dict of the pool's fields; None: the pools of
    SNAKEPIT and of the Pool table. `workers` is the largest number of workers of a pool. `jobs`: "inline" runs a job
    when it is submitted, or when the project's own transaction commits; "manual" leaves it to `run_jobs()`.

    Calls, streams and jobs of the project come here, without a broker, a message transport or another process. The
    value of the context manager is a `Pools`.
    """

    def __init__(self, pools: Given | None = None, *, workers: int = WORKERS, jobs: str = INLINE) -> None:
        self._options = (pools, workers, jobs)
        self._entered: list[tuple[Pools, Target | None]] = []
        Pools(*self._options)  # refuses what is wrong where it is written; starts nothing

    def _recreate_cm(self) -> Self:
        return type(self)(self._options[0], workers=self._options[1], jobs=self._options[2])

    def __call__(self, func: Any) -> Any:
        """Decorate a function, also an async one. A test class enters it in `setUp`."""
        if isinstance(func, type):
            raise TypeError(
                f"override_pools() cannot decorate the class {func.__name__}: "
                "write self.pools = self.enterContext(override_pools()) in its setUp"
            )
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @functools.wraps(func)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            with self._recreate_cm():
                return await func(*args, **kwargs)

        return inner

    def __enter__(self) -> Pools:
        pools = Pools(*self._options)
        _active.append(pools)
        self._entered.append((pools, stand_in.use(pools.target)))
        _switch_jobs()
        return pools

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pools, before = self._entered.pop()
        session.end_session(pools.target)
        stand_in.use(before)
        _active.remove(pools)
        _switch_jobs()
        pools.close()


_active: list[Pools] = []


def active_pools() -> Pools:
    """The pools of the innermost `override_pools`, or of SNAKEPIT["TEST"]; raises RuntimeError if there are none."""
    if not _active:
        raise RuntimeError('no pools run in this process: use override_pools(), or set SNAKEPIT["TEST"] to True')
    return _active[-1]


def run_jobs(*, scheduled: bool = False) -> list[Job]:
    """`Pools.run_jobs` of the active pools."""
    return active_pools().run_jobs(scheduled=scheduled)


def _switch_jobs() -> None:
    """Have jobs run here. Without Django, or without the app, there are no jobs."""
    if "django.apps" not in sys.modules:
        return
    from django.apps import apps

    if apps.models_ready and apps.is_installed("snakepit.pools"):
        from snakepit.testing import jobs

        jobs.use(_active[-1] if _active else None)
