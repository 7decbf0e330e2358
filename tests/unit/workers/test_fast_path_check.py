"""The check of the fast path: it passes here, and finds each name of grpclib and h2 that is gone or changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib.config import Configuration
from grpclib.protocol import Buffer, Connection, Stream
from h2.connection import H2Connection
from h2.windows import WindowManager

from snakepit.workers.transport import FAST_PATH, fast_path_check, grpclib_internals
from snakepit.workers.transport.fast_path_check import check_fast_path, fast_path_problem, has_fast_path
from snakepit.workers.transport.grpclib_internals import KEEPALIVE, configuration, limit_messages, received_metadata


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(FAST_PATH, raising=False)
    fast_path_problem.cache_clear()
    yield
    fast_path_problem.cache_clear()


def test_the_installed_versions_have_the_fast_path() -> None:
    check_fast_path()
    assert fast_path_problem() == ""
    assert has_fast_path()


def test_the_fast_path_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAST_PATH, "0")
    assert not has_fast_path()


class Renamed:
    """Hides an attribute of instances, as if a new version had renamed it."""

    def __set__(self, instance: object, value: object) -> None:
        instance.__dict__["renamed"] = value

    def __get__(self, instance: object, kind: type) -> object:
        raise AttributeError("renamed")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Buffer, "_unacked"),
        (Buffer, "_eof"),
        (Connection, "ack"),
        (Connection, "write_ready"),
        (Stream, "connection"),
        (Stream, "buffer"),
        (Stream, "_transport"),
        (Stream, "_h2_connection"),
        (H2Connection, "incoming_buffer"),
        (H2Connection, "_inbound_flow_control_window_manager"),
        (H2Connection, "outbound_flow_control_window"),
        (H2Connection, "max_inbound_frame_size"),
    ],
)
def test_a_name_that_is_gone_is_found_and_logged_once(
    kind: type, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kind, name, Renamed(), raising=False)
    with caplog.at_level(logging.WARNING, "snakepit.transport"):
        assert not has_fast_path()
        assert not has_fast_path()
    (record,) = caplog.records
    assert "h2 " in record.getMessage()
    assert "grpclib " in record.getMessage()


def test_a_window_that_counts_differently_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WindowManager, "window_consumed", lambda self, size: None)
    assert "windows are" in fast_path_problem()


def test_a_frame_that_h2_reads_differently_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpclib_internals, "plain_header", lambda stream: b"\0\1" + stream.to_bytes(4, "big"))
    assert fast_path_problem()


def test_a_stream_without_the_inner_one_takes_the_public_api() -> None:
    assert not has_fast_path(SimpleNamespace())
    assert not has_fast_path(SimpleNamespace(_stream=object()))


def test_without_the_inner_stream_nothing_is_limited_and_no_metadata_is_found() -> None:
    stream: Any = SimpleNamespace(trailing_metadata=None)
    limit_messages(stream, 1)
    assert received_metadata(stream) == {}


def test_without_the_names_of_keepalive_there_is_none_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert vars(configuration(1 << 20, keepalive=True)).items() >= KEEPALIVE.items()
    monkeypatch.setattr(grpclib_internals, "KEEPALIVE", {"_renamed": 1.0})
    assert configuration(1 << 20, keepalive=True) == Configuration(
        http2_connection_window_size=1 << 20, http2_stream_window_size=1 << 20
    )
    assert "_renamed" in caplog.text


def test_the_check_sees_a_broken_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path_check.FrameReader, "_take", lambda self, data: data)
    assert fast_path_problem()
