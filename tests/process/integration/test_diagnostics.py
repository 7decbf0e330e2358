"""The doctor's facts from the real world: this machine, interpreters, databases, Valkey; and its surfaces."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from snakepit.pools import conf
from snakepit.pools.adapters.processes.orphans import ReaperProcess
from snakepit.pools.adapters.runtime_directory import RuntimeDirectory
from snakepit.pools.api import diagnostics as page
from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.cli.main import run
from snakepit.pools.diagnostics import doctor, interpreters, latest, machine, services
from snakepit.pools.diagnostics import security as protection
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.diagnostics.finding import DoctorReport, Finding, FindingStatus, report_of
from snakepit.pools.jobs.bounded_thread import BoundedThread
from snakepit.pools.models import ApiKey, Job, Node, Pool
from tests.process.integration.conftest import ADAPTERS
from tests.process.integration.fakes import FakeClient
from tests.statuses import status

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    latest.forget()
    monkeypatch.setitem(interpreters.ask.__kwdefaults__, "patience", 300.0)  # for a slow machine
    yield
    latest.forget()


# Interpreters and adapters


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "good.py").write_text(
        "import os\nfrom snakepit import Adapter, command\nprint('noise')\n"
        "class Good(Adapter):\n    thread_safe = True\n    @command\n    def a(self) -> int: ...\n"
    )
    (tmp_path / "bad.py").write_text("raise RuntimeError('no model')\n")
    (tmp_path / "leaves.py").write_text("import os\nprint('bye')\nos._exit(7)\n")
    (tmp_path / "hangs.py").write_text(
        "import os, subprocess, sys, signal\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\nsignal.pause()\n"
    )
    return tmp_path


def test_an_adapter_is_imported_as_a_worker_would_and_leaves_no_byte_code(place: Path) -> None:
    found = interpreters.adapter("", "good.Good", (str(place),), {}, ())
    assert (found.thread_safe, found.commands, found.error) == (True, 1, "")
    assert not (place / "__pycache__").exists()


def test_an_adapter_that_raises_ends_or_is_missing_is_an_error_with_its_cause(place: Path) -> None:
    def error(path: str) -> str:
        return interpreters.adapter("", path, (str(place),), {}, ()).error

    assert "no model" in error("bad.Bad")
    assert error("leaves.Leaves") == "exit code 7: bye"
    assert "nowhere" in error("nowhere.Adapter")


def test_an_import_that_hangs_is_ended_with_all_that_it_started(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.brokers import wait_gone

    monkeypatch.setitem(interpreters.ask.__kwdefaults__, "patience", 3.0)
    found = interpreters.adapter("", "hangs.Hangs", (str(place),), {}, ())
    assert found.error == "no answer within 3 s"
    assert wait_gone(int((place / "child").read_text()), 10.0)


def test_an_adapter_sees_no_secret_of_this_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "nosy.py").write_text("import os\nraise RuntimeError(sorted(k for k in os.environ if 'API' in k))\n")
    monkeypatch.setenv("MY_API_KEY", "secret")
    monkeypatch.setenv("OPEN_API", "1")
    error = interpreters.adapter("", "nosy.Nosy", (str(place),), {"API": "1"}, ("OPEN_*",)).error
    assert "['API', 'OPEN_API']" in error


# The machine


def test_limits_are_those_of_the_process_that_is_asked_for() -> None:
    child = subprocess.Popen(
        ["/bin/sh", "-c", "ulimit -n 77; echo; exec sleep 1000"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert child.stdout
        child.stdout.readline()
        found = machine.machine(child.pid)
        assert (found.of, found.open_files) == ("the broker", 77)
    finally:
        child.kill()
        child.communicate()
    own = machine.machine(0)
    assert own.of == "this process"
    assert own.cores >= 1
    assert own.memory_total_mb > own.memory_available_mb > 0


def test_a_worker_whose_broker_is_gone_is_an_orphan() -> None:
    env = {"SNAKEPIT_INSTANCE": "f" * 32, "SNAKEPIT_WORKER": "p-ffff-1", "PATH": os.environ["PATH"]}
    child = subprocess.Popen(["/bin/sh", "-c", "echo; exec sleep 1000"], env=env, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        assert child.pid in machine.orphans()
    finally:
        child.kill()
        child.communicate()
    assert child.pid not in machine.orphans()


def test_a_worker_whose_broker_has_its_reaper_is_no_orphan(tmp_path: Path) -> None:
    runtime = RuntimeDirectory(tmp_path / "run")
    runtime.open()
    guard = ReaperProcess(runtime)
    env = {"SNAKEPIT_INSTANCE": runtime.instance, "SNAKEPIT_WORKER": "p-ffff-1", "PATH": os.environ["PATH"]}
    child = subprocess.Popen(["/bin/sh", "-c", "echo; exec sleep 1000"], env=env, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        assert child.pid not in machine.orphans()
    finally:
        child.kill()
        child.communicate()
        guard.close()
        runtime.close()


def test_the_runtime_directory_is_described_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "a" / "run"
    found = machine.runtime(missing)
    assert not found.directory.exists
    assert not missing.parent.exists()
    assert found.rooms[0].total > 0
    missing.mkdir(parents=True, mode=0o755)
    missing.chmod(0o755)
    assert machine.runtime(missing).directory.mode == 0o755


# The database and the message transport


@pytest.mark.django_db(transaction=True)
def test_the_database_is_asked_for_mode_rows_and_keys(django_user_model: Any) -> None:
    ada = django_user_model.objects.create_user("ada")
    now = timezone.now()
    ApiKey.create(name="soon", owner=ada, expires_at=now + timedelta(days=2))
    ApiKey.create(name="gone", owner=ada)[0].revoke()
    Node.objects.create(name="n1", pid=7, address="/run/b", seen_at=now - timedelta(seconds=30))
    Job.objects.create(pool="digits", command="echo")
    Job.objects.create(pool="digits", command="echo", run_after=now + timedelta(hours=1))
    found = services.database()
    assert not isinstance(found, Unknown)
    assert found.unapplied == ()
    if found.vendor == "sqlite":
        assert (found.journal, found.immediate, found.timeout) == ("wal", True, 20.0)
        assert found.drift is None
    else:
        assert found.drift is not None
        assert abs(found.drift) < 5
        assert 0 < found.connections <= found.most_connections
    ((key,), (node,)) = found.keys, found.nodes
    assert key.name == "soon"
    assert 1.9 < (key.days_left or 0) < 2.1
    assert 29 < node.silent < 60
    assert found.jobs_overdue == 1
    assert found.jobs_oldest < 60


def test_a_sqlite_file_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        vendor = "sqlite"
        settings_dict = {"NAME": str(tmp_path / "none.sqlite3")}

        def is_in_memory_db(self) -> bool:
            return False

    monkeypatch.setattr(services, "connections", {"default": Absent()})
    found = services.database()
    assert isinstance(found, Unknown)
    assert "manage.py migrate" in found.reason
    assert not list(tmp_path.iterdir())


def app_at(url: str) -> Any:
    from celery import Celery

    from snakepit.pools.celery_setup import transport_options

    app = Celery("doctor", broker=url, set_as_current=False)
    app.conf.update(broker_transport_options=transport_options(url), accept_content=["json"])
    return app


def test_a_message_transport_that_is_away_is_an_error_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        port = taken.getsockname()[1]
        monkeypatch.setattr(services.messages, "celery_app", lambda: app_at(f"redis://:secret@127.0.0.1:{port}/0"))
        found = services.transport()
    assert not isinstance(found, Unknown)
    assert "refused" in found.error
    assert "secret" not in found.url + found.error


def test_a_message_transport_that_is_frozen_holds_the_report_for_one_short_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services, "pinger", BoundedThread("doctor-test", "message transport", 0.2))
    monkeypatch.setattr(services, "_ask", lambda *_: pytest.fail("it has not answered a shorter question"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel accepts connections, and nothing answers
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        monkeypatch.setattr(services.messages, "celery_app", lambda: app_at(address))
        found = services.transport()
    assert not isinstance(found, Unknown)
    assert found.error == "the message transport did not answer within 0.2 s"


def test_messages_as_files_cannot_be_asked_for_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from celery import Celery

    monkeypatch.setattr(
        services.messages, "celery_app", lambda: Celery("files", broker="filesystem://", set_as_current=False)
    )
    found = services.transport()
    assert not isinstance(found, Unknown)
    assert isinstance(found.workers, Unknown)
    assert not list(tmp_path.iterdir())


# The whole


def away() -> Any:
    raise BrokerUnreachable("No broker answers.", outcome="not_started")


@pytest.mark.django_db(transaction=True)
def test_an_examination_of_a_site_without_a_broker_finds_that_and_judges_the_rest(settings: Any) -> None:
    settings.SNAKEPIT = {"ADAPTERS": {**ADAPTERS, "bad": "no_such_package.Adapter"}}
    conf.forget()
    Pool.objects.create(name="digits", adapter="digits", size=1)
    Pool.objects.create(name="primes", adapter="primes", size=1, profile="thread", threads=2)
    Pool.objects.create(name="broken", adapter="bad", size=1)
    Pool.objects.create(name="idle", adapter="bad", size=1, enabled=False)
    Pool.objects.create(name="old", adapter="digits", size=1, python="3.11t")
    report = doctor.examine(away, "/run/none.sock")
    found = {(one.check, one.pool): one for one in report.findings}
    assert found["broker", ""].status == FindingStatus.PROBLEM
    assert found["migrations", ""].status == FindingStatus.OK
    assert found["adapter", "digits"].status == FindingStatus.OK
    assert found["adapter", "primes"].status == FindingStatus.OK
    assert "no_such_package" in found["adapter", "broken"].evidence
    assert ("adapter", "idle") not in found
    assert "no Python 3.11t is on this node" in found["interpreter", "old"].evidence
    assert found["adapter", "old"].status == FindingStatus.SKIPPED
    assert not report.healthy


@pytest.mark.parametrize("security", [False, True])
def test_a_report_has_the_name_of_the_broker_or_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, settings: Any, security: bool
) -> None:
    module: Any = protection if security else doctor
    monkeypatch.setattr(module, "CHECKS", ())
    monkeypatch.setattr(module, "gather", lambda ask, *_: SimpleNamespace(broker=ask()))

    def examined(ask: Any) -> str:
        return str((module.examine(ask) if security else module.examine(ask, "")).node)

    settings.SNAKEPIT = {"NODE_NAME": "web-1"}
    conf.forget()
    assert examined(lambda: status([], name="gpu-1")) == "gpu-1"
    monkeypatch.setattr(module, "gather", lambda *_: SimpleNamespace(broker=Unknown("away")))
    assert examined(away) == "web-1"
    settings.SNAKEPIT = {"POOL": {}}
    conf.forget()
    assert examined(away) == socket.gethostname()


def test_wrong_settings_are_reported_and_nothing_else_is_examined(settings: Any) -> None:
    settings.SNAKEPIT = {"POOL": {}}
    conf.forget()
    report = doctor.examine(away, "")
    assert report.findings[0].status == FindingStatus.PROBLEM
    assert "did you mean" in report.findings[0].evidence


def test_a_report_is_cached_for_requests_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def examine(status: Any, address: str) -> DoctorReport:
        asked.append(address)
        return report_of(1.0, 0.1, [])

    monkeypatch.setattr(latest, "examine", examine)
    threads = [threading.Thread(target=latest.latest, args=(dict, "a")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["a"]
    latest.latest(dict, "b")
    assert asked == ["a", "b"]
    monkeypatch.setattr(latest, "KEPT", -1.0)
    latest.latest(dict, "b")
    assert asked == ["a", "b", "b"]


# REST and shell

FINDINGS = [
    Finding("broker", FindingStatus.OK, "it answers"),
    Finding("adapter", FindingStatus.PROBLEM, "primes cannot be imported", "mend it", "primes"),
]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report_of(1e9, 0.25, FINDINGS, "gpu-1")
    monkeypatch.setattr(page, "latest", lambda status, address: found)
    monkeypatch.setattr(doctor, "examine", lambda status, address: found)


@pytest.mark.django_db
@pytest.mark.usefixtures("report")
def test_the_api_shows_what_the_caller_may_see(client: Client, broker: FakeClient, make_key: Any) -> None:
    def get(key: str) -> Any:
        return client.get("/api/diagnostics", headers={"Authorization": key})

    shown = get(make_key("view")).json()
    assert (shown["node"], shown["at"], shown["healthy"], len(shown["findings"])) == ("gpu-1", 1e9, False, 2)
    assert shown["counts"] == {"ok": 1, "warning": 0, "problem": 1, "skipped": 0}
    assert shown["findings"][1] == {
        "check": "adapter", "status": "problem", "evidence": "primes cannot be imported", "fix": "mend it",
        "pool": "primes",
    }  # fmt: skip
    narrow = get(make_key("view", pools=["digits"])).json()
    assert [one["check"] for one in narrow["findings"]] == ["broker"]
    assert narrow["healthy"]
    assert get(make_key("run")).status_code == 403


@pytest.mark.django_db
def test_a_key_for_one_pool_reads_no_name_of_another(
    client: Client, broker: FakeClient, make_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pool.objects.create(name="salaries", adapter="digits", size=1)
    findings = (
        Finding("names", FindingStatus.OK, "2 pools: digits, salaries"),
        Finding("broker", FindingStatus.OK, "it answers"),
        Finding("adapter", FindingStatus.OK, "loads", pool="digits"),
    )
    found = report_of(1e9, 0.25, findings)
    monkeypatch.setattr(doctor, "examine", lambda status, address: found)
    monkeypatch.setattr(page, "latest", lambda status, address: found)
    answer = client.get("/api/diagnostics", headers={"Authorization": make_key("view", pools=["digits"])})
    assert [one["check"] for one in answer.json()["findings"]] == ["broker", "adapter"]
    assert client.get("/api/diagnostics").status_code == 401


@pytest.mark.usefixtures("report")
def test_the_shell_prints_the_list_and_its_exit_code_reports_a_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ok       broker: it answers\n" in out
    assert "problem  adapter of primes: primes cannot be imported\n         fix: mend it\n" in out
    assert "Problems found. Host of node gpu-1: 1 ok, 1 problem; took 0.2 s, started and changed nothing." in out
    assert run(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["problem"] == 1


def test_no_problem_is_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda status, address: report_of(1.0, 0.1, FINDINGS[:1]))
    assert run(["doctor"]) == 0
