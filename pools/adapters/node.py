"""The composition root: joins the broker to its ports, runs it, and stops everything in order.

run_broker() ─▶ RuntimeDirectory ─▶ ReaperProcess, orphans ─▶ Broker(ports) ─▶ gRPC server ─▶ signals ─▶ stop
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import platform
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grpclib.server import Server

from snakepit.pools.adapters.grpc.buffer_intake import BufferIntake, open_intake
from snakepit.pools.adapters.grpc.link import GrpcLinker
from snakepit.pools.adapters.grpc.service import make_server
from snakepit.pools.adapters.network.listener import NO_LISTENER, ListenConfig, Listener, ListenError
from snakepit.pools.adapters.network.serving import make_listener
from snakepit.pools.adapters.processes.hiding import hide
from snakepit.pools.adapters.processes.launcher import LaunchSettings, ProcessLauncher
from snakepit.pools.adapters.processes.orphans import Orphans, ReaperProcess, become_subreaper, end_predecessors
from snakepit.pools.adapters.processes.worker_resources import listen
from snakepit.pools.adapters.processes.worker_user import WorkerUserError, find_user, require_capabilities
from snakepit.pools.adapters.records.event_log import EventLog
from snakepit.pools.adapters.records.metrics import Metrics
from snakepit.pools.adapters.records.recent_events import RecentEvents
from snakepit.pools.adapters.runtime_directory import RuntimeDirectory, RuntimeDirectoryError
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.node import NodeFacts
from snakepit.pools.broker.ports import Definitions, Ports, Recorder

CLOSE_SECONDS = 0.5  # for clients to close their connections when the broker stops
CHECK_EVERY = 1.0  # seconds between two checks for orphans and of the reaper process
# Connections that may wait to be accepted. Beyond it a connect fails immediately, for instance when all web processes
# of a machine connect to a new broker at the same time.
BACKLOG = 1024
COLLECT_AFTER = 50_000  # objects; thousands of calls in flight have fewer
COLLECT_GONE = 10  # ended workers whose garbage is collected together; each leaves some 35 KB in cycles

logger = logging.getLogger("snakepit.broker")


class SystemClock:
    monotonic = staticmethod(time.monotonic)  # without a wrapper: it is called several times per call
    wall = staticmethod(time.time)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The configuration of a broker process, made from the settings or by a test."""

    runtime: Path
    definitions: Definitions
    recorder: Recorder
    name: str
    version: str = "0"
    worker_path: tuple[str, ...] = ()
    worker_env: tuple[str, ...] = ()
    worker_user: str = ""
    worker_groups: tuple[str, ...] = ()
    sweep_interval: float = 15.0
    labels: tuple[str, ...] = ()  # key=value
    stop_grace: float = 30.0  # seconds that calls get to finish after SIGTERM
    listen: ListenConfig = NO_LISTENER
    advertised: tuple[str, ...] = ()


class EndedWorkers:
    """Counts ended workers, whose connections are cycles of objects that only the collector frees.

    With the threshold of a broker, the garbage of hundreds of workers would wait for it.
    """

    def __init__(self) -> None:
        self._living: set[str] = set()
        self._gone = 0

    def are_many(self, living: Iterable[str]) -> bool:
        """Whether COLLECT_GONE workers have ended since this was last true."""
        before, self._living = self._living, set(living)
        self._gone += len(before - self._living)
        if self._gone < COLLECT_GONE:
            return False
        self._gone = 0
        return True


class BrokerProcess:
    """A broker in this process. A first `stop` lets calls finish, a second one ends them immediately."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.runtime = RuntimeDirectory(config.runtime)
        self._intake: BufferIntake | None = None
        self._stopping = asyncio.Event()
        self._urgent = asyncio.Event()
        self._cut_off = False  # the runtime directory is gone

    def stop(self) -> None:
        (self._urgent if self._stopping.is_set() else self._stopping).set()

    def hang_up(self) -> None:
        """Stop, also after two signals: the kernel and the shell may each send one."""
        self._stopping.set()

    async def run(self, announce: Callable[[Broker], None] = lambda broker: None) -> None:
        """Serve until stopped. Raises RuntimeDirectoryError if the directory cannot be used."""
        self.runtime.open()
        become_subreaper()
        ended = end_predecessors(self.runtime)
        reaper = ReaperProcess(self.runtime)
        self._intake = open_intake(self.runtime.buffers)
        try:
            await self._serve(reaper, ended, announce)
        finally:
            if self._intake:
                self._intake.close()
            reaper.close()
            self.runtime.close()
        if self._cut_off:
            raise RuntimeDirectoryError(
                f"{self.runtime.path} was removed or replaced while the broker ran, so that no program could reach it. "
                "The broker has stopped; start it again, and give it a SNAKEPIT['RUNTIME_DIR'] that nothing removes"
            )

    async def _serve(self, reaper: ReaperProcess, ended: int, announce: Callable[[Broker], None]) -> None:
        config, runtime = self.config, self.runtime
        launcher = self._launcher()
        metrics = Metrics(config.recorder)
        recent = RecentEvents(metrics, metrics)
        ports = Ports(launcher, GrpcLinker(), SystemClock(), config.definitions, recent, recent)
        broker = Broker(self._facts(), ports, random.Random())
        metrics.expose(broker.snapshot)
        server = make_server(broker, runtime.token, recent, metrics.text, self._intake)
        listener = make_listener(config.listen, broker, recent, metrics.text)
        listener.bind()
        await broker.start()
        if ended:
            message = f"{ended} processes of the previous broker were ended"
            broker.emit(Event(Kind.ORPHANS_REAPED, message=message))
        await server.start(sock=listen(str(runtime.socket)), backlog=BACKLOG)
        listener.start()
        orphans = find_orphans(broker, runtime.instance, reaper)
        watch = asyncio.get_running_loop().create_task(self._watch(broker, orphans, reaper), name="watch processes")
        announce(broker)
        with reaping(orphans):
            await self._stopping.wait()
        self._check(broker, orphans, reaper)  # the descent of processes is visible only while the workers live
        # The server stays open: it answers running calls, and refuses new ones with the reason.
        stop = asyncio.ensure_future(broker.stop(config.stop_grace))
        urgent = asyncio.ensure_future(self._urgent.wait())
        await asyncio.wait({stop, urgent}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            broker.kill_all()
        await stop
        urgent.cancel()
        watch.cancel()
        self._check(broker, orphans, reaper)  # no worker is left, so all orphans end now
        await close(broker, server, listener)

    def _facts(self) -> NodeFacts:
        config, runtime = self.config, self.runtime
        return NodeFacts(
            name=config.name,
            version=config.version,
            pid=os.getpid(),
            address=str(runtime.socket),
            python=platform.python_version(),
            boot=runtime.instance[:4],
            sweep_interval=config.sweep_interval,
            labels=config.labels,
            advertised=config.advertised,
        )

    def _launcher(self) -> ProcessLauncher:
        config, runtime = self.config, self.runtime
        user = find_user(config.worker_user, config.worker_groups)
        if user:
            require_capabilities()
        return ProcessLauncher(
            LaunchSettings(runtime.path, runtime.instance, config.worker_path, config.worker_env, user=user)
        )

    async def _watch(self, broker: Broker, orphans: Orphans, reaper: ReaperProcess) -> None:
        ended = EndedWorkers()
        while True:
            await asyncio.sleep(CHECK_EVERY)
            self._check(broker, orphans, reaper)
            if not self._cut_off and not self.runtime.keep():
                logger.error("%s was removed or replaced: the broker stops", self.runtime.path)
                self._cut_off = True
                self._stopping.set()
            if ended.are_many(handle.id for handle in broker.handles()):
                gc.collect()

    def _check(self, broker: Broker, orphans: Orphans, reaper: ReaperProcess) -> None:
        try:
            reaper.ensure()
            killed = orphans.end()
        except OSError as error:  # no memory or no descriptor at the moment: the next check may succeed
            logger.warning("orphans were not looked for: %s", error)
            return
        if killed:
            message = f"{killed} processes that outlived their worker were ended"
            broker.emit(Event(Kind.ORPHANS_REAPED, reason="orphan", message=message, level="warning"))


async def close(broker: Broker, server: Server, listener: Listener) -> None:
    """End the sessions, each with the outcome of its last calls; then close both servers."""
    listener.stop_accepting()
    server.close()
    leaving = [task for session in tuple(broker.open_sessions) if (task := session.leave())]
    # From Python 3.12 on `wait_closed` waits until every client has disconnected, which may be never.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            if leaving:
                await asyncio.wait(leaving)
            await server.wait_closed()
    listener.close()


@contextlib.contextmanager
def reaping(orphans: Orphans) -> Iterator[None]:
    """Reap orphans as they end: on every SIGCHLD, in a turn of the loop of its own.

    With signal.signal(): uvloop's add_signal_handler() refuses this signal, which it does not use here.
    """
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGCHLD, lambda number, frame: loop.call_soon_threadsafe(orphans.reap))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def find_orphans(broker: Broker, instance: str, reaper: ReaperProcess) -> Orphans:
    """The orphans among the children of this process: all that are neither a worker, a template nor the reaper."""

    def workers() -> dict[str, int]:
        # A worker that is just being forked still carries its template's id.
        living = (handle for handle in broker.handles() if handle.exit is None)
        found = {handle.id: handle.process.pid if handle.process else 0 for handle in living}
        return found | {name: template.pid for name, template in broker.templates()}

    return Orphans(instance, lambda: [reaper.pid, *workers().values()], workers)


def run_node(config: NodeConfig, announce: Callable[[Broker], None] = lambda broker: None) -> None:
    """Run a broker in the foreground until SIGTERM or SIGINT; a second one ends its calls immediately.

    SIGHUP, which comes when the terminal closes, stops it too, unless `nohup` started it. SIGUSR1 and SIGUSR2 end a
    process that does not use them: a rotation of logs sends them to daemons. The broker writes where its loop is.
    """

    async def main() -> None:
        node = BrokerProcess(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, node.stop)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGHUP, node.hang_up)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            faulthandler.register(number, all_threads=False)
        await node.run(announce)

    hide()
    # What is loaded now stays loaded, so the collector need not scan it. The objects of a call are freed without the
    # collector; its usual threshold of 700 objects is reached by thirty calls in flight.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop if installed: a call costs the broker a quarter less CPU. SNAKEPIT_EVENT_LOOP=asyncio disables it."""
    if os.environ.get("SNAKEPIT_EVENT_LOOP") == "asyncio":
        return None
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory


def run_broker(name: str = "", reload: bool = False) -> int:
    """Run the broker of a Django project. Call it after `django.setup()`. Returns an exit code.

    With `reload`, a change of a source file in WORKER_PATH replaces the workers.
    """
    from snakepit.pools import conf
    from snakepit.pools.adapters.network.of_settings import listen_config
    from snakepit.pools.adapters.records.definitions import DatabaseDefinitions
    from snakepit.pools.adapters.records.recorder import DatabaseRecorder
    from snakepit.pools.adapters.records.reload import ReloadingDefinitions

    settings = conf.current()
    name = name or conf.node_name()
    definitions = DatabaseDefinitions(name)
    config = NodeConfig(
        runtime=conf.runtime_dir(),
        definitions=ReloadingDefinitions(definitions, conf.worker_path()) if reload else definitions,
        recorder=EventLog(DatabaseRecorder(name)),
        name=name,
        version=conf.release(),
        worker_path=tuple(conf.worker_path()),
        worker_env=settings.worker_env,
        worker_user=settings.worker_user,
        worker_groups=settings.worker_groups,
        sweep_interval=settings.sweep_interval,
        labels=tuple(f"{key}={value}" for key, value in sorted(conf.node_labels().items())),
        stop_grace=settings.stop_grace,
        listen=listen_config(),
        advertised=conf.advertised(),
    )
    try:
        run_node(config, lambda broker: logger.info("broker %s is at %s", name, broker.facts.address))
    except (RuntimeDirectoryError, WorkerUserError, ListenError) as error:
        logger.error("%s", error)
        return 1
    return 0
