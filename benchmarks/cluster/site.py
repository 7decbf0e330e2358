"""The programs of each host: a broker, a Celery worker and perhaps the web server."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.cluster import servers
from benchmarks.cluster.network import CALLERS, CLIENT, HOSTS, PATIENCE, SERVICES, Host, Network
from tests import guardian
from tests.certificates import Authority

PORT, WEB_PORT = 7443, 8000
GPU = HOSTS[2]  # the host with gpu=yes
LEVEL = "warning"


class Site:
    """Hosts with their programs."""

    def __init__(self, network: Network, home: Path, *, demo: bool) -> None:
        self.network, self.home, self.demo = network, home, demo
        self.brokers: dict[str, subprocess.Popen[bytes]] = {}
        self._log: IO[bytes] = (home / "programs.log").open("ab")
        self._secret = secrets.token_urlsafe(40)
        (home / "tls").mkdir()
        self._authority = Authority(home / "tls")
        self._client = self._authority.issue(CLIENT)
        self._certificates = {
            host: self._authority.issue(f"{host.name}.cluster", address=host.address) for host in HOSTS
        }

    def environment(self, host: Host | None = None) -> dict[str, str]:
        """The variables of a host's programs; without a host, those of a program on this machine."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEPIT_", "DJANGO_"))}
        name = host.name if host else "here"
        cert, key = self._client
        found = plain | {
            "DJANGO_SETTINGS_MODULE": "benchmarks.cluster.settings",
            "SNAKEPIT_SECRET_KEY": self._secret,
            "SNAKEPIT_STATE_DIR": str(self.home / f"state-{name}"),
            "SNAKEPIT_RUNTIME_DIR": str(self.network.own),
            "SNAKEPIT_NODE_NAME": name,
            "SNAKEPIT_DATABASE_URL": servers.DATABASE_URL,
            "SNAKEPIT_REDIS_URL": servers.REDIS_URL,
            "SNAKEPIT_DEMO": "1" if self.demo else "0",
            "SNAKEPIT_LOG_LEVEL": LEVEL,
            "SNAKEPIT_TLS_CA": str(self._authority.path),
            "SNAKEPIT_TLS_CERT": cert,
            "SNAKEPIT_TLS_KEY": key,
        }
        if host in self._certificates:
            cert, key = self._certificates[host]
            found |= {
                "SNAKEPIT_NODE_LABELS": "gpu=yes" if host == GPU else "",
                "SNAKEPIT_LISTEN": f"{host.address}:{PORT}",
                "SNAKEPIT_ADVERTISE": f"{host.address}:{PORT}",
                "SNAKEPIT_LISTEN_CERT": cert,
                "SNAKEPIT_LISTEN_KEY": key,
                "SNAKEPIT_LISTEN_CLIENT_CA": str(self._authority.path),
                "SNAKEPIT_ALLOWED_HOSTS": f"{host.address},localhost",
            }
        return found

    def run(self, host: Host, *words: str) -> subprocess.Popen[bytes]:
        """Start a Python program on a host."""
        return self.network.start(host, [sys.executable, *words], self.environment(host), self._log)

    def restart_brokers(self) -> None:
        """Start each broker that has ended, as a service manager does."""
        for host in HOSTS:
            if self.brokers[host.name].poll() is not None:
                self.start_broker(host)

    def start_broker(self, host: Host) -> None:
        self.brokers[host.name] = self.run(host, "-m", "snakepit.pools.cli", "broker")

    def kill_broker(self, host: Host) -> None:
        self.brokers[host.name].kill()
        self.brokers[host.name].wait(PATIENCE)

    def start(self) -> None:
        """Start everything but web servers. Django is set up in this process, as on a host without a broker."""
        import django
        from django.core.management import call_command

        os.environ |= self.environment()
        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        celery = ("-m", "celery", "--quiet", "-A", "snakepit.site.celery")
        for host in HOSTS:
            self.start_broker(host)
            worker = ("worker", "--pool", "threads", "--concurrency", "4", "-n", f"{host.name}@cluster")
            self.run(host, *celery, *worker, "--loglevel", LEVEL)
        schedule = str(self.home / "beat-schedule")
        self.run(SERVICES, *celery, "beat", "--pidfile=", "-s", schedule, "--loglevel", LEVEL)

    def start_web(self) -> None:
        words = ["-m", "uvicorn", "snakepit.pools.cli.web_app:application", "--lifespan", "off", "--no-access-log"]
        words += ["--http", "snakepit.site.http:Protocol", "--no-proxy-headers", "--log-level", LEVEL]
        for host in HOSTS:
            self.run(host, *words, "--host", host.address, "--port", str(WEB_PORT))
        for host in HOSTS:
            servers.await_port(host.address, WEB_PORT)

    def close(self) -> None:
        from django.db import connections

        connections.close_all()
        self._log.close()

    def call_from(self, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Start callers, on a host without a broker."""
        return self.run(CALLERS, "-m", "benchmarks.cluster.caller", *arguments)

    def await_workers(self, seconds: float = 4 * PATIENCE) -> None:
        """Wait until each pool has all its workers on each of its nodes."""
        from django.conf import settings

        from snakepit.pools.models import Worker

        expected = {
            (host.name, name): pool["size"]
            for host in HOSTS
            for name, pool in settings.SNAKEPIT["POOLS"].items()
            if not pool.get("nodes") or host == GPU
        }
        end, found = time.monotonic() + seconds, {}
        while time.monotonic() < end:
            found = dict.fromkeys(expected, 0)
            for place in Worker.objects.filter(state="ready").values_list("node__name", "pool"):
                found[place] = found.get(place, 0) + 1
            if found == expected:
                return
            time.sleep(0.2)
        raise RuntimeError(f"the workers are not ready: {found}; see {self.home / 'programs.log'}")


@contextmanager
def site(*, demo: bool) -> Iterator[Site]:
    """Three hosts with their programs, ready for calls. Afterwards no process and no namespace is left."""
    home = Path(guardian.directory(), "cluster")
    home.mkdir(mode=0o755)
    own = home / "run"
    own.mkdir()
    with Network(own) as network:
        servers.start(network, home)
        made = Site(network, home, demo=demo)
        try:
            made.start()
            made.await_workers()
            yield made
        finally:
            made.close()
