"""The cause of an AdapterError."""

from __future__ import annotations

import json
import pickle
import sys
import traceback
from typing import Any

import pytest

from snakepit.pools.client.call_messages import exception
from snakepit.pools.client.remote_cause import cause_of
from snakepit.pools.wire.broker_pb2 import Error
from snakepit.workers.call import AssignedCall
from snakepit.workers.runtime import failure


class Coded(Exception):
    def __init__(self, code: int, where: str) -> None:
        self.code = code
        super().__init__(code, where)


class Shown(Exception):
    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)

    def __str__(self) -> str:
        return f"code {self.code}"


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")


class Blocking(Exception):
    def __new__(cls, *arguments: Any) -> Any:
        if arguments == ("made again",):
            raise AssertionError("code of the class runs on the client's thread")
        return super().__new__(cls, *arguments)


class Meta(type):
    def __call__(cls, *arguments: Any) -> Any:
        return super().__call__(*arguments)


class Made(Exception, metaclass=Meta): ...


def arrived(raised: Exception) -> Any:
    try:
        raise raised
    except Exception as error:
        report = failure.raised(AssignedCall(1, "run"), error)
    details = {**report.details, "type": report.type, "traceback": report.traceback}
    return exception(Error(code=report.code, message=report.message, details=json.dumps(details)))


@pytest.mark.parametrize("raised", [KeyError("region"), ValueError("no", 3), Coded(7, "here"), ZeroDivisionError()])
def test_an_exception_that_this_process_has_is_the_cause(raised: Exception) -> None:
    cause = arrived(raised).__cause__
    assert type(cause) is type(raised)
    assert cause.args == raised.args
    assert str(cause) == str(raised)


def test_no_code_of_the_class_runs_for_a_cause() -> None:
    blocking = Blocking("x")
    blocking.args = ("made again",)
    for raised in (Hostile(), blocking, Made("x")):
        assert arrived(raised).__cause__ is None


@pytest.mark.parametrize(
    "raised", [Shown(3), ValueError(object()), KeyError(b"x"), ExceptionGroup("g", [ValueError()])]
)
def test_an_exception_that_cannot_be_made_again_is_no_cause(raised: Exception) -> None:
    error = arrived(raised)
    assert error.__cause__ is None
    assert type(raised).__name__ in str(error)


@pytest.mark.parametrize(
    "name", ["os.system", "antigravity.X", "builtins.eval", "print", "SystemExit", "xml.dom.minidom.Node", "..", "a..b"]
)
def test_what_is_no_exception_of_an_imported_module_is_no_cause(name: str) -> None:
    before = set(sys.modules)
    assert cause_of({"type": name, "args": []}, name.rpartition(".")[2]) is None
    assert set(sys.modules) == before


def test_the_last_lines_of_a_key_error_name_it_and_the_line_of_the_adapter() -> None:
    lines = "".join(traceback.format_exception(arrived(KeyError("region")))).splitlines()
    assert lines[-1] == "KeyError: 'region'"
    assert any(__file__ in line for line in lines[-4:])
    assert "snakepit.pools.broker.errors.AdapterError: KeyError: 'region'" in lines


def test_a_pickled_error_keeps_its_notes() -> None:
    error = arrived(KeyError("region"))
    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__
