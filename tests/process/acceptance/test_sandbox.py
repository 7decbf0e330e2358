"""Workers whose pool closes the network and files: spawned, with threads, and forked by a template."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.diagnostics import protection
from snakepit.workers.process import sandbox
from tests.brokers import PATIENCE, ROOT, RunningBroker, broker, wait_gone
from tests.conftest import unavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's means are those of Linux")
UNREACHED = "OSError OSError"  # ENETUNREACH, for a connection and for a datagram
TRY = """
import sys
from snakepit.workers.process import sandbox
from snakepit.workers.process.boot import SandboxBoot
try:
    {before}
    sandbox.enter(SandboxBoot(network=True))
except sandbox.SandboxUnavailable as error:
    print(error)
else:
    print("closed")
"""
# In a user namespace of its own a process may set the limit of network namespaces.
WITHOUT = """import ctypes, os
    ids = os.geteuid(), os.getegid()
    assert ctypes.CDLL(None).unshare(sandbox.CLONE_NEWUSER) == 0
    sandbox._keep_ids(*ids)
    open("/proc/sys/user/max_net_namespaces", "w").write("0")"""


def tried(before: str) -> str:
    command = [sys.executable, "-c", TRY.format(before=before)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A folder to read, one to write, and one that no pool names."""
    if sandbox._landlock_version() < sandbox.OLDEST or tried("pass") != "closed":
        unavailable("this kernel lets no process leave its network and files")
    with tempfile.TemporaryDirectory(prefix="sp-paths-", dir="/tmp") as home:
        for name in ("read", "write", "other"):
            Path(home, name).mkdir()
            Path(home, name, "file").write_text(name)
        yield Path(home)


@pytest.fixture(scope="module")
def closed(files: Path) -> Iterator[RunningBroker]:
    limits = {"network": "none", "paths": [f"{files}/read", f"{files}/write:rw"]}
    pools: dict[str, dict[str, Any]] = {
        "spawned": {"adapter": "spy", "size": 1, "sandbox": limits},
        "threads": {"adapter": "spy", "size": 1, "profile": "thread", "threads": 2, "sandbox": limits},
        "forked": {"adapter": "preloaded_spy", "size": 1, "sandbox": limits},
        "open": {"adapter": "spy", "size": 1},
        "wrong": {"adapter": "spy", "size": 1, "boot_budget": 1, "sandbox": {"paths": [f"{files}/missing"]}},
    }
    with broker(pools) as node:
        for pool in ("spawned", "threads", "forked", "open"):
            node.ready(pool)
        yield node
        pids = node.pids()
        node.stop(signal.SIGKILL)
        assert all(wait_gone(pid, PATIENCE) for pid in pids)  # a namespace must not take the parent-death signal away


POOLS = ("spawned", "threads", "forked")


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_reads_and_writes_only_the_paths_of_its_pool(closed: RunningBroker, files: Path, pool: str) -> None:
    refused = [
        "/etc/passwd", "/", str(Path.home()), str(closed.runtime), str(closed.runtime / "token"),
        f"/proc/{closed.process.pid}/environ", f"/proc/{closed.process.pid}/root/etc",
        f"{files}/other/file", str(ROOT / "README.md"),
    ]  # fmt: skip
    assert closed.client.call(pool, "look", paths=refused) == dict.fromkeys(refused, "PermissionError")
    assert closed.client.call(pool, "look", paths=[f"{files}/read/file"]) == {f"{files}/read/file": "read"}
    denied = "PermissionError PermissionError PermissionError"
    for name in ("read/file", "other/file"):
        assert closed.client.call(pool, "write", path=f"{files}/{name}") == denied
    assert closed.client.call(pool, "write", path=f"{files}/write/new-{pool}") == "None None None"


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_has_no_network_no_rights_and_its_own_temporary_files(closed: RunningBroker, pool: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = {"host": "127.0.0.1", "port": server.getsockname()[1]}
        assert closed.client.call(pool, "connect", **place) == UNREACHED
        assert closed.client.call("open", "connect", **place) == "None 1"
    assert closed.client.call(pool, "reach", address="/none", pid=closed.process.pid)["signal"] == "PermissionError"
    me = closed.client.call(pool, "me")  # it makes a temporary file
    assert me["NoNewPrivs"] == ["1"]
    assert {bits for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") for bits in me[key]} == {"0" * 16}


def test_status_and_security_checks_show_what_is_closed(closed: RunningBroker) -> None:
    found = {one.name.rpartition("-")[0].split("-")[0]: one for one in protection.workers(closed.status())}
    for pool in POOLS:
        assert found[pool].sandbox == f"network, files (Landlock {sandbox._landlock_version()})"
        assert found[pool].network_closed
        assert found[pool].files_closed
        assert found[pool].shares_network is False
    assert not found["open"].sandbox
    assert found["open"].shares_network is True
    assert closed.status("forked").workers[0].template


def test_a_pool_that_cannot_be_closed_fails_with_the_reason(closed: RunningBroker, files: Path) -> None:
    closed.until("pool.failed", pool="wrong")
    (status,) = closed.status("wrong").pools
    assert status.state == "failed"
    assert f"SandboxUnavailable: sandbox: paths: {files}/missing does not exist" in status.reason
    assert not status.ready


def test_a_machine_that_forbids_namespaces_is_refused_with_the_reason(files: Path) -> None:
    said = tried(WITHOUT)
    assert said.startswith("sandbox: network: this worker cannot leave the network (")
    assert "take 'network' out of the pool's sandbox" in said
