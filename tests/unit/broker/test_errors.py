"""The closed list of errors."""

from __future__ import annotations

import copy
import pickle

import pytest
from grpclib.const import Status

from snakepit.pools.broker import errors
from snakepit.pools.broker.errors import ERRORS, BrokerError, from_code
from snakepit.pools.broker.ports import WorkerFailure
from snakepit.pools.broker.runner.translation import error_of

everyone = pytest.mark.parametrize("error", ERRORS.values(), ids=lambda error: error.__name__)


@everyone
def test_every_error_survives_a_pickle_and_a_copy(error: type[BrokerError]) -> None:
    told = error("what happened", outcome="failed", details={"worker": "p-1", "n": [1]}, retry_after=2.5)
    for twin in (pickle.loads(pickle.dumps(told)), copy.copy(told), copy.deepcopy(told)):
        assert type(twin) is error
        assert (twin.code, twin.message, twin.outcome) == (told.code, "what happened", "failed")
        assert (twin.details, twin.retry_after) == ({"worker": "p-1", "n": [1]}, 2.5)


@everyone
def test_every_error_has_a_docstring_as_its_default_message_and_its_statuses(error: type[BrokerError]) -> None:
    assert error.__doc__
    assert error().message == error.__doc__.strip()
    assert 400 <= error.http_status < 600
    assert error.grpc_status in Status.__members__
    assert error.grpc_status != "OK"
    assert error.default_outcome in (errors.NOT_STARTED, errors.FAILED, errors.UNKNOWN)
    assert error().outcome == error.default_outcome


def test_codes_are_unique_and_every_class_is_in_the_list() -> None:
    classes = {error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, BrokerError)}
    assert set(ERRORS.values()) == classes
    assert len({error.code for error in classes}) == len(classes)
    assert all(ERRORS[error.code] is error for error in classes)


def test_an_unknown_code_becomes_a_plain_error() -> None:
    error = from_code("from_the_future", "hm", "failed")
    assert type(error) is BrokerError
    assert (error.message, error.outcome) == ("hm", "failed")


def test_details_are_copied_not_shared() -> None:
    details = {"a": 1}
    error = errors.QueueFull(details=details)
    details["a"] = 2
    assert error.details == {"a": 1}


def test_a_workers_failure_becomes_the_error_of_its_code() -> None:
    error = error_of(WorkerFailure("bad_arguments", "count: missing", details={"arguments": {"count": "missing"}}))
    assert type(error) is errors.BadArguments
    assert error.details == {"arguments": {"count": "missing"}}


def test_a_worker_cannot_invent_a_code() -> None:
    error = error_of(WorkerFailure("root_please", "x", type="a.B", traceback="tb", details={"o": {1, 2}}))
    assert type(error) is errors.AdapterError
    assert (error.details["type"], error.details["traceback"]) == ("a.B", "tb")


def test_a_failure_of_a_call_that_had_not_begun_is_not_started() -> None:
    begun = error_of(WorkerFailure("deadline_exceeded", "the deadline passed"))
    waiting = error_of(WorkerFailure("deadline_exceeded", "before it began", details={"outcome": "not_started"}))
    nonsense = error_of(WorkerFailure("deadline_exceeded", "x", details={"outcome": "great"}))
    assert [error.outcome for error in (begun, waiting, nonsense)] == ["unknown", "not_started", "unknown"]
