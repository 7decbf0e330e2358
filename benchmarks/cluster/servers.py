"""PostgreSQL and a Redis server on the host `services`, for all other hosts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.cluster.network import NETWORK, PATIENCE, SERVICES, Network
from tests.services import as_postgres, postgres_programs, valkey_program

POSTGRESQL, REDIS = 5432, 6379
DATABASE_URL = f"postgresql://snakepit@{SERVICES.address}:{POSTGRESQL}/snakepit"
REDIS_URL = f"redis://{SERVICES.address}:{REDIS}/0"


def start(network: Network, home: Path) -> None:
    """Start both, and return when both accept connections."""
    data = home / "postgresql"
    data.mkdir()
    programs, prefix = postgres_programs(), as_postgres()
    if prefix:
        shutil.chown(data, "postgres", "postgres")
    accounts = ["-U", "snakepit", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"]
    subprocess.run(
        [*prefix, str(programs / "initdb"), "-D", str(data), *accounts], cwd=data, check=True, capture_output=True
    )
    with (data / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {NETWORK} trust\n")
    options = {
        "listen_addresses": SERVICES.address,
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "200",
    }
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEPIT_", "PG"))}
    with (home / "servers.log").open("ab") as log:
        network.start(SERVICES, [*prefix, str(programs / "postgres"), "-D", str(data), *words], plain, log)
        cache = [valkey_program(), "--bind", SERVICES.address, "--port", str(REDIS), "--protected-mode", "no"]
        network.start(SERVICES, [*cache, "--save", "", "--appendonly", "no", "--dir", str(home)], plain, log)
    for port in (POSTGRESQL, REDIS):
        await_port(SERVICES.address, port)
    _create_database()


def _create_database() -> None:
    import psycopg

    end = time.monotonic() + PATIENCE
    while True:
        try:
            with psycopg.connect(DATABASE_URL, dbname="postgres", autocommit=True) as connection:
                connection.execute("create database snakepit")
            return
        except psycopg.OperationalError:  # it still starts
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def await_port(address: str, port: int) -> None:
    """Wait until a server accepts connections."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((address, port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
