"""What a new broker ends of the one before it, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.adapters.processes import orphans, reaper
from snakepit.pools.adapters.runtime_directory import (
    RuntimeDirectory,
    RuntimeDirectoryError,
    machine_boot,
    pid_namespace,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

PATIENCE = 60.0  # a bound for a machine under load, never a wait


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as directory:
        yield Path(directory)


@contextmanager
def worker_of(instance: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries this token, as a worker does."""
    env = {**os.environ, "SNAKEPIT_INSTANCE": instance}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()  # its environment is not yet readable while the kernel loads the program
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@contextmanager
def successor(path: Path, **facts: Any) -> Iterator[int]:
    """A broker's start on a directory that holds these facts; gives the number of processes that it ended."""
    path.mkdir(mode=0o700, exist_ok=True)
    (path / "instance").write_text(json.dumps(facts))
    directory = RuntimeDirectory(path)
    directory.open()
    try:
        yield orphans.end_predecessors(directory)
    finally:
        directory.close()


def facts_of(directory: RuntimeDirectory) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((directory.path / "instance").read_text())
    return facts


def test_a_copy_of_a_running_brokers_instance_file_ends_none_of_its_workers(home: Path) -> None:
    running = RuntimeDirectory(home / "running")
    running.open()  # this process is that broker
    try:
        facts = facts_of(running)
        with worker_of(facts["instance"]) as worker, successor(home / "copy", **facts) as ended:
            assert ended == 0
            assert worker.poll() is None
    finally:
        running.close()


def test_the_workers_of_a_broker_that_is_gone_are_ended(home: Path) -> None:
    gone = RuntimeDirectory(home / "gone")
    gone.open()
    facts = facts_of(gone)
    gone.close()
    # The same number, started at another time, is another process.
    facts["started"] -= 1
    with worker_of(facts["instance"]) as worker, successor(home / "next", **facts) as ended:
        assert ended == 1
        assert worker.wait(PATIENCE) < 0


@pytest.mark.parametrize(
    "copied", [{"pids": "pid:[1]"}, {"pids": ""}, {"started": 0}, {"started": -1}, {"boot": ""}], ids=str
)
def test_a_broker_whose_process_cannot_be_checked_from_here_keeps_its_workers(
    home: Path, copied: dict[str, Any]
) -> None:
    """Its number means another process, for example in a container."""
    running = RuntimeDirectory(home / "running")
    running.open()
    facts = {**facts_of(running), "started": 1, **copied}
    try:
        with worker_of(facts["instance"]) as worker, successor(home / "copy", **facts) as ended:
            assert ended == 0
            assert worker.poll() is None
    finally:
        running.close()


@pytest.mark.parametrize("token", ["", "0" * 31, "*", None])
def test_a_token_that_no_broker_made_is_never_acted_on(home: Path, token: Any) -> None:
    facts = {"instance": token, "pid": 2**22, "started": 1, "boot": machine_boot(), "pids": pid_namespace()}
    with worker_of(token or "") as worker, successor(home / "next", **facts) as ended:
        assert ended == 0
        assert worker.poll() is None


def test_no_process_carries_an_empty_token() -> None:
    with worker_of("") as worker:
        assert reaper.carriers("") == []
        assert reaper.kill_carriers("") == 0
        assert worker.poll() is None


def odd_file(kind: str, path: Path) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text({"empty": "", "cut off": '{"instance": "ab', "nested": "[" * 200_000}[kind])


@pytest.mark.parametrize("kind", ["empty", "cut off", "nested", "directory", "pipe"])
def test_an_instance_file_that_no_broker_wrote_means_no_predecessor(home: Path, kind: str) -> None:
    directory = RuntimeDirectory(home / "odd")
    directory.path.mkdir(mode=0o700)
    odd_file(kind, directory.path / "instance")
    if kind == "directory":
        with pytest.raises(RuntimeDirectoryError, match="cannot be used as the runtime directory"):
            directory.open()
        return
    directory.open()
    assert directory.predecessor is None
    assert facts_of(directory)["instance"] == directory.instance
    directory.close()


def test_a_lock_that_is_no_file_is_refused_by_name(home: Path) -> None:
    directory = RuntimeDirectory(home / "odd")
    directory.path.mkdir(mode=0o700)
    odd_file("pipe", directory.path / "lock")
    with pytest.raises(RuntimeDirectoryError, match="cannot be used as the runtime directory"):
        directory.open()
