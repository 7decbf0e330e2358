"""The contract of the wire, passed by both clients: ours and stock grpcio, through the Unix socket and mutual TLS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools import permissions
from snakepit.pools.broker.caller import CallerIdentity, Limits
from tests.brokers import PATIENCE, broker
from tests.certificates import Authority
from tests.process.contract.wire_clients import Failed, Ours, Place, Stock

Wire = Ours | Stock
KEYS: dict[str, dict[str, Any]] = {
    "snk_all": {"scopes": list(permissions.SCOPES)},
    "snk_view": {"scopes": ["view"]},
    "snk_run": {"scopes": ["run"]},
    "snk_other": {"scopes": list(permissions.SCOPES), "pools": ["other"]},
    "snk_limited": {"scopes": ["run"], "limits": {"calls_per_second": 0.001, "calls_burst": 1}},
}
POOLS: dict[str, Any] = {
    "one": {"size": 1, "cancel_grace": PATIENCE, "min_lifetime": 0.0, "max_payload": 8 * 2**20},
    "many": {"size": 3},
    "narrow": {"size": 1, "queue_limit": 0, "cancel_grace": PATIENCE},
    "small": {"size": 1, "max_payload": 4096},
}


@pytest.fixture(scope="module")
def recent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients") / "recent"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, recent: Path) -> Iterator[dict[str, Place]]:
    """One broker, and the two ways to it."""
    authority = Authority(recent.parent)
    (cert, key), (own, private) = authority.issue("server"), authority.issue("nameless")
    keys = recent.parent / "keys.json"
    keys.write_text(json.dumps(KEYS))
    config = {"tls": {"cert": cert, "key": key, "client_ca": str(authority.path)}, "keys": str(keys)}
    pools = {name: {**fields, "args": {"recent": str(recent)}} for name, fields in POOLS.items()}
    with broker(pools, env={**os.environ, "LISTEN_CONFIG": json.dumps(config)}) as running:
        for name, fields in POOLS.items():
            running.ready(name, fields["size"])
        files = {"CA": str(authority.path), "CERT": own, "KEY": private}
        address = running.status().node.listeners[0].address
        yield {"socket": Place(running.runtime), "tls": Place(running.runtime, address, "snk_all", files)}


@pytest.fixture(params=["ours-socket", "ours-tls", "grpcio-socket", "grpcio-tls"])
def wire(request: pytest.FixtureRequest, places: dict[str, Place]) -> Iterator[Wire]:
    kind, place = request.param.split("-")
    made: Wire = (Ours if kind == "ours" else Stock)(places[place])
    yield made
    made.close()


def until(question: Callable[[], bool]) -> None:
    """Ask until the answer is true; each question is a round trip."""
    while not question():
        pass


def fails(code: str, outcome: str, call: Callable[[], Any]) -> Failed:
    with pytest.raises(Failed) as caught:
        call()
    assert (caught.value.code, caught.value.outcome) == (code, outcome), caught.value
    assert str(caught.value)
    return caught.value


# Calls and values.


@pytest.mark.parametrize("value", [None, True, 2**53, 0.1, "zoë\0\U0001f600", [1, [None]], {"a": {"é": []}}])
def test_a_value_comes_back_as_it_was(wire: Wire, value: Any) -> None:
    assert wire.call("one", "echo", {"value": value}) == value


def test_bytes_travel_both_ways(wire: Wire) -> None:
    assert wire.call("one", "echo", {"value": bytes(range(256))}) == bytes(range(256))
    assert wire.call("one", "returns_bytes", {"size": 3}) == b"\0\0\0"


@pytest.mark.parametrize("value", ["x" * 3_000_000, b"y" * 3_000_000], ids=["text", "bytes"])
def test_large_arguments_and_results_travel(wire: Wire, value: Any) -> None:
    assert wire.call("one", "echo", {"value": value}) == value


def test_many_calls_are_in_flight_and_each_has_its_own_answer(wire: Wire) -> None:
    calls = [("many", "echo", {"value": number}) for number in range(200)]
    calls[50], calls[150] = ("nowhere", "echo", {}), ("many", "raises", {"text": "150"})
    answers = wire.together(calls)
    assert [(at, one.code, one.outcome) for at, one in enumerate(answers) if isinstance(one, Failed)] == [
        (50, "pool_unknown", "not_started"),
        (150, "adapter_error", "failed"),
    ]
    assert [one for one in answers if not isinstance(one, Failed)] == [*range(50), *range(51, 150), *range(151, 200)]


def test_calls_with_the_same_key_have_the_same_worker(wire: Wire) -> None:
    def workers(key: str) -> set[str]:
        return {wire.worker("many", "pid", affinity=key) for _ in range(6)}

    assert len(workers("ada")) == 1
    fails("bad_request", "not_started", lambda: workers("x" * 201))


# Errors.


@pytest.mark.parametrize(
    ("pool", "command", "arguments", "code", "outcome"),
    [
        ("ones", "echo", {}, "pool_unknown", "not_started"),
        ("one", "ecko", {}, "command_unknown", "not_started"),
        ("one", "typed", {"count": "x"}, "bad_arguments", "not_started"),
        ("one", "typed", {}, "bad_arguments", "not_started"),
        ("one", "echo", {"other": 1}, "bad_arguments", "not_started"),
        ("one", "raises", {"text": "zoë"}, "adapter_error", "failed"),
        ("small", "echo", {"value": "x" * 5000}, "payload_too_large", "not_started"),
    ],
)
def test_an_error_has_its_code_and_its_outcome(
    wire: Wire, pool: str, command: str, arguments: dict[str, Any], code: str, outcome: str
) -> None:
    fails(code, outcome, lambda: wire.call(pool, command, arguments))
    fails(code, outcome, lambda: list(wire.stream(pool, command, arguments)))


def test_an_error_has_its_details(wire: Wire) -> None:
    raised = fails("adapter_error", "failed", lambda: wire.call("one", "raises", {"text": "no"}))
    assert raised.details["type"] == "LookupError"
    assert "in raises" in raised.details["traceback"]
    assert "count" in str(fails("bad_arguments", "not_started", lambda: wire.call("one", "typed", {"count": "x"})))
    large = fails("payload_too_large", "not_started", lambda: wire.call("small", "echo", {"value": "x" * 5000}))
    assert large.details["limit"] == 4096


@pytest.mark.parametrize("options", [{"timeout": -1.0}, {"timeout": float("nan")}, {"priority": 101}], ids=str)
def test_wrong_options_are_refused(wire: Wire, options: dict[str, Any]) -> None:
    with pytest.raises(Failed) as caught:
        wire.call("one", "echo", **options)
    assert (caught.value.code in ("bad_request", "deadline_exceeded"), caught.value.outcome) == (True, "not_started")


# Deadlines, cancelling, streams.


def test_a_deadline_ends_a_call_that_runs_and_frees_its_slot(wire: Wire) -> None:
    for longer in (1, 10, 100):  # on a busy machine the call may wait until its deadline
        with pytest.raises(Failed) as caught:
            wire.call("one", "obedient", timeout=0.3 * longer)
        assert caught.value.code == "deadline_exceeded"
        if caught.value.outcome == "unknown":
            break
    assert caught.value.outcome == "unknown"
    assert wire.call("one", "echo", {"value": 1}) == 1


def test_a_cancel_ends_a_call_that_runs_and_frees_its_slot(wire: Wire) -> None:
    running = wire.start("one", "obedient")
    until(lambda: wire.busy("one") == 1)
    assert running.cancel()
    assert wire.call("one", "echo", {"value": 1}) == 1


def test_a_stream_has_its_chunks_in_order(wire: Wire) -> None:
    assert list(wire.stream("one", "count", {"to": 500})) == list(range(500))
    assert list(wire.stream("one", "echo", {"value": 7})) == [7]
    assert list(wire.stream("one", "count", {"to": 0})) == []


def test_leaving_a_stream_early_ends_its_generator(wire: Wire, recent: Path) -> None:
    wire.call("one", "echo")
    before = recent.read_text().count("closed") if recent.exists() else 0
    chunks = wire.stream("one", "count", {"to": 10_000_000})
    assert [next(chunks) for _ in range(3)] == [0, 1, 2]
    chunks.close()  # type: ignore[attr-defined]
    assert wire.call("one", "echo", {"value": 1}) == 1  # its slot is free again
    assert recent.read_text().count("closed") == before + 1


def test_an_error_in_the_midst_of_a_stream_comes_behind_its_chunks(wire: Wire) -> None:
    chunks = wire.stream("one", "counts_and_raises", {"to": 40})
    assert [next(chunks) for _ in range(40)] == list(range(40))
    raised = fails("adapter_error", "failed", lambda: next(chunks))
    assert raised.details["type"] == "LookupError"


# Safe retries and lost workers.


def test_an_idempotent_call_runs_again_and_another_one_is_lost(wire: Wire, tmp_path: Path) -> None:
    assert wire.call("one", "dies_once", {"path": str(tmp_path / "mark")}, timeout=PATIENCE) == "done"
    lost = fails("worker_lost", "unknown", lambda: wire.call("one", "leaves", {"code": 3}, timeout=PATIENCE))
    assert "was lost while it held the call" in str(lost)
    assert wire.call("one", "echo", {"value": 1}, timeout=PATIENCE) == 1


# Limits and rights.


def test_a_full_queue_refuses_with_the_time_to_try_again(wire: Wire) -> None:
    until(lambda: wire.busy("narrow") == 0)
    running = wire.start("narrow", "obedient")
    until(lambda: wire.busy("narrow") == 1)
    try:
        full = fails("queue_full", "not_started", lambda: wire.call("narrow", "echo"))
        assert full.retry_after > 0
    finally:
        running.cancel()


def test_a_caller_has_its_limits(wire: Wire, request: pytest.FixtureRequest) -> None:
    if wire.place.key:  # of its key; those that a message names do not count
        caller, limited = None, wire.with_key("snk_limited")
    else:
        caller, limited = CallerIdentity("", f"ada-{request.node.name}", Limits(), Limits(0.001, 1)), wire
    answers = [_outcome(limited, caller) for _ in range(3)]
    refused = answers[-1]
    assert isinstance(refused, Failed)
    assert (refused.code, refused.outcome, refused.details["limit"]) == (
        "limit_reached",
        "not_started",
        "calls_per_second",
    )
    assert refused.retry_after > 0
    if limited is not wire:
        limited.close()


def _outcome(wire: Wire, caller: CallerIdentity | None) -> Any:
    try:
        return wire.call("one", "echo", {"value": 1}, caller)
    except Failed as failed:
        return failed


def test_a_wrong_key_is_refused(wire: Wire) -> None:
    other = wire.with_key("wrong")
    fails("unauthenticated", "not_started", lambda: other.call("one", "echo"))
    fails("unauthenticated", "not_started", other.pools)
    other.close()


@pytest.mark.parametrize("wire", ["ours-tls", "grpcio-tls"], indirect=True)  # the token of the socket allows all
@pytest.mark.parametrize("key", ["snk_view", "snk_run", "snk_other"])
def test_a_key_has_the_rights_of_its_scopes_and_pools(wire: Wire, key: str) -> None:
    other = wire.with_key(key)
    allowed = {
        "call": key == "snk_run",
        "stream": key == "snk_run",
        "commands": key == "snk_view",
        "recycle": False,
        "drain": False,
    }
    asked: dict[str, Callable[[], Any]] = {
        "call": lambda: other.call("one", "echo"),
        "stream": lambda: list(other.stream("one", "echo")),
        "commands": lambda: other.commands("one"),
        "recycle": lambda: other.recycle("one"),
        "drain": other.drain,
    }
    for name, ask in asked.items():
        if allowed[name]:
            ask()
        else:
            fails("permission_denied", "not_started", ask)
    if key != "snk_run":
        assert other.pools() == ({} if key == "snk_other" else wire.pools())
    other.close()


# Questions and orders.


def test_status_commands_and_metrics_are_answered(wire: Wire) -> None:
    assert wire.pools().keys() == POOLS.keys()
    commands = wire.commands("one")
    assert (commands["echo"], commands["pid"]) == (True, False)
    fails("pool_unknown", "not_started", lambda: wire.commands("ones"))
    assert "snakepit_calls_total" in wire.metrics()


def test_a_worker_can_be_killed_by_its_name(wire: Wire) -> None:
    worker = wire.worker("many", "pid")
    wire.kill(worker)
    fails("worker_unknown", "not_started", lambda: wire.kill("many-0-0"))
    assert wire.call("many", "echo", {"value": 1}, timeout=PATIENCE) == 1


def test_a_drained_node_refuses_calls_until_it_is_resumed(wire: Wire) -> None:
    wire.drain()
    try:
        refused = fails("node_draining", "not_started", lambda: wire.call("one", "echo"))
        assert "a test" in str(refused)
    finally:
        wire.drain(resume=True)
    assert wire.call("one", "echo", {"value": 1}) == 1
