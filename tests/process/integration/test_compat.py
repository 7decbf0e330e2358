"""`snakepit compat` and its REST twin: real interpreters, what workers saw from the fake broker, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from snakepit.pools import conf
from snakepit.pools.broker.errors import BadRequest, PoolUnknown
from snakepit.pools.cli import compat as command
from snakepit.pools.cli.main import run
from snakepit.pools.compat import ask
from snakepit.pools.models import Pool
from tests.process.integration.fakes import FakeClient, unreachable

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pool(transactional_db: None) -> Pool:
    return Pool.objects.create(name="digits", adapter="digits", size=1, profile="thread", threads=2)


@pytest.fixture
def package(tmp_path: Path, settings: Any) -> Path:
    """A compiled package on the workers' path, by its metadata alone."""
    info = tmp_path / "own_ext-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-ext\nVersion: 1.0\n"
        "Classifier: Programming Language :: Python :: Free Threading :: 2 - Beta\n"
    )
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp314-cp314t-linux_x86_64\n")
    (info / "top_level.txt").write_text("own_ext\n")
    settings.SNAKEPIT = {**settings.SNAKEPIT, "WORKER_PATH": [str(tmp_path)]}
    conf.forget()
    return tmp_path


@pytest.mark.usefixtures("pool", "package")
def test_a_pools_interpreter_is_asked_for_its_packages_and_their_metadata(broker: FakeClient) -> None:
    found = ask.of_pool("digits", broker.status)
    rows = {one.name: one for one in found.verdicts}
    assert (found.title, found.profile, found.free_threaded) == ("pool digits", "thread", False)
    assert sys.executable in found.python
    assert rows["own-ext"].version == "1.0"
    assert rows["own-ext"].status == "unknown"
    assert rows["Django"].status == "conditional"
    assert "sqlite3" in rows
    assert found.left_out > 0


@pytest.mark.usefixtures("pool")
def test_a_broker_that_is_away_and_a_pool_without_workers_are_noted(broker: FakeClient) -> None:
    broker.error = unreachable()
    assert "unavailable: No broker answers" in ask.of_pool("digits", broker.status).note


@pytest.mark.usefixtures("pool")
def test_a_race_that_workers_saw_makes_a_pool_unsafe(
    broker: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.change_pool(races=("Digits.count",))
    found = ask.of_pool("digits", broker.status)
    assert (found.races, found.unsafe) == (("Digits.count",), True)
    monkeypatch.setattr(command, "connect", lambda address: broker)
    assert run(["compat", "digits"]) == 1
    assert "two threads wrote `Digits.count` without a lock" in capsys.readouterr().out


@pytest.mark.django_db
def test_an_unknown_pool_or_interpreter_is_refused_by_name(broker: FakeClient) -> None:
    with pytest.raises(PoolUnknown, match="nope"):
        ask.of_pool("nope", broker.status)
    with pytest.raises(BadRequest, match="not a key of SNAKEPIT"):
        ask.of_python("nope")


@pytest.mark.usefixtures("pool")
def test_the_api_reports_a_pool_for_the_scope_view(client: Client, broker: FakeClient, make_key: Any) -> None:
    def get(key: str, query: str = "pool=digits") -> Any:
        return client.get(f"/api/diagnostics/compat?{query}", headers={"Authorization": key})

    shown = get(make_key("view")).json()
    assert (shown["title"], shown["profile"]) == ("pool digits", "thread")
    assert {"name", "status", "reasons", "source", "checked"} <= set(shown["verdicts"][0])
    assert get(make_key("view"), "pool=nope").status_code == 404
    assert get(make_key("view"), "").status_code == 400
    assert get(make_key("run")).status_code == 403
    assert get(make_key("view", pools=["primes"])).status_code == 403


def test_a_requirements_file_with_something_unsafe_ends_with_1(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("httpx==0.28\nmatplotlib==3.10\n")
    assert run(["compat", "-r", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["status"]) for one in found["verdicts"]] == [("matplotlib", "unsafe"), ("httpx", "safe")]
    file.write_text("httpx==0.28\n")
    assert run(["compat", "-r", str(file)]) == 0
    out = capsys.readouterr().out
    assert "thread profile" in out
    assert "httpx" in out
    assert "1 library." in out


@pytest.mark.usefixtures("pool")
def test_the_shell_reports_a_pool_and_an_interpreter(
    broker: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "connect", lambda address: broker)
    assert run(["compat", "digits", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["title"] == "pool digits"
    assert run(["compat", "--python", "", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["title"] == "interpreter of this process"
    assert run(["compat", "nope"]) == 1  # as for every command
    assert "pool_unknown" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["digits", "-r", "x"], ["-r", "/no/such/file"], ["--python", "a", "-r", "b"]])
def test_wrong_usage_has_exit_code_2(words: list[str], capsys: Captured) -> None:
    assert run(["compat", *words]) == 2
    assert "bad_request" in capsys.readouterr().err


def test_a_python_that_is_no_key_is_wrong_usage_which_names_the_option_and_where_to_look(capsys: Captured) -> None:
    assert run(["compat", "--python", "9.9"]) == 2
    told = capsys.readouterr().err
    assert "--python '9.9' is not a key" in told
    assert "snakepit pythons" in told
