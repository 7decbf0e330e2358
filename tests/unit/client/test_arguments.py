"""What the client refuses before it sends anything."""

from __future__ import annotations

import enum
import io
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile, File

from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerUnreachable, PayloadTooLarge, Unauthenticated
from snakepit.pools.client import arguments, connect
from snakepit.pools.client.address import Target, default_address
from snakepit.pools.client.arguments import LONGEST_TIMEOUT, Json, Options, encode
from snakepit.pools.client.connection import unreachable
from snakepit.workers.schema import typed


def call_of(values: Any, **options: Any) -> Any:
    return encode("pool", "command", values, {}, Options(**options))


def test_arguments_and_keywords_are_merged_and_compact() -> None:
    call = encode("pool", "command", {"a": 1}, {"b": "ü"}, Options())
    assert call.arguments.decode() == '{"@typed":1,"a":1,"b":"ü"}'
    assert encode("pool", "command", None, {}, Options()).arguments == b'{"@typed":1}'


TEXTS = ("", 'a"b\\\n', "é", "a\ud800b", pytest.param("x" * 9000, id="long"), pytest.param("é" * 9000, id="long é"))
NUMBERS = (0, -1, 2**64, pytest.param(10**5000, id="digits"), 1.5, 1e300, float("inf"), True, None)


@pytest.mark.parametrize("value", [*TEXTS, *NUMBERS, [1], {"$x": 1}, (1,)])
def test_the_short_way_of_texts_and_numbers_writes_what_the_codec_writes(value: Any) -> None:
    values = {"é": value, "$b": 1}
    assert call_of(values).arguments == typed.encode_tree({typed.NAME: 1, **values}, arguments.MAX_MESSAGE, "")[0]


def test_arguments_that_are_json_are_sent_as_they_are() -> None:
    call = encode("pool", "command", Json(a={"$float": "nan"}), {"b": 1}, Options())
    assert call.arguments == b'{"a":{"$float":"nan"},"b":1}'
    assert encode("pool", "command", Json(), {}, Options()).arguments == b""
    with pytest.raises(BadArguments, match="JSON has no NaN"):
        encode("pool", "command", Json(a=float("nan")), {}, Options())


def test_a_django_file_is_sent_as_its_bytes() -> None:
    opened = io.BytesIO(b"0123")
    opened.seek(2)
    call = call_of({"scan": File(opened), "more": [ContentFile(b"x")]})
    assert call.attachments == {"scan": b"0123"}
    assert call.arguments == b'{"@typed":1,"more":[{"$bytes":"eA=="}]}'
    assert opened.seek(0, 1) == 2, "the position of the file is unchanged"


def test_a_reserved_name_is_refused() -> None:
    for values in ({"@typed": 1}, Json({"@typed": 1, "a": 2}), Json({"a": 2, "@typed": 1})):
        with pytest.raises(BadArguments, match="'@typed' is a reserved name"):
            call_of(values)
    for values in ({"$buffer": b"x"}, {"a": 1, "$buffer": 2}, Json({"$buffer": b"x"})):
        with pytest.raises(BadArguments, match=r"'\$buffer' is a reserved name"):
            call_of(values)


class Name(enum.StrEnum):
    A = "a"


def test_a_name_may_be_a_subclass_of_text() -> None:
    for values in ({Name.A: 1, "b": (2,)}, {Name.A: 1, "b": (2,), Name("a"): 1}):
        assert call_of(values).arguments == b'{"@typed":1,"a":1,"b":{"$tuple":[2]}}'
    assert call_of({Name.A: b"x"}).attachments == {"a": b"x"}


def test_an_argument_with_a_surrogate_pair_is_refused() -> None:
    for value in ("\ud83d\ude00", ["\ud83d\ude00"]):
        with pytest.raises(BadArguments, match="surrogate pair"):
            call_of({"text": value})


def repeated(levels: int) -> list[Any]:
    """A list of a few objects in memory, and of 10 ** levels numbers as text."""
    values: list[Any] = [0] * 10
    for _ in range(levels - 1):
        values = [values] * 10
    return values


def test_arguments_without_end_are_refused_before_their_text_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "MAX_MESSAGE", 2**20)  # else, on a busy machine, counting takes a while
    for value in (repeated(12), ["x" * 2**20] * 2**20):
        with pytest.raises(PayloadTooLarge, match="The arguments have"):
            call_of({"values": value})


class Lies:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class today")


@pytest.mark.parametrize("released", [True, False])
def test_an_object_whose_own_code_raises_is_a_typed_error(released: bool) -> None:
    value: Any = Lies()
    if released:
        value = memoryview(b"x")
        value.release()
    with pytest.raises(BadArguments, match="while they were converted"):
        call_of({"value": value})


def test_a_view_with_gaps_is_sent_as_its_bytes_wherever_it_is() -> None:
    assert call_of({"parts": [memoryview(b"abcdef")[::2]]}).arguments == b'{"@typed":1,"parts":[{"$bytes":"YWNl"}]}'
    assert call_of({"part": memoryview(b"abcdef")[::2]}).attachments == {"part": b"ace"}


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
    ("value", "path", "problem"),
    [
        ({"rows": [{}, {"price": str}]}, "bad.rows[1].price", "is a type, which has no form; pass its name"),
        ([object()], "bad[0]", "is a object, which has no form"),
        (circular(), "bad.self", "contains itself"),
        (deep(), "bad" + "[0]" * 62, "is nested deeper than 64 levels"),
        ((number for number in ()), "bad", "is a generator, which has no form; pass a list"),
    ],
    ids=["type", "object", "circular", "deep", "generator"],
)
def test_the_path_of_an_argument_without_a_form_is_named(value: Any, path: str, problem: str) -> None:
    with pytest.raises(BadArguments, match=problem) as caught:
        call_of({"good": 1, "bad": value})
    assert caught.value.details == {"argument": "bad", "path": path}
    assert str(caught.value).startswith(path[:100])


@pytest.mark.parametrize("values", [[1], "text", {1: 2}])
def test_arguments_must_be_an_object_of_names(values: Any) -> None:
    with pytest.raises(BadArguments, match="arguments: "):
        call_of(values)


@pytest.mark.parametrize("timeout", [1e308, 10**400])
def test_a_timeout_of_any_length_is_the_longest_one(timeout: float) -> None:
    assert call_of({}, timeout=timeout).timeout == LONGEST_TIMEOUT


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), "5", True])
def test_a_timeout_must_be_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(BadRequest, match="timeout: "):
        call_of({}, timeout=timeout)


@pytest.mark.parametrize("priority", [101, -101, 1.5, True, "high"])
def test_a_priority_must_be_in_its_range(priority: Any) -> None:
    with pytest.raises(BadRequest, match="from -100 to 100"):
        call_of({}, priority=priority)


@pytest.mark.parametrize("key", ["x" * 201, 7, b"ada", "a\ud800"])
def test_an_affinity_is_a_short_text(key: Any) -> None:
    assert call_of({}, affinity="ü" * 200).affinity == "ü" * 200
    with pytest.raises(BadRequest, match=r"affinity|not Unicode"):
        call_of({}, affinity=key)


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
    target = Target.parse("[::1]:7443", tls=True)
    assert (target.host, target.port, str(target)) == ("::1", 7443, "[::1]:7443")


@pytest.mark.parametrize("address", ["", "a\0b", "x" * 200, "http://gpu-1:7443", "dns:///", "dns:///gpu-1"])
def test_an_address_that_cannot_work_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="address: "):
        Target.parse(address)
    if address:
        with pytest.raises(BadRequest, match="address: "):
            connect(address)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 7443)"), "(connection refused)"),
        (OSError(113, "No route to host"), "(no route to host)"),
        (TimeoutError(), "(no answer in time)"),
    ],
)
def test_the_error_of_a_broker_that_is_away_has_the_reason(error: OSError, reason: str) -> None:
    assert reason in unreachable(Target.parse("10.0.0.1:7443", tls=True), error).message


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
        Target.parse("a.example:1", tls=True).read_token()


def test_without_any_address_the_ways_to_give_one_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings
    from django.utils.functional import empty

    monkeypatch.delenv("SNAKEPIT_ADDRESS", raising=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.setitem(settings.__dict__, "_wrapped", empty)
    with pytest.raises(BrokerUnreachable, match="set SNAKEPIT_ADDRESS"):
        default_address()


@pytest.mark.skipif(not arguments.PASSES_BUFFERS, reason="this system has no sealed memory files")
def test_bytes_of_many_kilobytes_go_beside_the_call_as_one_part() -> None:
    large, small = b"x" * arguments.PART_FROM, b"x" * (arguments.PART_FROM - 1)
    call = call_of({"large": large, "small": small, "other": bytearray(large)})
    assert call.attachments == {"small": small, "other": large}
    assert call.arguments == b'{"@typed":1,"large":{"$bytes":{"$buffer":[64,0,%d]}}}' % len(large)
    assert call.buffers.inline == large
    assert encode("pool", "command", Json(large=large), {}, Options()).attachments == {"large": large}


@pytest.mark.parametrize("more", [{}, {"b": "é", "c": 1.5}, {"d": "\ud83d"}, {"e": [1]}, {"f": b"x"}])
def test_arrays_take_a_shorter_way_to_the_same_call(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")
    values = {"a": np.arange(3000.0), **more}
    short = call_of(values)
    monkeypatch.setattr("snakepit.workers.schema.short_arrays.text_of", lambda value, buffers: "")
    general = call_of(values)
    assert (short.arguments, short.attachments) == (general.arguments, general.attachments)
    assert short.buffers.inline == general.buffers.inline
