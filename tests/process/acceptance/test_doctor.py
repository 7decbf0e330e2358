"""The doctor beside a real broker and a real Celery worker: what it finds, and that it leaves everything as it was."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.adapters.processes.reaper import carriers
from tests.brokers import ROOT
from tests.process.acceptance.test_operator import Project
from tests.services import valkey

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with valkey() as url, tempfile.TemporaryDirectory(prefix="snakepit-doc-", dir="/tmp") as home:
        running = Project(Path(home))
        running.environment["SNAKEPIT_CELERY_URL"] = url
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.stop()
            running.log.close()


TRIES = 5  # of a question that a broker does not answer in time while the machine stops


def examine(project: Project) -> dict[tuple[str, str], dict[str, Any]]:
    """The doctor's findings by check and pool; its exit code fits them."""
    for _ in range(TRIES):
        done = project.run("doctor", "--json")
        assert done.returncode in (0, 1), done.stderr
        report = json.loads(done.stdout)
        assert report["healthy"] == (done.returncode == 0)
        found = {(one["check"], one["pool"]): one for one in report["findings"]}
        if "frozen or overloaded" not in found["broker", ""]["evidence"]:
            break
    return found


def consumer(project: Project) -> dict[str, Any]:
    found = examine(project)
    return found.get(("consumers", "digits")) or found["consumers", ""]


def rows(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables}


def files(directory: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.lstat() for path in directory.rglob("*")}
    return {path: (one.st_mode, 0 if path.endswith("log") else one.st_size) for path, one in found.items()}


def test_a_broker_that_runs_is_found_with_its_pools_and_no_process_is_added(project: Project) -> None:
    before = sorted(carriers(project.instance))
    found = examine(project)
    assert sorted(carriers(project.instance)) == before
    for check, pool in [("broker", ""), ("pool", "digits"), ("adapter", "digits"), ("orphans", ""), ("database", "")]:
        assert found[check, pool]["status"] == "ok", found[check, pool]
    assert found["limits", ""]["evidence"].startswith("the broker: ")
    assert found["consumers", ""]["status"] == "problem"
    assert found["clock", ""]["status"] == "ok"


def test_a_celery_worker_that_reads_the_pools_queue_is_a_consumer_and_one_that_does_not_is_none(
    project: Project, tmp_path: Path
) -> None:
    def consumers(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "celery", "-A", "snakepit.site", "worker", "--pool=threads", "--concurrency=1"]
        with (tmp_path / "log").open("wb") as log:
            worker = subprocess.Popen(
                [*command, "--without-mingle", "-n", "w@doctor", *words], cwd=ROOT, env=project.environment,
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            project.until(lambda: "w@doctor" in consumer(project)["evidence"], "the Celery worker")
            return consumer(project)
        finally:
            worker.kill()
            worker.wait()

    assert consumers()["status"] == "ok"
    elsewhere = consumers("-Q", "elsewhere")
    assert (elsewhere["status"], elsewhere["pool"]) == ("problem", "digits")


def test_a_doctor_leaves_rows_files_and_processes_as_they_were(project: Project) -> None:
    project.stop()
    home = project.runtime.parent
    before = rows(home / "state" / "db.sqlite3"), files(home)
    try:
        found = examine(project)
        after = rows(home / "state" / "db.sqlite3"), files(home)
        left, socket = carriers(project.instance), os.path.exists(project.runtime / "broker.sock")
    finally:
        project.start()  # the other tests of this module, which come in any order, need it
    assert after == before
    assert found["broker", ""]["status"] == "problem"
    assert "snakepit broker" in found["broker", ""]["fix"]
    assert found["duplicate brokers", ""]["status"] == "skipped"
    assert not left
    assert not socket


def test_the_security_checks_name_what_an_adapter_of_the_brokers_user_can_read(project: Project) -> None:
    done = project.run("doctor", "--security", "--json")
    report = json.loads(done.stdout)
    assert report["healthy"] == (done.returncode == 0)
    found = {(one["check"], one["status"]): one for one in report["findings"]}
    assert ("broker process", "problem") not in found
    assert f"run as the broker's user {os.geteuid()}" in found["worker user", "warning"]["evidence"]
    readable = [one["evidence"] for one in report["findings"] if one["check"] == "adapter code"]
    assert any("can read the token: " in one for one in readable)
    assert any("can read the database file: " in one for one in readable)
    assert found["runtime directory", "ok"]
    text = project.run("doctor", "--security").stdout
    assert "can read the token" in text
    assert "docs/explanation/trust.md" in text


def test_a_row_with_a_variable_that_no_list_allows_is_shown_and_the_pool_keeps_its_workers(project: Project) -> None:
    path, before = project.runtime.parent / "state" / "db.sqlite3", project.workers()

    def write(env: str) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            database.execute("UPDATE snakepit_pool SET env = ?", [env])
            database.commit()

    def status() -> dict[str, Any]:
        done = project.answered("status", "--json")  # its exit code reports the problem
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    write('{"OPENSSL_CONF": "/tmp/evil.cnf"}')
    try:
        project.until(lambda: status()["node"]["problems"], "the problem")
        found = status()
        assert "OPENSSL_CONF is not an allowed variable" in found["node"]["problems"][0]
        assert [worker["id"] for worker in found["workers"]] == before
        assert "OPENSSL_CONF" in examine(project)["pool", "digits"]["evidence"]
    finally:
        write("{}")
    project.until(lambda: not status()["node"]["problems"], "the pool's own definition")
    assert project.workers() == before
