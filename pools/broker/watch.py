"""Watches workers by the broker's own clock: health each second, and memory where a limit is set.

    each second ─┬▶ Runner.check        a probe to every worker
                 └▶ check_limits        memory of busy workers, in pools with a memory limit
    a sweep ─────▶ sample               memory and CPU time of every worker and template

Neither needs Celery beat: a worker that hangs or leaks must not wait for the next sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from snakepit.pools.broker.ports import Clock, Process
from snakepit.pools.broker.runner.runner import Runner
from snakepit.pools.broker.stats.usage import Usages

CHECK_EVERY = 1.0  # seconds


class WorkerWatch:
    def __init__(self, runners: Mapping[str, Runner], usages: Usages, clock: Clock) -> None:
        self._runners = runners
        self._usages = usages
        self._now = clock.monotonic
        self._reading = asyncio.Lock()  # the readers of one process must not run at the same time
        self._checks: asyncio.Task[None] | None = None
        self._served: dict[str, int] = {}  # calls that a worker had ended when its memory was last read here

    async def run(self) -> None:
        """Check all workers, once a second, until cancelled. Reading memory may take long, so it has its own task."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(CHECK_EVERY)
                try:
                    for runner in tuple(self._runners.values()):
                        runner.check()
                except Exception as error:  # one failure must not end the task: no worker would be watched any more
                    loop.call_exception_handler({"message": "a look at workers failed", "exception": error})
                if self._checks is None or self._checks.done():
                    self._checks = loop.create_task(self.check_limits(), name="check memory limits")
        finally:
            if self._checks:
                self._checks.cancel()

    async def check_limits(self) -> None:
        """Read the memory of workers that have run calls since the last reading, where their pool has a limit."""
        measured = [
            (runner, handle.id, handle.process)
            for runner in self._runners.values()
            if runner.pool.spec.has_memory_limit
            for handle in runner.handles.values()
            if handle.process
        ]
        served = {}
        async with self._reading:
            for runner, name, process in measured:
                if (worker := runner.workers.get(name)) is None:
                    continue
                served[name] = worker.served
                if not worker.assigned and worker.served == self._served.get(name):
                    continue
                if (memory := await asyncio.to_thread(process.memory_mb)) is not None:
                    runner.sampled(name, memory, trend=False)
        self._served = served

    async def sample(self) -> None:
        """Read memory and CPU time of every worker, in a thread: the kernel walks page tables for it."""
        measured = [
            (runner, handle.id, handle.process)
            for runner in self._runners.values()
            for handle in runner.handles.values()
            if handle.process
        ]
        async with self._reading:
            for runner, worker, process in measured:
                memory, cpu = await asyncio.to_thread(_vitals, process)
                if memory is not None and (known := runner.workers.get(worker)):
                    now = self._now()
                    self._usages.of(runner.name, now).sampled(worker, now, memory, cpu, known.served)
                    runner.sampled(worker, memory)
        for runner in tuple(self._runners.values()):
            for name, template in runner.templates.living():
                if (memory := await asyncio.to_thread(template.memory_mb)) is not None:
                    runner.pool.template.sampled(name, memory)


def _vitals(process: Process) -> tuple[float | None, float | None]:
    return process.memory_mb(), process.cpu_seconds()
