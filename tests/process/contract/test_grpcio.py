"""The example on stock grpcio, health and reflection: through the socket of a real broker, and over mutual TLS.

The contract of the wire itself is in test_both_clients.py, for both clients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2

from snakepit.examples.grpc_client import CallFailed, GrpcClient
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_pb2_grpc import BrokerStub
from tests.brokers import PATIENCE, ROOT, RunningBroker, broker
from tests.certificates import Authority


@pytest.fixture(scope="module")
def recent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grpcio") / "recent"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a client over the network, and the listener's settings in LISTEN_CONFIG."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory)
    (cert, key), (own, private) = authority.issue("server"), authority.issue("nameless")
    keys = directory / "keys.json"
    keys.write_text(json.dumps({"snk_test": {"scopes": ["run", "view"]}}))
    tls = {"cert": cert, "key": key, "client_ca": str(authority.path)}
    names = {"CA": str(authority.path), "CERT": own, "KEY": private}
    return {
        "LISTEN_CONFIG": json.dumps({"tls": tls, "keys": str(keys)}),
        "SNAKEPIT_TOKEN": "snk_test",
        **{f"SNAKEPIT_TLS_{name}": path for name, path in names.items()},
    }


@pytest.fixture(scope="module")
def node(recent: Path, files: dict[str, str]) -> Iterator[RunningBroker]:
    environment = {**os.environ, "LISTEN_CONFIG": files["LISTEN_CONFIG"]}
    pools = {"one": {"size": 1, "cancel_grace": PATIENCE, "args": {"recent": str(recent)}}}
    with broker(pools, env=environment) as running:
        running.ready("one")
        yield running


@pytest.fixture(params=["socket", "tls"])
def place(request: pytest.FixtureRequest, node: RunningBroker) -> Path | str:
    return node.runtime if request.param == "socket" else str(node.status().node.listeners[0].address)


@pytest.fixture
def client(place: Path | str, files: dict[str, str]) -> Iterator[GrpcClient]:
    with GrpcClient(place, files) as made:
        yield made


class Stock:
    """The stubs without the example around them."""

    def __init__(self, made: GrpcClient) -> None:
        self.channel = made.channel
        self.broker = BrokerStub(made.channel)
        self.metadata = made.metadata

    def status(self) -> Any:
        return self.broker.Status(pb.StatusRequest(), metadata=self.metadata, timeout=PATIENCE)


@pytest.fixture
def stock(place: Path | str, files: dict[str, str]) -> Iterator[Stock]:
    with GrpcClient(place, files) as made:
        yield Stock(made)


def test_execute_returns_the_result(client: GrpcClient) -> None:
    assert client.call("one", "echo", value={"a": "é"}) == {"a": "é"}


def test_execute_stream_yields_each_chunk(client: GrpcClient) -> None:
    assert list(client.stream("one", "count", to=50)) == list(range(50))


def test_closing_a_stream_ends_its_generator_in_the_worker(client: GrpcClient, recent: Path) -> None:
    before = recent.read_text().count("closed") if recent.exists() else 0
    chunks: Any = client.stream("one", "count", to=1_000_000)
    assert [next(chunks) for _ in range(3)] == [0, 1, 2]
    chunks.close()
    assert client.call("one", "echo", PATIENCE, value=1) == 1  # its slot is free again
    assert recent.read_text().count("closed") == before + 1


def test_status_describes_the_node_and_its_pools(client: GrpcClient, stock: Stock, node: RunningBroker) -> None:
    assert client.pools() == {"one": "ready"}
    assert stock.status().node.pid == node.process.pid


@pytest.mark.parametrize(
    ("pool", "command", "arguments", "status", "code", "outcome"),
    [
        ("ones", "echo", {}, "NOT_FOUND", "pool_unknown", "not_started"),
        ("one", "typed", {"count": "x"}, "INVALID_ARGUMENT", "bad_arguments", "not_started"),
        ("one", "raises", {"text": "zoë"}, "UNKNOWN", "adapter_error", "failed"),
    ],
)
def test_an_error_has_its_code_and_its_outcome(
    client: GrpcClient, pool: str, command: str, arguments: dict[str, Any], status: str, code: str, outcome: str
) -> None:
    with pytest.raises(CallFailed) as caught:
        client.call(pool, command, **arguments)
    assert (caught.value.status.name, caught.value.code, caught.value.outcome) == (status, code, outcome)
    assert str(caught.value)


def test_an_error_in_a_stream_has_its_code_too(client: GrpcClient) -> None:
    with pytest.raises(CallFailed) as caught:
        list(client.stream("one", "raises"))
    assert (caught.value.code, caught.value.outcome) == ("adapter_error", "failed")


def test_a_deadline_of_grpcio_ends_the_call(client: GrpcClient) -> None:
    with pytest.raises(CallFailed) as caught:
        client.call("one", "obedient", 0.3)
    assert caught.value.status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert client.call("one", "echo", PATIENCE, value=1) == 1  # its slot is free again


def test_a_compressed_request_is_refused_with_the_reason(stock: Stock) -> None:
    text = json.dumps({"value": "a" * 1000})
    request = pb.ExecuteRequest(pool="one", command="echo", arguments=text)
    given = {"metadata": stock.metadata, "timeout": PATIENCE}
    with pytest.raises(grpc.RpcError) as caught:
        stock.broker.Execute(request, compression=grpc.Compression.Gzip, **given)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "without compression" in caught.value.details()
    assert stock.broker.Execute(request, **given).json == json.dumps("a" * 1000)


def test_without_the_token_the_broker_refuses(node: RunningBroker) -> None:
    with grpc.insecure_channel(f"unix:{node.runtime}/broker.sock") as channel, pytest.raises(grpc.RpcError) as caught:
        BrokerStub(channel).Status(pb.StatusRequest(), timeout=PATIENCE)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_and_reflection_answer_stock_grpcio(stock: Stock) -> None:
    check: Any = stock.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    reply = check(health_pb2.HealthCheckRequest(service="snakepit.broker.v1.Broker"), timeout=PATIENCE)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    ask: Any = stock.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (listed,) = ask(asked, metadata=stock.metadata, timeout=PATIENCE)
    assert "snakepit.broker.v1.Broker" in {service.name for service in listed.list_services_response.service}


@pytest.mark.parametrize(
    ("command", "arguments", "code", "output", "errors"),
    [
        ("echo", '{"value": 3}', 0, "3\n", ""),
        ("raises", '{"text": "broken"}', 1, "", "adapter_error (failed): LookupError: broken\n"),
    ],
)
def test_the_example_runs_as_a_program(
    node: RunningBroker, command: str, arguments: str, code: int, output: str, errors: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakepit.examples.grpc_client", str(node.runtime), "one", command, arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (code, output, errors)
