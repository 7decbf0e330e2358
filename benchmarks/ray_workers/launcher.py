"""The broker's Launcher port over Ray: one actor for each worker, and a relay for its connection.

launch() ─▶ actor with the pool's resources ─▶ its helper connects back over mutual TLS
Linker ─▶ Unix socket here ─▶ relay ─▶ helper ─▶ worker, on any host of the Ray cluster
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib
import json
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ray_workers.relay import Ends, copy_both, line
from snakepit.pools.adapters.network.tls import TlsFiles, load
from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.ports import Buffers, Exit, LaunchOrder, Process, Template, TemplateOrder, TemplateReports
from snakepit.pools.broker.status import ThreadStack
from snakepit.pools.client import Tls

SENT = ("name", "adapter", "args", "profile", "threads", "max_payload", "thread_checks")  # fields of a pool
LOST = Exit(signal=9)  # of a worker whose host, actor or connection is lost


class RemoteWorker:
    """The Process port of a worker on another host. What only that host can say is as old as its last report."""

    pid = 0

    def __init__(self, actor: Any, socket_path: str, on_exit: Callable[[Exit], None]) -> None:
        self.actor = actor
        self.socket_path = socket_path
        self.secret = secrets.token_urlsafe(32)
        self.control: asyncio.StreamWriter | None = None
        self.data: asyncio.Future[Ends] = asyncio.get_running_loop().create_future()
        self._on_exit: Callable[[Exit], None] | None = on_exit
        self._begun: int | None = None  # None: unknown, as long as the helper has not said it
        self._memory: float | None = None
        self._cpu: float | None = None
        self._output: list[str] = []

    def take(self, report: Mapping[str, Any]) -> None:
        self.pid = report.get("pid", self.pid)
        self._memory, self._cpu = report.get("memory", self._memory), report.get("cpu", self._cpu)
        self._output = report.get("output", self._output)
        if exit := report.get("exit"):
            self._begun = exit["begun"]
            self.ended(Exit(exit["code"], exit["signal"]))

    def ended(self, exit: Exit) -> None:
        """Report the end once."""
        on_exit, self._on_exit = self._on_exit, None
        if on_exit is not None:
            Path(self.socket_path).unlink(missing_ok=True)
            self.data.cancel()
            on_exit(exit)

    def kill(self) -> None:
        if self.control is not None and not self.control.is_closing():
            self.control.write(line({"kill": True}))
        elif self._on_exit is not None:  # Ray has not placed it yet
            importlib.import_module("ray").kill(self.actor, no_restart=True)
            self.ended(LOST)

    def last_begun(self) -> int:
        return self._begun or 0

    def has_begun(self, sequence: int) -> bool:
        """Say yes where it is unknown: a call that may have begun must not run twice."""
        return self._begun is None or sequence <= self._begun

    def revoke(self, first: int, last: int) -> None:
        """Nothing: the page that a worker reads before each call is on its own host."""

    def pass_buffers(self, sequence: int, parts: Buffers | bytes | memoryview) -> bool:
        """Return False: no datagram passes a network."""
        return False

    def output(self) -> Sequence[str]:
        return self._output

    def memory_mb(self) -> float | None:
        return self._memory

    def cpu_seconds(self) -> float | None:
        return self._cpu

    async def stacks(self) -> tuple[ThreadStack, ...]:
        raise StacksUnavailable("The stacks of a worker on Ray cannot be read from here.")


class RayLauncher:
    """`resources`: the options of the actors of each pool, such as num_gpus. Start it, then give it to a broker."""

    def __init__(self, home: Path, tls: Tls, resources: Mapping[str, Mapping[str, Any]], path: Sequence[str]) -> None:
        self.workers: dict[str, RemoteWorker] = {}
        self._home, self._tls, self._resources, self._path = home, tls, resources, path
        self._ray = importlib.import_module("ray")
        self._actors = self._ray.remote(max_restarts=0)(RayActor)
        self._server: asyncio.Server | None = None
        self._waits: set[asyncio.Task[None]] = set()
        self._sockets: list[asyncio.Server] = []

    async def start(self) -> None:
        context = load(TlsFiles(self._tls.cert, self._tls.key, self._tls.ca)).context
        context.set_alpn_protocols([])
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        assert self._server is not None
        options = {"num_cpus": 0, **self._resources.get(order.spec.name, {})}
        actor = self._actors.options(**options).remote()
        worker = RemoteWorker(actor, str(self._home / order.worker), on_exit)
        self.workers[order.worker] = worker
        self._sockets.append(await asyncio.start_unix_server(self._linked(worker), worker.socket_path))
        fields = asdict(order.spec)
        sent = {
            "worker": order.worker, "adapter": order.adapter_path, "spec": {name: fields[name] for name in SENT},
            "secret": worker.secret, "instance": secrets.token_hex(8), "path": list(self._path),
            "tls": asdict(self._tls), "host": "localhost", "port": self._server.sockets[0].getsockname()[1],
        }  # fmt: skip
        task = asyncio.ensure_future(self._until_gone(worker, actor.run.remote(json.dumps(sent))))
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)
        return worker

    async def _until_gone(self, worker: RemoteWorker, run: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            await run
        worker.ended(LOST)

    def _linked(self, worker: RemoteWorker) -> Callable[..., Any]:
        async def linked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far = await worker.data
            except asyncio.CancelledError:  # it ended before its helper connected
                writer.close()
                return
            await copy_both((reader, writer), far)

        return linked

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = json.loads(await reader.readline() or b"{}")
        worker = self.workers.get(hello.get("worker", ""))
        if worker is None or not hmac.compare_digest(worker.secret, str(hello.get("secret"))):
            writer.close()
            return
        if hello["kind"] == "data":
            if not worker.data.done():
                worker.data.set_result((reader, writer))
            return
        worker.control = writer
        with contextlib.suppress(OSError):
            while report := await reader.readline():
                worker.take(json.loads(report))
        worker.ended(LOST)

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> Template:
        raise OSError("a worker on Ray is not forked from a template: set preload to off")

    async def fork(self, template: Template, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        raise OSError("a worker on Ray is not forked from a template: set preload to off")

    async def close(self) -> None:
        for worker in self.workers.values():
            self._ray.kill(worker.actor, no_restart=True)
            worker.ended(LOST)
        for server in (*self._sockets, self._server):
            if server is not None:
                server.close()


class RayActor:
    """Ray places it, counts its resources, and ends it. Its helper does the work."""

    def run(self, order: str) -> int:
        import subprocess
        import sys

        words = [sys.executable, "-m", "benchmarks.ray_workers.agent"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as helper:
            assert helper.stdin is not None
            helper.stdin.write(order + "\n")
            helper.stdin.flush()
            return helper.wait()
