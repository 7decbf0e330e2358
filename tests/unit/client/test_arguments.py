"""What the client refuses before it sends anything."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerUnreachable, PayloadTooLarge, Unauthenticated
from snakepit.pools.client import arguments
from snakepit.pools.client.address import Target, default_address
from snakepit.pools.client.arguments import Options, encode


def call_of(values: Any, **options: Any) -> Any:
    return encode("pool", "command", values, {}, Options(**options))


def test_arguments_and_keywords_are_merged_and_compact() -> None:
    call = encode("pool", "command", {"a": 1}, {"b": "ü"}, Options())
    assert call.arguments.decode() == '{"a":1,"b":"ü"}'
    assert encode("pool", "command", None, {}, Options()).arguments == b""


def circular() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["self"] = values
    return values


def deep() -> list[Any]:
    values: list[Any] = []
    for _ in range(200_000):
        values = [values]
    return values


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({1, 2}, "set is not JSON serializable"),
        (float("nan"), "NaN"),
        ([float("inf")], "no infinity"),
        (circular(), "must not contain itself"),
        ({"inner": b"x"}, "bytes may be an argument of their own"),
        ("\ud800", "not Unicode"),
        (deep(), "nested too deeply"),
    ],
    ids=["set", "nan", "infinity", "circular", "nested bytes", "surrogate", "deep"],
)
def test_an_argument_that_json_cannot_carry_is_named(value: Any, problem: str) -> None:
    with pytest.raises(BadArguments, match=problem) as caught:
        call_of({"good": 1, "bad": value})
    assert str(caught.value).startswith("bad: ")
    assert caught.value.details == {"argument": "bad"}


@pytest.mark.parametrize("values", [[1], "text", {1: 2}])
def test_arguments_must_be_an_object_of_names(values: Any) -> None:
    with pytest.raises(BadArguments, match="arguments: "):
        call_of(values)


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), "5", True])
def test_a_timeout_must_be_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(BadRequest, match="timeout: "):
        call_of({}, timeout=timeout)


@pytest.mark.parametrize("priority", [101, -101, 1.5, True, "high"])
def test_a_priority_must_be_in_its_range(priority: Any) -> None:
    with pytest.raises(BadRequest, match="from -100 to 100"):
        call_of({}, priority=priority)


def test_names_must_be_given() -> None:
    with pytest.raises(BadRequest, match="must be names"):
        encode("", "command", None, {}, Options())


def test_too_much_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "MAX_MESSAGE", 1000)
    call_of({"data": b"x" * 900})
    for values in ({"data": b"x" * 1001}, {"a": b"x" * 600, "b": b"x" * 600}, {"text": "x" * 1000}):
        with pytest.raises(PayloadTooLarge, match="1000"):
            call_of(values)


# Addresses.


def test_a_tcp_address_needs_tls() -> None:
    with pytest.raises(BadRequest, match="needs TLS"):
        Target.parse("example.org:7443")
    target = Target.parse("[::1]:7443", tls=ssl.create_default_context())
    assert (target.host, target.port, str(target)) == ("::1", 7443, "[::1]:7443")


@pytest.mark.parametrize("address", ["", "a\0b", "x" * 200])
def test_an_address_that_cannot_work_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="address: "):
        Target.parse(address)


def test_a_path_may_be_written_as_a_unix_url() -> None:
    assert Target.parse("unix:///run/x.sock").path == Target.parse("/run/x.sock").path == "/run/x.sock"


def test_the_environment_names_address_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEPIT_ADDRESS", "/run/y.sock")
    monkeypatch.setenv("SNAKEPIT_TOKEN", "from-env")
    assert default_address() == "/run/y.sock"
    assert Target.parse("/run/y.sock").read_token() == "from-env"
    assert Target.parse("/run/y.sock", token="given").read_token() == "given"


def test_the_token_is_read_from_the_file_beside_the_socket(tmp_path: Path) -> None:
    target = Target.parse(str(tmp_path / "broker.sock"))
    (tmp_path / "token").write_text("first\n")
    assert target.read_token() == "first"
    (tmp_path / "token").write_text("second\n")
    assert target.read_token() == "second"
    (tmp_path / "token").write_text("two words\n")
    with pytest.raises(Unauthenticated, match="does not contain a token"):
        target.read_token()


def test_a_tcp_broker_needs_a_token_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNAKEPIT_TOKEN", raising=False)
    with pytest.raises(Unauthenticated, match="set SNAKEPIT_TOKEN"):
        Target.parse("a.example:1", tls=ssl.create_default_context()).read_token()


def test_without_any_address_the_ways_to_give_one_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings
    from django.utils.functional import empty

    monkeypatch.delenv("SNAKEPIT_ADDRESS", raising=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.setitem(settings.__dict__, "_wrapped", empty)
    with pytest.raises(BrokerUnreachable, match="set SNAKEPIT_ADDRESS"):
        default_address()
