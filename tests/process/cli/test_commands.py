"""The command line against the fake broker: what is printed where, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from django.db import IntegrityError, OperationalError, ProgrammingError

from snakepit.pools.broker.errors import BadArguments
from snakepit.pools.cli.main import run
from snakepit.pools.cli.output import report_errors
from snakepit.pools.cli.project import choose_settings
from tests.process.contract.fake_broker import FakeBroker

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


def test_a_call_prints_its_result(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["call", "echo", "echo", '{"a": "ü"}']) == 0
    assert capsys.readouterr() == ('{\n  "a": "ü"\n}\n', "")
    assert run(["call", "echo", "echo", '{"a": "ü"}', "--json"]) == 0
    assert capsys.readouterr() == ('{"a": "ü"}\n', "")


def test_options_reach_the_broker(broker: FakeBroker) -> None:
    assert run(["call", "echo", "echo", "--timeout", "7.5", "--priority", "-3", "--affinity", "ada"]) == 0
    call = broker.calls[-1]
    assert (call.timeout, call.priority, call.affinity, call.credit) == (7.5, -3, "ada", 0)


def test_arguments_come_from_a_file_or_standard_input(
    broker: FakeBroker, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "arguments.json"
    file.write_text('{"from": "file"}')
    assert run(["call", "echo", "echo", f"@{file}", "--json"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"from": "stdin"}'))
    assert run(["call", "echo", "echo", "-", "--json"]) == 0
    assert capsys.readouterr().out == '{"from": "file"}\n{"from": "stdin"}\n'


@pytest.mark.parametrize("arguments", ["{", "[1]", "7", "@/does/not/exist", "[" * 100_000])
def test_arguments_that_are_no_json_object_are_wrong_usage(arguments: str, capsys: Captured) -> None:
    assert run(["call", "echo", "echo", arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: bad_request: ")
    assert arguments[0] != "@" or f"{arguments[1:]} cannot be read: No such file" in told


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperationalError("no such table: snakepit_job"), "Run manage.py migrate."),
        (ProgrammingError('relation "snakepit_job" does not exist\nLINE 1: SELECT'), "Run manage.py migrate."),
        (OperationalError("connection refused\nIs the server running?"), "connection refused. Check it with"),
    ],
)
def test_a_database_that_is_away_or_has_no_tables_is_an_error_with_the_next_step(
    error: Exception, words: str, capsys: Captured
) -> None:
    with pytest.raises(typer.Exit) as ended, report_errors():
        raise error
    told = capsys.readouterr().err
    assert (ended.value.exit_code, told.count("\n")) == (1, 1)
    assert told.startswith("error: database_unavailable: ")
    assert words in told
    with pytest.raises(typer.Exit), report_errors(as_json=True):
        raise error
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "database_unavailable"


def test_an_error_in_the_code_keeps_its_traceback() -> None:
    with pytest.raises(IntegrityError), report_errors():
        raise IntegrityError("UNIQUE constraint failed")


def test_an_error_of_arguments_is_written_once(capsys: Captured) -> None:
    reason = "below must be an integer, not a string"
    with pytest.raises(typer.Exit), report_errors():
        raise BadArguments(reason, details={"arguments": {"below": reason}})
    assert capsys.readouterr().err == f"error: bad_arguments: {reason}\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["nope"],
        ["call"],
        ["call", "p", "c", "--timeout", "soon"],
        ["call", "p", "c", "--timeout", "-3"],
        ["up", "--port", "0"],
    ],
)
def test_wrong_usage_has_exit_code_2(argv: list[str], capsys: Captured) -> None:
    assert run(argv) == 2
    assert "Usage: snakepit" in capsys.readouterr().err


def test_a_timeout_that_is_no_time_is_an_error(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["call", "echo", "echo", "--timeout", "0"]) == 1
    assert "deadline_exceeded" in capsys.readouterr().err


def test_a_stream_prints_a_line_for_each_chunk(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["call", "echo", "count", '{"to": 40}', "--stream"]) == 0
    assert capsys.readouterr().out.split() == [str(number) for number in range(40)]
    assert run(["call", "echo", "echo", '{"a": 1}', "--stream", "--json"]) == 0
    assert capsys.readouterr().out == '{"a": 1}\n'


def test_progress_and_log_lines_go_to_standard_error(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["call", "echo", "noisy"]) == 0
    assert capsys.readouterr() == ("done\n", " 50% half\na line\n")


def test_an_error_comes_with_its_details_and_the_remote_traceback(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["call", "echo", "fail"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: adapter_error: ValueError: no\n"
        "  type: ValueError\n"
        "  retry after: 1.5 s\n"
        "\n"
        "In the worker:\n"
        "Traceback ...\n",
    )


def test_with_json_an_error_has_the_shape_of_the_api(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["call", "echo", "fail", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    error = json.loads(out)["error"]
    assert list(error) == ["code", "message", "outcome", "details"]
    assert (error["code"], error["outcome"]) == ("adapter_error", "failed")


def test_bytes_are_written_as_they_are() -> None:
    script = "import sys; from snakepit.pools.cli.output import print_value; print_value(bytes([0, 255]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"\x00\xff"


def test_no_broker_has_exit_code_3(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEPIT_ADDRESS", str(tmp_path / "none.sock"))
    assert run(["status"]) == 3
    assert "start it with: snakepit broker" in capsys.readouterr().err
    assert run(["call", "a", "b", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "broker_unreachable"


def test_status_is_readable_and_exact(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert [list(status), status["pools"][0]["name"]] == [["node", "pools", "workers"], "echo"]
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert "broker fake" in out
    assert "echo-1" in out
    assert "12 MiB" in out
    assert "\x1b" not in out


def test_status_of_an_unknown_pool_is_a_problem(broker: FakeBroker, capsys: Captured) -> None:
    assert run(["status", "--pool", "nope"]) == 1
    assert "pool_unknown: There is no pool nope" in capsys.readouterr().err


def test_help_and_version_are_there(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("up", "broker", "status", "call", "new-adapter"))
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("snakepit ")


def test_a_call_does_not_start_django(broker: FakeBroker) -> None:
    script = (
        "import sys; from snakepit.pools.cli.main import run; code = run(sys.argv[1:]);"
        "assert 'django.apps.registry' not in sys.modules or not sys.modules['django.apps'].apps.ready;"
        "assert 'django.db' not in sys.modules and 'celery' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "call", "echo", "echo", '{"a": 1}', "--json"]
    environment = {**os.environ, "SNAKEPIT_ADDRESS": broker.address}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"a": 1}\n', "")


# Which project.


def test_the_settings_are_those_that_manage_py_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "given.settings")
    assert choose_settings(tmp_path) == "given.settings"
    assert str(tmp_path) not in sys.path
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "manage.py").write_text("os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')")
    assert choose_settings(tmp_path) == "shop.settings"
    assert sys.path[0] == str(tmp_path)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    assert choose_settings(tmp_path / "elsewhere") == "snakepit.site.settings"


def test_settings_that_the_environment_names_are_found_beside_manage_py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.production")
    (tmp_path / "manage.py").write_text("os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')")
    assert choose_settings(tmp_path) == "shop.production"
    assert sys.path[0] == str(tmp_path)


def test_settings_that_cannot_be_read_are_wrong_usage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakepit.pools.cli", "status"]
    environment = {key: value for key, value in os.environ.items() if key != "SNAKEPIT_ADDRESS"}
    environment["DJANGO_SETTINGS_MODULE"] = "no.such.settings"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert "no.such.settings cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_lists_every_command_under_a_title(capsys: Captured) -> None:
    from snakepit.pools.cli.main import PANELS, app

    titles = {one.rich_help_panel for one in app.registered_commands}
    assert titles | {one.rich_help_panel for one in app.registered_groups} == set(PANELS)
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    assert [title for title in PANELS if title not in told] == []


def test_every_command_names_its_arguments_in_capitals_and_brackets_them_once(capsys: Captured) -> None:
    from typer.main import get_command

    from snakepit.pools.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in commands:
        assert run([name, "--help"]) == 0
        usage = capsys.readouterr().out.split("Usage:")[1].split("\n\n")[0].partition("[OPTIONS]")[2].split("\n")[0]
        assert usage == usage.upper(), name
        assert "[[" not in usage, name
