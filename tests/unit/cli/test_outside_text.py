"""Text from outside neither forges a line of a log nor controls a terminal."""

from __future__ import annotations

import io
import logging
import logging.config
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.cli import doctor, jobs
from snakepit.pools.cli.output import Problem, report_errors, terminal
from snakepit.site import settings

HOSTILE = "lunch\r\x1b[2J\x1b]0;title\x07\x9b31m\u202e"


def is_harmless(text: str) -> bool:
    return all(one.isprintable() or one in " \n" for one in text)


def test_the_site_writes_each_record_as_one_line() -> None:
    """Celery writes the name of a queue, and other libraries what they receive."""
    made = logging.config.DictConfigurator(settings.LOGGING).configure_formatter(  # type: ignore[attr-defined]
        dict(settings.LOGGING["formatters"]["line"])
    )
    record = logging.LogRecord("celery", logging.ERROR, "", 1, "queue %s", ("a\nERROR forged" + HOSTILE,), None)
    line = made.format(record)
    assert "\n" not in line
    assert is_harmless(line)


def test_a_traceback_in_the_log_keeps_its_lines_and_loses_its_control_characters() -> None:
    made = logging.config.DictConfigurator(settings.LOGGING).configure_formatter(  # type: ignore[attr-defined]
        dict(settings.LOGGING["formatters"]["line"])
    )
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "failed", (), (type(error), error, error.__traceback__))
    text = made.format(record)
    assert text.count("\n") >= 3
    assert is_harmless(text)


def test_the_doctor_prints_no_control_characters() -> None:
    finding = SimpleNamespace(check="pool", pool="p" + HOSTILE, status="ok", evidence=HOSTILE, fix=HOSTILE)
    assert is_harmless("".join(doctor._finding(finding)))  # type: ignore[arg-type]


def test_the_list_of_jobs_prints_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    job: dict[str, Any] = {"id": "1", "pool": HOSTILE, "command": HOSTILE, "state": "queued", "attempts": 0}
    job |= {"owner": HOSTILE, "arguments_short": HOSTILE}
    jobs._list([{**job, "progress": None, "created_at": "2026-01-01T00:00:00Z"}])
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert "lunch" in shown


def test_a_line_on_a_terminal_has_no_control_characters_but_its_own_colours() -> None:
    file = io.StringIO()
    terminal(file=file, force_terminal=True, width=200, highlight=False).print(
        f"pool: {HOSTILE}", style="red", markup=False
    )
    assert is_harmless(file.getvalue().replace("\x1b[31m", "").replace("\x1b[0m", ""))


@pytest.mark.parametrize("error", [Problem(HOSTILE), BadRequest(HOSTILE, details={"traceback": HOSTILE, "x": HOSTILE})])
def test_an_error_prints_no_control_characters(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), report_errors():
        raise error
    assert is_harmless(capsys.readouterr().err)
