"""A real broker in a process of its own, for tests: pools from a file, events on a pipe, no Django.

with broker({"pool": {...}}) as node:   start it, wait until it listens
    node.client                         a connected client
    node.until("worker.started")        wait for an event
    node.define({...})                  change the desired state
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from snakepit.pools.adapters.interpreters.known import InterpreterKeys, Interpreters, define
from snakepit.pools.adapters.network.identity import NetworkCaller, NoKeys, certificate_rights
from snakepit.pools.adapters.network.listener import ListenConfig, ListenError
from snakepit.pools.adapters.network.tls import TlsFiles
from snakepit.pools.adapters.node import NodeConfig, RuntimeDirectoryError, WorkerUserError, run_node
from snakepit.pools.broker.caller import Limits
from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.broker.events import Event
from snakepit.pools.broker.ports import Definition, Loaded
from snakepit.pools.broker.spec import InvalidSpec, spec_from
from snakepit.pools.broker.status import BrokerStatus, PoolStatus
from snakepit.pools.client import connect
from snakepit.workers.process import parent_death

ROOT = Path(__file__).parents[1]
PATIENCE = 120.0  # a bound for a machine under load, never a wait
CONNECT = 20.0  # seconds until a broker that stopped for a moment answers a new connection
ORDERS = ("apply", "recycle", "drain", "resume", "kill", "dump")
ADAPTERS = {
    "everything": "tests.everything.Everything",
    "unsafe": "tests.everything.Unsafe",
    "fails": "tests.everything.FailsToLoad",
    "fails_once": "tests.everything.FailsOnce",
    "slow": "tests.everything.SlowToLoad",
    "loads": "tests.everything.Loads",
    "heavy": "tests.everything.Heavy",
    "preloading": "tests.everything.Preloading",
    "thread_in_preload": "tests.everything.ThreadInPreload",
    "brief_thread_in_preload": "tests.everything.BriefThreadInPreload",
    "connection_in_preload": "tests.everything.ConnectionInPreload",
    "loop_in_preload": "tests.everything.LoopInPreload",
    "numpy_in_preload": "tests.everything.NumpyInPreload",
    "rivers": "tests.preloaded.Rivers",
    "raises_in_preload": "tests.everything.RaisesInPreload",
    "batching": "tests.everything.Batching",
    "new": "tests.everything.NewVersion",
    "missing": "tests.no_such_module.Adapter",
    "digits": "snakepit.examples.digits.Digits",
    "primes": "snakepit.examples.primes.Primes",
    "patterns": "snakepit.examples.patterns.Words",
    "docs": "snakepit.examples.docs_search.DocsSearch",
    "large": "tests.large.Large",
    "typed": "tests.typed.Typed",
    "hostile": "tests.hostile.Hostile",
    "spy": "tests.spy.Spy",
    "preloaded_spy": "tests.spy.PreloadedSpy",
    "target": "benchmarks.faults.adapter.Target",
    "preloaded": "benchmarks.faults.adapter.Preloaded",
}


# A machine may stop for seconds, or be ten times slower: calls wait and run for long where a test says nothing else.
DEFAULTS = {"adapter": "everything", "queue_timeout": 120.0, "call_timeout": 600.0, "stream_timeout": 600.0}


# In the broker's process


class FileDefinitions:
    """The port Definitions over a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._defaults = json.loads(os.environ.get("TEST_POOL", "{}"))  # defaults of every pool
        venvs = tuple(filter(None, os.environ.get("TEST_VENVS", "").split(os.pathsep)))
        # Only what a test names: other interpreters of this machine must not change its result.
        environ = {"HOME": "/nonexistent", "PATH": ""}
        self._interpreters = Interpreters(InterpreterKeys(venvs=venvs, environ=environ, worker_path=(str(ROOT),)))

    def load(self) -> Loaded:
        definitions, problems = [], []
        for name, fields in json.loads(self._path.read_text()).items():
            try:
                spec = spec_from({**DEFAULTS, **self._defaults, **fields, "name": name})
                if os.path.isabs(spec.python):
                    definitions.append(Definition(spec, ADAPTERS[spec.adapter], f"named: {spec.python}"))
                else:
                    definitions.append(define(spec, ADAPTERS[spec.adapter], self._interpreters))
            except InvalidSpec as error:
                problems.append((name, str(error)))
        return Loaded(tuple(definitions), tuple(problems))


class PipeRecorder:
    """The port Recorder over a pipe: one JSON line for each event."""

    def __init__(self, fd: int) -> None:
        self._pipe = os.fdopen(fd, "w", buffering=1)

    def start(self) -> None: ...

    def record(self, at: float, event: Event) -> None:
        fields = {name: getattr(event, name) for name in ("kind", "pool", "worker", "reason", "message", "data")}
        self._pipe.write(json.dumps({**fields, "at": at}, default=str) + "\n")

    def observe(self, status: BrokerStatus) -> None: ...

    def stop(self) -> None:
        self._pipe.close()


class FileKeys:
    """A KeySource over a JSON file: secret to `scopes`, `pools` and `limits`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, secret: str) -> NetworkCaller | None:
        given = json.loads(self._path.read_text()).get(secret)
        if given is None:
            return None
        rights = certificate_rights({secret: given}, Limits())[secret]
        return replace(rights.caller(secret, 1.0), actor=f"key {secret}")


def listen_config(text: str) -> ListenConfig:
    """The listener of a test, from JSON: the fields of ListenConfig, `keys` a path."""
    if not text:
        return ListenConfig()
    given = json.loads(text)
    return ListenConfig(
        **given
        | {
            "addresses": tuple(given.get("addresses", ("127.0.0.1:0",))),
            "tls": TlsFiles(**given["tls"]) if given.get("tls") else None,
            "certificates": certificate_rights(given.get("certificates", {}), Limits()),
            "keys": FileKeys(Path(given["keys"])) if given.get("keys") else NoKeys(),
        }
    )


def main() -> int:
    parent, runtime, definitions, events, interval = sys.argv[1:6]
    parent_death.end_with(int(parent))  # the broker ends with the test, also where no guardian runs
    recorder = PipeRecorder(int(events))
    config = NodeConfig(
        runtime=Path(runtime),
        definitions=FileDefinitions(Path(definitions)),
        recorder=recorder,
        name="test",
        worker_path=(str(ROOT),),
        sweep_interval=float(interval),
        stop_grace=float(os.environ.get("STOP_GRACE", "10")),
        worker_user=os.environ.get("WORKER_USER", ""),
        worker_groups=tuple(os.environ.get("WORKER_GROUPS", "").split()),
        listen=listen_config(os.environ.get("LISTEN_CONFIG", "")),
    )
    try:
        run_node(config, lambda broker: recorder.record(0, Event("listening")))  # type: ignore[arg-type]
    except (RuntimeDirectoryError, WorkerUserError, ListenError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# In the test's process


class PatientClient:
    """A client that repeats an order which it did not send, because the broker was silent for a moment."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(_until_sent, found) if name in ORDERS else found


def _until_sent(order: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return order(*arguments, **more)
        except BrokerUnreachable as error:
            if error.outcome != NOT_STARTED or not error.details.get("silent") or time.monotonic() > end:
                raise


class RunningBroker:
    """`root` and `python` start the broker from a copy of the code; `options` are those of Popen."""

    def __init__(
        self,
        pools: dict[str, Any],
        runtime: Path,
        interval: float,
        *,
        root: Path = ROOT,
        command: tuple[str, ...] = (sys.executable,),
        **options: Any,
    ) -> None:
        self.runtime = runtime / "run"
        self.errors = runtime / "stderr"
        self._definitions = runtime / "pools.json"
        self._client: Any = None
        self.define(pools)
        read, write = os.pipe()
        words = [*command, "-m", "tests.brokers", str(os.getpid())]
        words += [str(self.runtime), str(self._definitions), str(write), str(interval)]
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(words, cwd=root, pass_fds=(write,), stderr=stderr, stdout=stderr, **options)
        os.close(write)
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._reader.start()

    def _read(self, fd: int) -> None:
        with os.fdopen(fd) as pipe:
            for line in pipe:
                with self._changed:
                    self.events.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def define(self, pools: dict[str, Any]) -> None:
        fresh = self._definitions.with_suffix(".new")
        fresh.write_text(json.dumps(pools))
        os.replace(fresh, self._definitions)

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = PatientClient(connect(str(self.runtime / "broker.sock"), connect_timeout=CONNECT))
        return self._client

    def until(self, kind: str, count: int = 1, patience: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Wait for the `count`-th event of a kind with these fields since the broker's start."""
        return self.wait(lambda: self._find(kind, count, fields), f"{count} {kind} {fields}", patience)

    def _find(self, kind: str, count: int, fields: dict[str, Any]) -> dict[str, Any] | None:
        found = self.told(kind, **fields)
        return found[count - 1] if len(found) >= count else None

    def told(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            event
            for event in self.events
            if event["kind"] == kind and all(event[key] == value for key, value in fields.items())
        ]

    def wait(self, question: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Wait until an event makes `question` true."""
        with self._changed:
            answer = self._changed.wait_for(lambda: question() or (self._ended and "ended"), patience)
            if not answer or answer == "ended":
                told = "\n".join(f"{e['kind']} {e['worker']} {e['reason']} {e['message']}" for e in self.events)
                raise AssertionError(f"{what} did not come; the events were:\n{told}\n{self.errors.read_text()}")
            return answer

    def ready(self, pool: str, workers: int = 1) -> None:
        """Wait until this many workers of a pool have started since the broker's start."""
        self.until("worker.started", workers, pool=pool)

    def status(self, pool: str = "") -> BrokerStatus:
        return self.client.status(pool)

    def pool(self, name: str) -> PoolStatus:
        return self.status(name).pools[0]

    def until_served(self, pool: str, calls: int) -> None:
        """Wait until the broker has counted this many calls. A caller has its result before that."""
        eventually(lambda: sum(worker.served for worker in self.status(pool).workers) >= calls, f"{calls} calls")

    def pids(self, pool: str = "") -> list[int]:
        return [worker.pid for worker in self.status(pool).workers if worker.pid]

    def stop(self, number: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(patience)
        self._reader.join(patience)
        return code


def eventually(question: Callable[[], Any], what: str = "the answer", patience: float = PATIENCE) -> Any:
    """Ask until the answer is true, and return it. It is for states that have no event."""
    end = time.monotonic() + patience
    while not (answer := question()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)
    return answer


def overrun(call: Callable[[float], Any], timeout: float) -> DeadlineExceeded:
    """Make a call whose deadline passes while its command runs; on a busy machine it may pass before, so try longer."""
    for longer in (1, 10, 100):
        try:
            raise AssertionError(f"it returned {call(timeout * longer)!r} before its deadline")
        except DeadlineExceeded as error:
            if error.outcome == UNKNOWN:
                return error
    raise AssertionError("the command never began")


@contextmanager
def broker(pools: dict[str, Any], interval: float = 3600.0, owner: int = -1, **options: Any) -> Iterator[RunningBroker]:
    """A broker during a test, in a directory of `owner`. Afterwards no process and no socket of it may be left."""
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as home:  # a short path, for the sockets
        os.chown(home, owner, owner)
        node = RunningBroker(pools, Path(home), interval, **options)
        try:
            node.until("listening")
            instance = json.loads((node.runtime / "instance").read_text())["instance"]
            yield node
        finally:
            if node.process.poll() is None:
                node.stop()
        assert_nothing_left(instance)


def assert_nothing_left(instance: str, patience: float = PATIENCE) -> None:
    """Fail if a process of a broker stays alive. Waits for each through a pidfd."""
    import select

    from snakepit.pools.adapters.processes.reaper import carriers

    for pid in carriers(instance):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([pidfd], [], [], patience)
            assert ended, f"process {pid} of the broker is still there: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
        finally:
            os.close(pidfd)


def freeze(pid: int) -> None:
    """Stop a process until SIGCONT; returns once no thread runs any more. On a busy machine, that is not at once."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + PATIENCE
    while any(_state(task) not in "Tt" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < end, f"process {pid} does not stop"


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def wait_gone(pid: int, patience: float) -> bool:
    """Whether a process ends within `patience` seconds. It need not be a child of this process."""
    import select

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], patience)[0])
    finally:
        os.close(pidfd)


if __name__ == "__main__":
    sys.exit(main())
