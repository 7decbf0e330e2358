"""A real template in a process of its own, and what it forks, from the broker's side of its socket."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from snakepit.workers.process import parent_death, process_title, shared_page, template_safety, vitals
from tests.process.workers import harness
from tests.process.workers.harness import PATIENCE, linked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="templates need Linux")

SUBREAPER = 36


class Forked:
    """A worker that a template forked; what `linked` needs of a process."""

    def __init__(self, pid, path, page, handshake):
        self.pid, self.path, self.page, self.handshake = pid, path, page, handshake

    def exit_code(self):
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


class RunningTemplate:
    """A template from the broker's side."""

    def __init__(self, popen, control, folder, stack):
        self.popen, self.control, self.folder, self._stack = popen, control, folder, stack
        control.settimeout(PATIENCE)

    def report(self):
        return json.loads(self.control.recv(4096))

    def order(self, name):
        """Order a worker; returns the handshake socket, the path of its socket and its shared page."""
        path = os.path.join(self.folder, name)
        ours, handshake = socket.socketpair()
        self._stack.callback(ours.close)
        ours.settimeout(PATIENCE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, handshake, open(os.devnull, "w") as output:
            listener.bind(path)
            listener.listen(1)
            page_fd = shared_page.make()
            page = shared_page.SharedPage(page_fd)
            self._stack.callback(page.close)
            message = json.dumps({"worker": name, "scratch": os.path.join(self.folder, "scratch-" + name)}).encode()
            socket.send_fds(self.control, [message], [listener.fileno(), page_fd, output.fileno(), handshake.fileno()])
            os.close(page_fd)
        return ours, path, page

    def fork(self, name="w-1"):
        handshake, path, page = self.order(name)
        pid = int(handshake.recv(32))
        self._stack.callback(reap, pid)
        return Forked(pid, path, page, handshake)

    def boot(self, worker, **fields):
        document = {
            "worker": "w-1", "pool": "test", "instance": "0" * 32, "parent": os.getpid(), "adapter": "adapters.Shared",
            "listen_fd": 0, "shared_page_fd": 0, **fields,
        }  # fmt: skip
        worker.handshake.sendall(json.dumps(document).encode())
        worker.handshake.close()
        return worker

    def exit_code(self):
        return self.popen.wait(PATIENCE)


def reap(pid):
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def running(adapter="adapters.Shared", **fields):
    libc = ctypes.CDLL(None)
    with contextlib.ExitStack() as stack:
        assert libc.prctl(SUBREAPER, 1, 0, 0, 0) == 0
        stack.callback(libc.prctl, SUBREAPER, 0, 0, 0, 0)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="template-", dir="/tmp"))
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(control.close)
        reader, writer = os.pipe()
        document = {"template": "t-1", "pool": "test", "adapter": adapter, "parent": os.getpid(), **fields}
        name = process_title.padded("t-1")
        options = ["--boot", str(reader), "--template", str(theirs.fileno()), "--worker", name]
        popen = subprocess.Popen(
            [sys.executable, "-m", "snakepit.workers", *options],
            cwd=harness.ROOT,
            env={**harness.environment(), process_title.VARIABLE: name, "TMPDIR": os.path.join(folder, "scratch-t")},
            pass_fds=(reader, theirs.fileno()),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(harness.end, popen)
        theirs.close()
        os.close(reader)
        with os.fdopen(writer, "wb") as boot:
            boot.write(json.dumps(document).encode())
        yield RunningTemplate(popen, control, folder, stack)


def opened(pid):
    """The files behind the descriptors of a process, its standard ones left out."""
    folder = f"/proc/{pid}/fd"
    return {os.stat(f"{folder}/{name}").st_ino for name in os.listdir(folder) if int(name) > 2}


def ask(worker, command="look"):
    async def scenario():
        async with linked(worker) as link:
            answer = await link.result(command)
            hello = link.hello
            await link.drain()
            await link.goodbye(worker)
            return answer, hello

    return asyncio.run(scenario())


def test_a_forked_worker_serves_as_a_child_of_the_broker_with_what_the_template_loaded():
    with running(args={"tree": "oak"}) as template:
        assert template.report()["load_seconds"] > 0
        worker = template.fork()
        os.mkdir(os.path.join(template.folder, "scratch-w-1"))
        answer, hello = ask(template.boot(worker))
        assert (answer["pid"], answer["parent"]) == (worker.pid, os.getpid())
        assert (answer["loaded_by"], answer["tree"]) == (template.popen.pid, "oak")
        assert answer["scratch"] == os.path.join(template.folder, "scratch-w-1")
        assert answer["last_id"] is None
        assert answer["frozen"]
        random.seed(1)
        assert answer["random"] != random.random(), "preload() had seeded it"
        assert hello.pid == worker.pid
        assert hello.gil_enabled == (not vitals.is_free_threaded())


def test_a_worker_carries_its_own_name_in_what_the_kernel_shows():
    with running() as template:
        template.report()
        worker = template.fork("w-17")
        with open(f"/proc/{worker.pid}/cmdline", "rb") as line:
            assert line.read().rstrip(b"\0").split(b"\0")[-1] == b"w-17"
        with open(f"/proc/{worker.pid}/environ", "rb") as environ:
            assert b"SNAKEPIT_WORKER=w-17" in environ.read().split(b"\0")
        with open(f"/proc/{template.popen.pid}/environ", "rb") as environ:
            assert b"SNAKEPIT_WORKER=t-1" in [line.strip() for line in environ.read().split(b"\0")]


def test_many_orders_make_many_workers_each_in_its_own_session():
    with running() as template:
        template.report()
        handshakes = [template.order(f"w-{number}")[0] for number in range(20)]
        pids = [int(handshake.recv(32)) for handshake in handshakes]
        assert len(set(pids)) == 20
        assert [os.getsid(pid) for pid in pids] == pids
        for handshake in handshakes:
            handshake.close()
        # None gets a boot document, so each exits by itself.
        assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids} == {2}


def test_a_worker_does_not_hold_what_belongs_to_its_template_and_siblings():
    with running() as template:
        template.report()
        first, second = template.fork("w-1"), template.fork("w-2")
        mine, *theirs = [opened(process.pid) for process in (template.popen, first, second)]
        assert not mine & (theirs[0] | theirs[1])
        assert not theirs[0] & theirs[1]
        assert len(os.listdir(f"/proc/{template.popen.pid}/fd")) == 4, "stdin, output, errors and the control socket"


def test_workers_outlive_their_template():
    with running() as template:
        template.report()
        worker = template.fork()
        template.popen.kill()
        template.exit_code()
        answer, _ = ask(template.boot(worker))
        assert answer["parent"] == os.getpid()


def test_a_template_exits_when_its_broker_closes_the_socket():
    with running() as template:
        template.report()
        template.control.close()
        assert template.exit_code() == 0


def test_a_template_of_another_parent_exits():
    with running(parent=1) as template:
        assert template.exit_code() == parent_death.ORPHANED


@pytest.mark.parametrize(
    ("adapter", "reason", "words"),
    [
        ("adapters.Echo", "no_preload", "Echo has no preload()"),
        (
            "adapters.Ticking",
            "unsafe",
            "a thread runs beside the main one, and would be missing in every worker: 'ticker'",
        ),
        ("adapters.Native", "unsafe", "1 native"),
        ("adapters.Spoilt", "load_failed", "SystemExit: the command called sys.exit('no weights')"),
        ("adapters.Misplaced", "load_failed", "write it as a classmethod"),
        ("adapters.Missing", "load_failed", "has no 'Missing'"),
    ],
)
def test_a_template_that_cannot_be_forked_reports_the_reason_and_exits(adapter, reason, words):
    with running(adapter) as template:
        said = template.report()
        assert said["refused"] == reason
        assert words in said["why"]
        assert template.exit_code() == 3


@pytest.mark.parametrize(("adapter", "always"), [("adapters.Imports", False), ("adapters.Echo", True)])
def test_imports_alone_are_shared_if_the_adapter_or_the_pool_asks_for_it(adapter, always):
    with running(adapter, always=always) as template:
        assert "load_seconds" in template.report()


# Obstacles


def obstacles(own=()):
    """Without threads: those of other tests in this process end at any moment."""
    return {line for line in template_safety.obstacles(own) if "missing in every worker" not in line}


@pytest.fixture
def before():
    """What this test process has open already is not the matter here."""
    return obstacles()


def test_a_stream_socket_is_an_obstacle_and_a_datagram_socket_is_none(before):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):
        assert obstacles() <= before
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, socket.socket() as connection:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connection.connect(listener.getsockname())
        found = " ".join(obstacles() - before)
        assert f"descriptor {connection.fileno()}, to {listener.getsockname()}" in found
        own = [listener.fileno(), connection.fileno()]
        assert obstacles(own) <= before


def test_an_event_loop_is_an_obstacle(before):
    with contextlib.closing(select.epoll()):
        (found,) = obstacles() - before
        assert "an event loop is open" in found


def test_grpcio_is_an_obstacle(monkeypatch):
    monkeypatch.delitem(sys.modules, "grpc._cython.cygrpc", raising=False)  # of the tests that use it as a client
    before = obstacles()
    monkeypatch.setitem(sys.modules, "grpc._cython.cygrpc", object())
    assert obstacles() - before == {"grpcio is imported, and does not survive a fork: import it in setup()"}


def test_cuda_is_an_obstacle_by_the_device_that_is_open(monkeypatch, before):
    monkeypatch.setattr(template_safety, "GPU_DEVICES", ("/dev/zero",))
    with open("/dev/zero", "rb"):
        (found,) = obstacles() - before
        assert "the GPU is in use (/dev/zero is open)" in found
