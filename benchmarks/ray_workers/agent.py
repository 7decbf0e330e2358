"""The helper of one Ray actor: starts a worker as a broker would, and relays its socket over mutual TLS.

    Ray actor ─▶ this process ─▶ worker, on a Unix socket of its host
                     │ data: the bytes of that socket ──────────▶ broker
                     └ control: pid, memory, exit, kill ────────▶ broker

A process of its own, because workers are started on a main thread that lives as long as they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ray_workers.relay import copy_both, line
from snakepit.pools.adapters.processes.launcher import LaunchSettings, ProcessLauncher
from snakepit.pools.adapters.processes.process import WorkerProcess
from snakepit.pools.broker.ports import Exit, LaunchOrder
from snakepit.pools.broker.spec import spec_from
from snakepit.pools.client import Tls
from snakepit.workers.process import parent_death

REPORT_EVERY = 1.0  # seconds between two reports of memory and output


class Agent:
    """`order`: the worker and the broker's address, as RayLauncher sends them."""

    def __init__(self, order: dict[str, Any], home: Path) -> None:
        self._order = order
        self._launcher = ProcessLauncher(LaunchSettings(home, order["instance"], tuple(order["path"])))

    async def run(self) -> None:
        order = self._order
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Exit] = loop.create_future()
        lines, control = await self._connect("control")
        spec = spec_from(order["spec"])
        process = await self._launcher.launch(LaunchOrder(order["worker"], order["adapter"], spec), ended.set_result)
        tasks = [loop.create_task(work) for work in (self._relay(process), self._obey(lines, process))]
        report = loop.create_task(self._report(process, control))
        exit = await ended
        report.cancel()
        # The page outlives the process, so the broker learns which calls had begun.
        final = {"code": exit.code, "signal": exit.signal, "begun": process.last_begun()}
        control.write(line({"output": list(process.output()), "exit": final}))
        with contextlib.suppress(OSError):
            await control.drain()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        control.close()
        await self._launcher.close()

    async def _connect(self, kind: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        order = self._order
        context = Tls(**order["tls"]).context()
        reader, writer = await asyncio.open_connection(order["host"], order["port"], ssl=context)
        writer.write(line({"worker": order["worker"], "secret": order["secret"], "kind": kind}))
        return reader, writer

    async def _relay(self, process: WorkerProcess) -> None:
        far = await self._connect("data")
        near = await asyncio.open_unix_connection(process.socket_path)
        await copy_both(near, far)

    async def _obey(self, lines: asyncio.StreamReader, process: WorkerProcess) -> None:
        while order := await lines.readline():
            if json.loads(order).get("kill"):
                process.kill()
        process.kill()  # the broker is gone

    async def _report(self, process: WorkerProcess, control: asyncio.StreamWriter) -> None:
        while True:
            memory, cpu = await asyncio.to_thread(process.memory_mb), await asyncio.to_thread(process.cpu_seconds)
            facts = {"pid": process.pid, "memory": memory, "cpu": cpu, "output": list(process.output())}
            control.write(line(facts))
            await asyncio.sleep(REPORT_EVERY)


def main() -> None:
    parent_death.end_with(os.getppid())
    order = json.loads(sys.stdin.readline())
    home = Path(tempfile.mkdtemp(prefix="sp-ray-", dir="/tmp"))
    try:
        asyncio.run(Agent(order, home).run())
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
