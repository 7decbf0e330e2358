"""gunicorn's dirty arbiters: a pool of warm processes beside a gunicorn server, called over a Unix socket."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any

from gunicorn.dirty.app import DirtyApp
from gunicorn.dirty.client import DirtyClient

from benchmarks import work

ROOT = Path(__file__).parents[2]
APP = "benchmarks.peers.dirty:Work"
CLIENTS = 8

CONFIG = """
bind = "unix:{home}/web.sock"
workers = 1
dirty_apps = ["{app}"]
dirty_workers = {workers}
control_socket_disable = True

def on_dirty_starting(arbiter):
    with open("{home}/address", "w") as file:
        file.write(arbiter.socket_path)
"""


class Work(DirtyApp):
    def echo(self, value: str) -> str:
        return work.echo(value)

    def chunks(self, count: int) -> Iterator[str]:
        return work.chunks(count)


def web(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The web application that gunicorn requires; it gets no requests."""
    start_response("204 No Content", [])
    return []


class Dirty:
    """Calls one after the other; `many` from eight clients, since a client holds one call at a time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._mine = local()
        self.client = DirtyClient(address, timeout=60)

    def echo(self, value: str) -> object:
        return self.client.execute(APP, "echo", value)

    def chunks(self, count: int) -> Iterator[object]:
        yield from self.client.stream(APP, "chunks", count)

    def many(self, count: int) -> None:
        with ThreadPoolExecutor(CLIENTS) as threads:
            for _ in threads.map(self._some, [count // CLIENTS] * CLIENTS):
                pass

    def _some(self, count: int) -> None:
        with DirtyClient(self._address, timeout=60) as client:
            for _ in range(count):
                client.execute(APP, "echo", work.SMALL)


@contextmanager
def running(workers: int) -> Iterator[Dirty]:
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as home:
        config = Path(home) / "conf.py"
        config.write_text(CONFIG.format(home=home, app=APP, workers=workers))
        command = [sys.executable, "-m", "gunicorn", "-c", str(config), "benchmarks.peers.dirty:web"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
            try:
                yield _connected(server, Path(home) / "address")
            finally:
                server.terminate()
                if server.stderr:
                    server.stderr.close()


def _connected(server: subprocess.Popen[bytes], address: Path) -> Dirty:
    """A client that had its first answer. The server's log is the sign of progress; it is read until workers serve."""
    assert server.stderr
    for line in server.stderr:
        if b"Booting dirty worker" in line or (b"dirty" in line.lower() and b"listening" in line):
            break
    else:
        raise RuntimeError("gunicorn ended before its dirty arbiter listened")
    while True:
        dirty = Dirty(address.read_text())
        try:
            dirty.echo("")
        except Exception as error:
            dirty.client.close()
            if server.poll() is not None:
                raise RuntimeError("gunicorn ended before its dirty workers answered") from error
        else:
            return dirty
