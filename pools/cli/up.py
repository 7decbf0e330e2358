"""`snakepit up`: runs everything that a Django project with Snakepit needs, as one foreground process tree.

examine ─▶ choose ─▶ claim ─▶ messages ─▶ migrate ─▶ broker ─▶ celery ─▶ web ─▶ ready: print URLs
                                                                └─▶ a signal, or a child that died: stop all
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from snakepit.pools.adapters.processes.hiding import hide
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import NOT_READ
from snakepit.pools.cli import demo as demo_parts
from snakepit.pools.cli import host_project
from snakepit.pools.cli import transport as transports
from snakepit.pools.cli.output import BOLD, GREEN, RED, YELLOW, Problem, colour, report_errors
from snakepit.pools.cli.project import start_django
from snakepit.pools.cli.supervisor import Program, Supervisor, wait_for
from snakepit.pools.client import connect
from snakepit.workers.process import inherited

READY_WITHIN = 60.0  # seconds until a message names what is still missing
MOST_CONNECTIONS = 6000  # of the web server; more than STREAMS_LIMIT, which its streams use
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
LEVELS = ("debug", "info", "warning", "error", "critical")


def register(app: typer.Typer) -> None:
    app.command("up")(up)


def up(
    *,
    demo: Annotated[bool, typer.Option("--demo", help="Add three example pools, a user and an API key.")] = False,
    host: Annotated[str, typer.Option(help="Address that the web server listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Port of the web server.")] = 8000,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Run the web server.")] = True,
    celery: Annotated[bool, typer.Option("--celery/--no-celery", help="Run Celery's worker and beat.")] = True,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Replace workers when code changes.")] = True,
    log_level: Annotated[str, typer.Option(help=f"One of {', '.join(LEVELS)}.")] = "info",
) -> None:
    """Run broker, Celery worker with beat, and web server in the foreground; Ctrl-C stops all of them.

    Celery's messages go through SNAKEPIT_REDIS_URL, else a valkey-server or redis-server on PATH, else the bundled
    Valkey, else files. The database is migrated first.
    """
    if log_level.lower() not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is not one of {', '.join(LEVELS)}", param_hint="--log-level")
    inherited.restore()
    if demo:
        os.environ["SNAKEPIT_DEMO"] = "1"
    else:
        os.environ.setdefault("SNAKEPIT_DEMO", "0")  # a killed demo may have left its mark in the state directory
    os.environ["SNAKEPIT_LOG_LEVEL"] = log_level.lower()
    with report_errors():
        start_django()
        hide()  # from adapters that run as the same user
        raise typer.Exit(Up(demo, host, port, web=web, celery=celery, reload=reload, log_level=log_level.lower()).run())


@dataclass
class Up:
    """One run."""

    demo: bool
    host: str
    port: int
    web: bool = field(kw_only=True, default=True)
    celery: bool = field(kw_only=True, default=True)
    reload: bool = field(kw_only=True, default=True)
    log_level: str = field(kw_only=True, default="info")

    def run(self) -> int:
        from snakepit.pools import celery_setup, conf

        self.runtime = conf.runtime_dir()
        self.state = celery_setup.state_dir()
        self.site = os.environ["DJANGO_SETTINGS_MODULE"].rpartition(".")[0]
        self._check_demo()
        with claim(self.runtime, self.state):
            self._check_free()
            # For `snakepit submit` in other shells, which must use the same message transport.
            chosen = self.state / "celery-url"
            chosen.unlink(missing_ok=True)  # of a run that was killed; the project's app would read it
            self.project = host_project.examine(self.site, celery=self.celery, web=self.web)
            self.celery = bool(self.project.celery)
            self.transport = transports.choose(os.environ, self.state, self.runtime, self.project.own_transport)
            environment = {**os.environ, **self.transport.environment}
            if self.celery and self.transport.environment:
                chosen.write_text(self.transport.url)
            # For `snakepit doctor` and others: whether the settings contain the demo's pools.
            shown = self.state / "demo"
            if self.demo:
                shown.touch()
            family = Supervisor(environment=environment)
            with family.signals(), family:  # in this order, so that signals during the stop are handled
                try:
                    return self._run(family)
                finally:
                    chosen.unlink(missing_ok=True)
                    shown.unlink(missing_ok=True)

    @property
    def root(self) -> str:
        """The web server's URL, without a slash at its end."""
        host = EVERYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def address(self) -> str:
        return str(self.runtime / "broker.sock")

    def _check_demo(self) -> None:
        if self.demo and not (installed("sklearn") and installed("numpy")):
            raise Problem(f"The demo's pool needs scikit-learn and NumPy, which are not installed; {install('demo')}")

    def _check_free(self) -> None:
        """Check early what would otherwise fail later, in the middle of other log lines."""
        if transports.listens(Path(self.address)):
            raise Problem(f"A broker already runs in {self.runtime}; stop it first, or {elsewhere()}")
        if not self.web:
            return
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise Problem(
                    f"{self.host}:{self.port} cannot be used for the web server ({error.strerror}). "
                    f"Choose another port: PORT={self.port % 65535 + 1}, or --port {self.port % 65535 + 1}"
                ) from error

    def _run(self, family: Supervisor) -> int:
        if self.celery:
            family.write(f"messages: {self.transport.title}")
        for text in self.warnings():
            family.write(colour(f"warning: {text}", YELLOW))
        try:
            self._start(family)
        except transports.NotStarted as error:
            family.write(colour(f"error: {error}", RED))
            return 1
        given_up = threading.Event()
        threading.Thread(target=self._await_ready, args=(family, given_up), name="readiness", daemon=True).start()
        try:
            return self._watch(family)
        finally:
            given_up.set()

    def warnings(self) -> Iterator[str]:
        """What this run lacks, each with what adds it."""
        if self.celery:
            yield from filter(None, (self.transport.note, self.transport.warning))
        yield from map(str, self.project.gaps)
        if self.web and not installed("uvicorn"):
            yield f"uvicorn is not installed, so Django's development server answers; {install('serve')}"

    def _start(self, family: Supervisor) -> None:
        transport = self.transport
        if self.celery and transport.socket is not None:
            transport.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.state / "valkey").mkdir(mode=0o700, parents=True, exist_ok=True)
            server = family.start(Program("valkey", transport.command, patience=0.5))
            if not transports.wait_until_ready(transport.socket, lambda: server.alive):
                raise transports.NotStarted(server.exit_report() if not server.alive else "valkey does not answer")
        self._migrate(family)
        self.secrets = demo_parts.prepare() if self.demo else None
        for program in self.programs():
            family.start(program)

    def programs(self) -> Iterator[Program]:
        """The programs in the order of their start; they stop in reverse order."""
        python = [sys.executable, "-m"]
        reload = ["--reload"] if self.reload else []
        # With several arenas of glibc, the arena of a new thread grows while others have free memory. The GIL lets one
        # thread allocate at a time, so one arena costs no speed.
        arenas = {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "1")}
        yield Program("broker", [*python, "snakepit.pools.cli", "broker", *reload], arenas, patience=1.5)
        if self.celery:
            celery = [*python, "celery", "--quiet", "-A", self.project.celery]
            level = ["--loglevel", self.log_level]
            worker = ["worker", "--pool", "threads", "--concurrency", "4", "-n", f"snakepit-{self.port}@%h", *level]
            yield Program("celery", [*celery, *worker], arenas, patience=1.0, urgent=signal.SIGQUIT)
            # Not `worker -B`: it forks beat, which would go on after a SIGKILL of the worker.
            schedule = ["beat", "--pidfile=", "-s", str(self.state / "beat-schedule"), *level]
            yield Program("beat", [*celery, *schedule], arenas, patience=0.5)
        if self.web:
            command = [*python, *self._web_server()]
            token = {"SNAKEPIT_DEMO_TOKEN": self.secrets.login_token} if self.secrets else {}
            yield Program("web", command, arenas | token, patience=2.0, urgent=signal.SIGINT)

    def _web_server(self) -> list[str]:
        if not installed("uvicorn"):
            address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
            return ["django", "runserver", "--noreload", "--insecure", address]
        command = ["uvicorn", "snakepit.pools.cli.web_app:application", "--host", self.host]
        command += ["--port", str(self.port), "--timeout-graceful-shutdown", "2", "--lifespan", "off"]
        command += ["--no-proxy-headers"]  # TrustedProxies reads them
        command += ["--http", "snakepit.site.http:Protocol", "--limit-concurrency", str(MOST_CONNECTIONS)]
        return [*command, "--log-level", self.log_level, *([] if self.log_level == "debug" else ["--no-access-log"])]

    def _migrate(self, family: Supervisor) -> None:
        from django.core.management import call_command
        from django.db import DEFAULT_DB_ALIAS, connections

        from snakepit.pools.models import schema

        family.write("database: migrating")
        for alias in {DEFAULT_DB_ALIAS, schema.alias()}:
            call_command("migrate", database=alias, interactive=False, verbosity=0)
        connections.close_all()  # from here on this process only supervises

    def _await_ready(self, family: Supervisor, given_up: threading.Event) -> None:
        """Wait until all is ready. Runs in a thread, because the main thread handles signals and exits."""
        gates = {"the broker's first worker": self._worker_is_ready}
        if self.web:
            gates["the web server"] = self._web_is_ready
        for what, check in gates.items():
            while not wait_for(check, READY_WITHIN, given_up):
                if given_up.is_set():
                    return
                family.write(colour(f"still waiting for {what}; see the lines above", YELLOW))
        family.post("ready")

    def _worker_is_ready(self) -> bool:
        try:
            status = connect(self.address, connect_timeout=0.05).status()
        except BrokerError:
            return False
        if status.pools:
            return any(worker.state == "ready" for worker in status.workers)
        # A project without pools is ready without workers. One whose database was locked by the start of the other
        # programs has its pools a moment later.
        return not any(problem.startswith(NOT_READ) for problem in status.node.problems)

    def _web_is_ready(self) -> bool:
        connection = http.client.HTTPConnection(EVERYWHERE.get(self.host, self.host), self.port, timeout=2)
        try:
            # Any answer counts: what is at a path is the project's choice.
            connection.request("GET", self.project.pages[0][1] if self.project.pages else "/")
            return connection.getresponse().status > 0
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _watch(self, family: Supervisor) -> int:
        while True:
            event = family.next()
            if event is None:
                continue
            if event.kind == "ready":
                family.write(self.welcome())
            elif event.kind == "stop":
                family.write(colour(f"{event.value}: stopping (again to kill)", BOLD))
                return 0
            elif event.kind == "exit" and event.child is not None:
                family.write(colour(f"error: {event.child.exit_report()}\nstopping the others", RED))
                return 1

    def welcome(self) -> str:
        """The URLs and commands to try next."""
        rows = [("messages", self.transport.title)] if self.celery else []
        if self.web:
            rows += [(label, f"{self.root}{path}") for label, path in self.project.pages]
        if self.web and self.secrets:
            rows.append(("log in", f"{self.root}/demo-login/?token={self.secrets.login_token}"))
        head = colour("Snakepit is up.", BOLD + GREEN) + " Ctrl-C stops all of it."
        text = [
            "",
            head,
            "",
            *(f"  {name:<10} {value}" for name, value in rows),
            "",
            "Try next, in another terminal:",
            "",
        ]
        if self.secrets:
            text += [
                f"  {line}" for line in demo_parts.lines(self.secrets, self.root if self.web else "", self.address)
            ]
        else:
            text.append(f"  {demo_parts.cli(self.address)} status")
        return "\n".join([*text, ""])


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def install(extra: str) -> str:
    return f"run: {demo_parts.python()} -m pip install 'django-snakepit[{extra}]'"


def elsewhere(*others: str) -> str:
    """How to choose another directory: by the environment for the bundled site, else in the settings."""
    names = ", ".join(("SNAKEPIT['RUNTIME_DIR']", *others))
    variables = ", ".join(("SNAKEPIT_RUNTIME_DIR", *(f"SNAKEPIT_{name}" for name in others)))
    return f"set {names} in the settings ({variables} in the environment, where the site is Snakepit's own)"


@contextlib.contextmanager
def claim(*directories: Path) -> Iterator[None]:
    """Lock these directories against another `up` for the life of this process, however it ends."""
    with contextlib.ExitStack() as locks:
        for directory in dict.fromkeys(directories):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                file = locks.enter_context((directory / "up.lock").open("a+"))
            except OSError as error:
                raise Problem(f"{directory} cannot be used: {error.strerror}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                way = elsewhere("STATE_DIR")
                raise Problem(
                    f"snakepit up already runs in {directory} (pid {holder}); stop it first, or {way}"
                ) from None
            locks.callback((directory / "up.lock").unlink, missing_ok=True)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield
