"""Workers that run as another, weaker user; and what workers of the broker's own user can read of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.diagnostics import protection
from snakepit.pools.diagnostics.security_facts import BrokerProcessFacts
from tests.brokers import PATIENCE, ROOT, RunningBroker, broker, wait_gone
from tests.conftest import unavailable

OTHER, THIRD = 65_534, 65_533  # numbers need no account
UNREACHED = "OSError OSError"  # for a connection, and for a datagram
PACKAGES = ("grpclib", "h2", "hpack", "hyperframe", "multidict", "google", "prometheus_client", "psutil")
POOLS: dict[str, dict[str, Any]] = {
    "spawned": {"adapter": "spy", "size": 1},
    "threads": {"adapter": "spy", "size": 1, "profile": "thread", "threads": 2},
    "forked": {"adapter": "preloaded_spy", "size": 1},
}
CLOSED = {"closed": {"adapter": "spy", "size": 1, "sandbox": {"network": "none", "paths": []}}}
SECRETS = {"DJANGO_SECRET_KEY": "s3cret-of-django", "SHOP_DB": "postgres://shop:s3cret-of-db@db/shop"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="users are changed on Linux")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A copy of what a broker and its workers import, where each user can read it."""
    if os.geteuid():
        unavailable("only root can start processes of another user")
    with tempfile.TemporaryDirectory(prefix="sp-code-", dir="/tmp") as home:
        os.chmod(home, 0o755)
        shutil.copytree(
            ROOT / "snakepit", Path(home, "snakepit"), ignore=shutil.ignore_patterns("__pycache__", "static")
        )
        shutil.copytree(ROOT / "tests", Path(home, "tests"), ignore=shutil.ignore_patterns("__pycache__", "process"))
        site = Path(sysconfig.get_path("purelib"))
        for name in PACKAGES:
            shutil.copytree(site / name, Path(home, name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(site / "typing_extensions.py", home)
        yield Path(home)


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter of this version that each user can run."""
    name = f"python3.{sys.version_info.minor}"
    for path in (os.path.realpath(sys.executable), f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
        with contextlib.suppress(OSError):
            subprocess.run([path, "-c", ""], user=OTHER, cwd="/", check=True)
            return path
    unavailable(f"each {name} here is closed to other users")
    raise AssertionError


def options(place: Path, python: str, **environ: str) -> dict[str, Any]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(place), "HOME": "/root", **SECRETS, **environ}
    environment["TMPDIR"] = tempfile.mkdtemp(dir=place)
    os.chmod(environment["TMPDIR"], 0o1777)
    run = {name: os.environ[name] for name in ("TEST_RUN", "TEST_RUN_DIRECTORY") if name in os.environ}
    return {"root": place, "command": (python,), "env": environment | run}


def measure(node: RunningBroker) -> None:
    """Wait until the memory of each worker, and of the template, has been read. Each look is a round trip."""
    node.client.sweep("test", 3600)
    while True:
        found = node.status()
        sizes = [worker.memory_mb for worker in found.workers if worker.state == "ready"]
        sizes += [pool.template.memory_mb for pool in found.pools if pool.template.pid]
        if sizes and all(size > 0 for size in sizes):
            return


def of_broker(node: RunningBroker, *more: Path) -> list[str]:
    proc = f"/proc/{node.process.pid}"
    paths = [f"{proc}/{name}" for name in ("environ", "mem", "maps", "fd", "auxv")]
    return [*paths, *(str(path) for path in (node.runtime, node.runtime / "token", node.runtime / "instance", *more))]


@pytest.fixture(scope="module")
def separated(place: Path, python: str) -> Iterator[RunningBroker]:
    """A broker of root whose workers run as another user."""
    given = options(place, python, WORKER_USER=str(OTHER), WORKER_GROUPS=str(THIRD))
    with broker(POOLS | CLOSED, **given) as node:
        for pool in POOLS | CLOSED:
            node.ready(pool)
        yield node
    assert os.listdir(given["env"]["TMPDIR"]) == []


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_of_another_user_reads_nothing_of_the_broker(separated: RunningBroker, pool: str) -> None:
    database = separated.runtime.parent / "db.sqlite3"  # in a directory as the site makes it
    database.write_text("rows")
    paths = of_broker(separated, database)
    seen = separated.client.call(pool, "look", paths=paths)
    assert seen == dict.fromkeys(paths, "PermissionError")
    socket = str(separated.runtime / "broker.sock")
    reached = separated.client.call(pool, "reach", address=socket, pid=separated.process.pid)
    assert reached == {"connect": "PermissionError", "signal": "PermissionError"}


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_has_the_user_the_groups_and_no_rights(separated: RunningBroker, pool: str) -> None:
    me = separated.client.call(pool, "me")
    assert me["Uid"] == me["Gid"] == [str(OTHER)] * 4
    assert me["Groups"] == [str(THIRD)]
    assert me["NoNewPrivs"] == ["1"]
    assert {bits for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") for bits in me[key]} == {"0" * 16}
    assert not set(SECRETS) & set(me["env"])
    assert all("/snakepit-workers-0-" in name for name in me["files"])


def test_a_worker_of_another_user_leaves_the_network_without_a_right(separated: RunningBroker) -> None:
    me = separated.client.call("closed", "me")
    assert me["Uid"] == me["Gid"] == [str(OTHER)] * 4
    assert {bits for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") for bits in me[key]} == {"0" * 16}
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert separated.client.call("closed", "connect", host="127.0.0.1", port=server.getsockname()[1]) == UNREACHED
        assert separated.client.call("spawned", "connect", host="127.0.0.1", port=server.getsockname()[1]) == "None 1"
    paths = ["/etc/passwd", str(separated.runtime), *of_broker(separated)]
    assert separated.client.call("closed", "look", paths=paths) == dict.fromkeys(paths, "PermissionError")


def test_the_security_checks_show_the_workers_user_and_what_it_can_read(separated: RunningBroker) -> None:
    found = protection.workers(separated.status())
    assert len(found) == len(POOLS | CLOSED)
    assert [one.shares_network for one in found if one.network_closed] == [False]
    assert {(one.uid, one.no_new_privs, one.capabilities) for one in found} == {(OTHER, True, 0)}
    assert not protection.can_read(separated.runtime / "token", OTHER, {OTHER, THIRD})
    shown = protection.broker_process(separated.status())
    assert isinstance(shown, BrokerProcessFacts)
    assert (shown.process.uid, shown.closed, shown.secrets) == (0, None, ())


def test_the_broker_looks_after_workers_of_another_user(separated: RunningBroker) -> None:
    measure(separated)
    for pool in POOLS:
        before = separated.pids(pool)
        assert separated.client.dump(separated.status(pool).workers[0].id).threads
        separated.client.recycle(pool)
        separated.ready(pool, 2)
        assert all(wait_gone(pid, PATIENCE) for pid in before)
        assert separated.client.call(pool, "me")["Uid"][0] == str(OTHER)


def test_an_interpreter_that_the_user_cannot_run_is_named(place: Path, python: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "python").symlink_to(python)
    pools = {"closed": {**POOLS["spawned"], "python": str(tmp_path / "python")}}
    with broker(pools, **options(place, python, WORKER_USER=str(OTHER))) as node:
        failed = node.until("worker.died", pool="closed")
        said = (
            f"user {OTHER} (SNAKEPIT['WORKER_USER']) cannot run {tmp_path / 'python'}: Permission denied; let it read"
        )
        assert said in failed["message"]


def test_a_killed_broker_leaves_no_worker_of_another_user(place: Path, python: str) -> None:
    with broker(POOLS, **options(place, python, WORKER_USER=str(OTHER))) as node:
        for pool in POOLS:
            node.ready(pool)
        pids = node.pids()
        assert len(pids) == len(POOLS)
        node.stop(signal.SIGKILL)
        assert all(wait_gone(pid, PATIENCE) for pid in pids)


def test_a_broker_with_capabilities_gives_its_workers_none(place: Path, python: str) -> None:
    """As systemd's AmbientCapabilities do it: the broker is not root, and its children would inherit them."""
    if not shutil.which("setpriv"):
        unavailable("setpriv is not installed")
    needed = "+chown,+dac_override,+kill,+setgid,+setuid,+sys_ptrace"
    given = options(place, python, WORKER_USER=str(OTHER))
    caps = ("--inh-caps", needed, "--ambient-caps", needed, "--bounding-set", f"-all,{needed}")
    given["command"] = ("setpriv", "--reuid", str(THIRD), "--regid", str(THIRD), "--clear-groups", *caps, python)
    with broker(POOLS, owner=THIRD, **given) as node:
        for pool in POOLS:
            node.ready(pool)
            me = node.client.call(pool, "me")
            assert me["Uid"] == [str(OTHER)] * 4
            assert {bits for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") for bits in me[key]} == {"0" * 16}
            paths = of_broker(node)
            assert node.client.call(pool, "look", paths=paths) == dict.fromkeys(paths, "PermissionError")
        measure(node)
        node.stop(signal.SIGKILL)  # its reaper has the capabilities that it needs


def test_workers_of_the_same_user_read_no_memory_and_no_secret_of_the_broker(place: Path, python: str) -> None:
    pools = POOLS | CLOSED
    with broker(pools, owner=OTHER, **options(place, python), user=OTHER, group=OTHER, extra_groups=()) as node:
        node.ready("closed")
        assert node.client.dump(node.status("closed").workers[0].id).threads
        paths = of_broker(node)
        assert node.client.call("closed", "look", paths=paths) == dict.fromkeys(paths, "PermissionError")
        for pool in POOLS:
            node.ready(pool)
            paths = of_broker(node)[:5]
            assert node.client.call(pool, "look", paths=paths) == dict.fromkeys(paths, "PermissionError")
            token = str(node.runtime / "token")
            assert node.client.call(pool, "look", paths=[token])[token] == (node.runtime / "token").read_text()
            assert not set(SECRETS) & set(node.client.call(pool, "me")["env"])
            assert node.client.dump(node.status(pool).workers[0].id).threads
        shown = protection.broker_process(node.status())
        assert isinstance(shown, BrokerProcessFacts)
        assert (shown.process.uid, shown.closed, shown.secrets) == (OTHER, True, ())
        measure(node)


def test_the_environment_of_a_broker_shows_no_secret_even_to_root(place: Path, python: str) -> None:
    with broker({"spawned": POOLS["spawned"]}, **options(place, python)) as node:
        node.ready("spawned")
        shown = Path(f"/proc/{node.process.pid}/environ").read_bytes()
        assert b"DJANGO_SECRET_KEY=\0" in shown
        assert b"PATH=/usr/bin:/bin\0" in shown
        assert b"s3cret" not in shown


@pytest.mark.parametrize(
    ("environ", "user", "words"),
    [
        ({"WORKER_USER": "0"}, 0, "is root or the broker's own user"),
        ({"WORKER_USER": str(OTHER)}, OTHER, "is root or the broker's own user"),
        ({"WORKER_USER": "no-such-user"}, 0, "this machine has no user 'no-such-user'"),
        ({"WORKER_USER": str(OTHER), "WORKER_GROUPS": "no-such"}, 0, "this machine has no group 'no-such'"),
        ({"WORKER_USER": str(THIRD)}, OTHER, "it lacks CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID"),
    ],
)
def test_a_user_that_workers_cannot_have_is_refused_at_the_start(
    place: Path, python: str, environ: dict[str, str], user: int, words: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as home:
        os.chown(home, user, user)
        node = RunningBroker({}, Path(home), 3600, **options(place, python, **environ), user=user, group=user)
        assert node.process.wait(PATIENCE) == 1
        assert words in node.errors.read_text()
        node.stop()
