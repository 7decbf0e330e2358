"""The broker's gRPC service as strangers meet it: the official grpcio client, grpcurl's services, and bad manners."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2

from snakepit.pools.adapters.grpc import MAX_MESSAGE, session
from snakepit.pools.adapters.grpc.service import STREAM_CREDIT, make_server
from snakepit.pools.adapters.records.recent_events import RecentEvents
from snakepit.pools.broker import errors
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.caller import CallerIdentity, Limits, acting_for
from snakepit.pools.broker.node import NodeFacts
from snakepit.pools.broker.ports import Definition, NoMeter, Ports
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.client import Json, connect
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_grpc import BrokerStub
from snakepit.workers.transport import DIRECT_REPLY, FAST_PATH
from snakepit.workers.wire.worker_pb2 import Delivery
from tests.brokers import PATIENCE, ROOT, RunningBroker, broker, overrun, wait_gone
from tests.fakes import FakeClock, FakeLauncher, FakeLinker, FixedDefinitions, ListRecorder

BROKER = "/snakepit.broker.v1.Broker/"
REPLIES = {"ExecuteStream": pb.ExecuteReply, "Execute": pb.ExecuteReply, "Status": pb.StatusReply}
REPLIES |= {"Commands": pb.CommandsReply, "Sweep": pb.SweepReply, "Apply": pb.ApplyReply, "Recycle": pb.RecycleReply}
REPLIES["Plan"] = pb.PlanReply


class Stranger:
    """The official client, with nothing of ours but the messages."""

    def __init__(self, address: str, token: str = "") -> None:
        self.channel = grpc.insecure_channel(address)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def unary(self, method: str, request: Any) -> Any:
        call = self.channel.unary_unary(
            BROKER + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=REPLIES[method].FromString,
        )
        return call(request, metadata=self.metadata, timeout=PATIENCE)

    def stream(self, request: pb.ExecuteRequest) -> Any:
        call = self.channel.unary_stream(
            BROKER + "ExecuteStream",
            request_serializer=pb.ExecuteRequest.SerializeToString,
            response_deserializer=pb.ExecuteReply.FromString,
        )
        return call(request, metadata=self.metadata, timeout=PATIENCE)

    def execute(self, pool: str, command: str, timeout: float = 0.0, **arguments: Any) -> Any:
        request = pb.ExecuteRequest(pool=pool, command=command, arguments=json.dumps(arguments), timeout=timeout)
        return self.unary("Execute", request)

    def refused(self, pool: str, command: str, **arguments: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        with pytest.raises(grpc.RpcError) as caught:
            self.execute(pool, command, **arguments)
        error: Any = caught.value
        return error.code(), error.details(), dict(error.trailing_metadata())


@pytest.fixture(scope="module")
def recent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "recent"


@pytest.fixture(scope="module")
def node(recent: Path) -> Iterator[RunningBroker]:
    pools = {
        "one": {"size": 1, "cancel_grace": PATIENCE, "max_payload": 2048, "args": {"recent": str(recent)}},
        "paused": {"size": 1, "paused": True},
        "none": {"size": 1, "queue_limit": 0, "adapter": "slow", "args": {"path": str(recent.parent / "pipe")}},
    }
    os.mkfifo(recent.parent / "pipe")
    with broker(pools) as running:
        running.ready("one")
        yield running


@pytest.fixture
def stranger(node: RunningBroker) -> Iterator[Stranger]:
    client = Stranger(f"unix:{node.runtime}/broker.sock", (node.runtime / "token").read_text())
    with client.channel:
        yield client


def test_the_official_client_executes_a_command(stranger: Stranger) -> None:
    reply = stranger.execute("one", "echo", value={"a": "é"})
    assert json.loads(reply.json) == {"a": "é"}
    assert reply.timing.call
    assert reply.timing.worker.startswith("one-")
    assert reply.timing.run_seconds >= 0


@pytest.mark.parametrize("method", sorted(REPLIES))
def test_a_call_without_a_request_gets_an_error(stranger: Stranger, method: str) -> None:
    call = stranger.channel.stream_unary(BROKER + method, response_deserializer=REPLIES[method].FromString)
    with pytest.raises(grpc.RpcError) as caught:
        call(iter(()), metadata=stranger.metadata, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "The request is missing."


def test_the_limits_of_a_caller_hold_over_all_clients(stranger: Stranger, node: RunningBroker) -> None:
    limits = Limits(calls_per_second=0.001, calls_burst=3)
    with (
        connect(f"{node.runtime}/broker.sock", connect_timeout=PATIENCE) as client,
        acting_for(CallerIdentity("snk_1", "ada", limits)),
    ):
        answer = client.execute("one", "echo", value=1)
        assert (answer.value, answer.calls_left) == (1, 2)
        assert list(client.stream("one", "count", to=2)) == [0, 1]
    wire = pb.Caller(key="snk_1", key_limits=pb.Limits(calls_per_second=0.001, calls_burst=3))
    request = pb.ExecuteRequest(pool="one", command="echo", arguments='{"value": 1}', caller=wire)
    assert stranger.unary("Execute", request).timing.calls_left == 0
    with pytest.raises(grpc.RpcError) as caught:
        stranger.unary("Execute", request)
    metadata = dict(caught.value.trailing_metadata())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert metadata["snakepit-code"] == "limit_reached"
    assert json.loads(metadata["snakepit-details"]) == {"limit": "calls_per_second", "value": 0.001, "of": "key"}
    assert 900 < float(metadata["snakepit-retry-after"]) <= 1000
    with connect(f"{node.runtime}/broker.sock", connect_timeout=PATIENCE) as client:
        (quota,) = [one for one in client.status().quotas if one.of == "key"]
        assert (quota.name, quota.accepted, quota.refused, quota.in_flight) == ("snk_1", 3, 1, 0)
        assert client.call("one", "echo", value=2) == 2  # a client without an identity has no such limit


@pytest.mark.parametrize("method", sorted(REPLIES))
def test_bytes_that_are_no_message_are_refused(stranger: Stranger, method: str) -> None:
    call = stranger.channel.stream_unary(BROKER + method, response_deserializer=REPLIES[method].FromString)
    with pytest.raises(grpc.RpcError) as caught:
        call(iter((b"\xff\xff\xff",)), metadata=stranger.metadata, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not a protobuf message" in caught.value.details()
    assert dict(caught.value.trailing_metadata())["snakepit-code"] == "bad_request"


def test_bytes_travel_raw_both_ways(stranger: Stranger) -> None:
    request = pb.ExecuteRequest(pool="one", command="echo", attachments={"value": b"\0\xff"})
    assert stranger.unary("Execute", request).raw == b"\0\xff"


def test_a_stream_brings_its_chunks_and_ends_with_the_timing(stranger: Stranger) -> None:
    replies = list(stranger.stream(pb.ExecuteRequest(pool="one", command="count", arguments='{"to": 50}')))
    assert [json.loads(reply.json) for reply in replies[:-1]] == list(range(50))
    assert replies[-1].WhichOneof("value") is None
    assert replies[-1].timing.worker


async def test_a_reader_of_a_unary_stream_that_stops_stops_the_generator_after_exactly_its_credit(
    node: RunningBroker, recent: Path
) -> None:
    before = recent.read_text().count("made") if recent.exists() else 0
    request = pb.ExecuteRequest(pool="one", command="count", arguments='{"to": 200, "size": 2000}')
    message = 5 + pb.ExecuteReply(json=json.dumps("x" * 2000)).ByteSize()
    config = Configuration(http2_connection_window_size=65_535, http2_stream_window_size=65_535)
    channel = Channel(path=f"{node.runtime}/broker.sock", config=config)
    expected = before + 65_535 // message + STREAM_CREDIT + 1  # with the client, with the broker, and one that waits

    async def made() -> int:
        await asyncio.to_thread(node.status)
        return recent.read_text().count("made")

    try:
        metadata = {"authorization": f"Bearer {(node.runtime / 'token').read_text()}"}
        async with BrokerStub(channel).ExecuteStream.open(metadata=metadata) as stream:
            await stream.send_message(request, end=True)
            async with asyncio.timeout(PATIENCE):
                while not recent.exists() or await made() < expected:
                    pass
            assert {await made() for _ in range(50)} == {expected}
            assert len([reply async for reply in stream]) == 201
    finally:
        channel.close()


def test_a_plain_command_asked_for_as_a_stream_gives_one_message(stranger: Stranger) -> None:
    (reply,) = stranger.stream(pb.ExecuteRequest(pool="one", command="echo", arguments='{"value": 3}'))
    assert (reply.json, bool(reply.timing.call)) == ("3", True)


@pytest.mark.parametrize(
    ("pool", "command", "arguments", "status", "code", "outcome"),
    [
        ("ones", "echo", {}, "NOT_FOUND", "pool_unknown", "not_started"),
        ("one", "ecko", {}, "NOT_FOUND", "command_unknown", "not_started"),
        ("one", "typed", {"count": "x"}, "INVALID_ARGUMENT", "bad_arguments", "not_started"),
        ("one", "raises", {"text": "zoë\nline"}, "UNKNOWN", "adapter_error", "failed"),
        ("one", "echo", {"value": "x" * 3000}, "RESOURCE_EXHAUSTED", "payload_too_large", "not_started"),
        ("one", "returns_text", {"size": 3000}, "RESOURCE_EXHAUSTED", "result_too_large", "failed"),
        ("paused", "echo", {}, "UNAVAILABLE", "pool_paused", "not_started"),
        ("none", "echo", {}, "RESOURCE_EXHAUSTED", "queue_full", "not_started"),
        ("one", "echo", {"timeout": -1.0}, "INVALID_ARGUMENT", "bad_request", "not_started"),
        ("one", "echo", {"timeout": float("nan")}, "INVALID_ARGUMENT", "bad_request", "not_started"),
    ],
)
def test_an_error_is_a_status_with_code_and_outcome_as_trailing_metadata(
    stranger: Stranger, pool: str, command: str, arguments: dict[str, Any], status: str, code: str, outcome: str
) -> None:
    got, message, metadata = stranger.refused(pool, command, **arguments)
    assert got.name == status
    assert (metadata["snakepit-code"], metadata["snakepit-outcome"]) == (code, outcome)
    assert message
    if code == "queue_full":
        assert float(metadata["snakepit-retry-after"]) > 0
    if code == "adapter_error":
        assert message == "LookupError: zoë\nline"


def test_the_details_of_an_error_travel_where_they_fit(stranger: Stranger) -> None:
    _, _, metadata = stranger.refused("one", "echo", value="x" * 3000)
    assert json.loads(metadata["snakepit-details"])["limit"] == 2048


def test_an_error_in_a_stream_is_a_status_too(stranger: Stranger) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stranger.stream(pb.ExecuteRequest(pool="one", command="raises")))
    error: Any = caught.value
    assert dict(error.trailing_metadata())["snakepit-code"] == "adapter_error"


@pytest.mark.parametrize("field", ["priority", "arguments", "deep"])
def test_a_request_that_makes_no_sense_is_refused_by_name(stranger: Stranger, field: str) -> None:
    request = {
        "priority": pb.ExecuteRequest(pool="one", command="echo", priority=101),
        "arguments": pb.ExecuteRequest(pool="one", command="echo", arguments="[1, 2"),
        "deep": pb.ExecuteRequest(pool="one", command="echo", arguments='{"value": ' + "[" * 900 + "]" * 900 + "}"),
    }[field]
    with pytest.raises(grpc.RpcError) as caught:
        stranger.unary("Execute", request)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert stranger.execute("one", "echo", value=1).json == "1"


def test_the_deadline_of_a_call_is_kept(stranger: Stranger) -> None:
    def late(timeout: float) -> None:
        status, message, metadata = stranger.refused("one", "obedient", timeout=timeout)
        assert status is grpc.StatusCode.DEADLINE_EXCEEDED
        raise errors.DeadlineExceeded(message, outcome=metadata["snakepit-outcome"])

    overrun(late, 0.2)


@pytest.mark.parametrize(
    "metadata",
    [(), (("authorization", "Bearer wrong"),), (("authorization", "Bearer"),), (("authorization-bin", b"Bearer"),)],
)
@pytest.mark.parametrize("method", ["Execute", "Status", "Recycle", "Session"])
def test_a_request_without_the_right_token_is_refused(node: RunningBroker, metadata: Any, method: str) -> None:
    with Stranger(f"unix:{node.runtime}/broker.sock").channel as channel:
        call: Any = channel.stream_stream(BROKER + method)
        with pytest.raises(grpc.RpcError) as caught:
            next(call(iter([b""]), metadata=metadata, timeout=PATIENCE))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "token" in error.details()


def test_health_answers_serving_without_a_token(node: RunningBroker) -> None:
    with Stranger(f"unix:{node.runtime}/broker.sock").channel as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "snakepit.broker.v1.Broker"):
            reply = check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="no.such"), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_broker_without_a_token(node: RunningBroker) -> None:
    with Stranger(f"unix:{node.runtime}/broker.sock").channel as channel:
        ask: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="snakepit.broker.v1.Broker"),
        ]
        listed, described = ask(iter(requests), timeout=PATIENCE)
    names = {service.name for service in listed.list_services_response.service}
    assert "snakepit.broker.v1.Broker" in names
    assert b"ExecuteRequest" in b"".join(described.file_descriptor_response.file_descriptor_proto)


def test_status_commands_and_operators_orders_work_for_strangers(stranger: Stranger, node: RunningBroker) -> None:
    status = stranger.unary("Status", pb.StatusRequest())
    assert {pool.name for pool in status.pools} == {"one", "paused", "none"}
    assert status.node.pid == node.process.pid
    commands = stranger.unary("Commands", pb.CommandsRequest(pool="one")).commands
    assert json.loads(next(command.schema for command in commands if command.name == "typed"))["required"] == ["count"]
    plan = stranger.unary("Plan", pb.PlanRequest(pool="one"))
    assert (plan.at_once, len(plan.workers)) == (1, 1)
    assert not plan.workers[0].HasField("seconds_until_ttl")
    assert stranger.unary("Apply", pb.ApplyRequest()).pools == 3
    assert not node.told("operator.acted")
    changed = pb.ApplyRequest(pool="one", action="scale 1 to 2", actor="ada", reason="load")
    assert stranger.unary("Apply", changed).pools == 3
    acted = node.until("operator.acted", pool="one", reason="scale")
    assert acted["message"] == "ada: scale 1 to 2: load"
    swept = stranger.unary("Sweep", pb.SweepRequest(source="test", interval=60.0))
    assert swept.pools == 3
    for method, request in [
        ("Status", pb.StatusRequest(pool="q")),
        ("Commands", pb.CommandsRequest(pool="q")),
        ("Plan", pb.PlanRequest(pool="q")),
        ("Plan", pb.PlanRequest(pool="one", worker="q")),
        ("Recycle", pb.RecycleRequest(pool="q")),
        ("Recycle", pb.RecycleRequest(pool="one", worker="q")),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            stranger.unary(method, request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("request_", [("", 60.0), ("own", 60.0), ("x", 0.0), ("x", -1.0), ("x", float("nan"))])
def test_a_sweep_without_a_source_or_a_sensible_interval_is_refused(
    stranger: Stranger, request_: tuple[str, float]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stranger.unary("Sweep", pb.SweepRequest(source=request_[0], interval=request_[1]))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(("source:", "interval:"))


def test_a_client_that_walks_away_from_a_stream_stops_the_generator(stranger: Stranger, recent: Path) -> None:
    before = recent.read_text().splitlines() if recent.exists() else []
    chunks = stranger.stream(pb.ExecuteRequest(pool="one", command="count", arguments='{"to": 1000000}'))
    assert [next(chunks).json for _ in range(3)] == ["0", "1", "2"]
    chunks.cancel()
    assert stranger.execute("one", "echo", timeout=PATIENCE, value=1).json == "1"  # its slot is free again
    lines = recent.read_text().splitlines()[len(before) :]
    assert lines.count("closed") == 1
    assert len(lines) < 500, "the generator ran far ahead of its reader"


def test_a_client_that_walks_away_from_a_call_frees_its_slot(stranger: Stranger) -> None:
    call: Any = stranger.channel.unary_unary(BROKER + "Execute")
    request = pb.ExecuteRequest(pool="one", command="obedient", timeout=60.0).SerializeToString()
    running = call.future(request, metadata=stranger.metadata)
    for _ in range(20_000):
        status = stranger.unary("Status", pb.StatusRequest(pool="one"))
        if any(worker.calls for worker in status.workers):
            break
    running.cancel()
    assert stranger.execute("one", "echo", timeout=PATIENCE, value=1).json == "1"


@pytest.mark.parametrize("method", ["Execute", "ExecuteStream", "Session"])
async def test_a_message_of_impossible_size_is_refused_before_its_bytes_come(node: RunningBroker, method: str) -> None:
    """Only the five bytes in front are sent: a length that no message may have."""
    token = (node.runtime / "token").read_text()
    channel = Channel(path=str(node.runtime / "broker.sock"))
    stub = getattr(BrokerStub(channel), method)
    try:
        with pytest.raises((GRPCError, StreamTerminatedError)):
            await _send_raw(stub, f"Bearer {token}", b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"))
    finally:
        channel.close()
    assert await node.client.acall("one", "echo", value="still here") == "still here"


@pytest.mark.parametrize("way", ["call", "attachment", "among others"])
def test_a_call_larger_than_every_pool_allows_is_refused_before_it_is_buffered(way: str) -> None:
    """Of 64 MiB, where the largest limit is 1 MiB. The other calls of the session go on."""
    with broker({"one": {"size": 1}}) as node:
        node.ready("one")
        node.client.call("one", "echo", value="x" * 2**19)
        before = _peak_of(node)
        large: Any = b"x" * 2**26 if way == "attachment" else "x" * 2**26
        calls = [node.client.submit("one", "echo", value=one) for one in range(50)] if way == "among others" else []
        # Json: other bytes of this size travel in shared memory.
        arguments = Json(value=large) if way == "attachment" else {"value": large}
        refused = node.client.submit("one", "echo", arguments)
        calls += [node.client.submit("one", "echo", value=one) for one in range(50, 100)]
        with pytest.raises(errors.PayloadTooLarge) as caught:
            refused.result(PATIENCE)
        assert caught.value.details["limit"] == 2**20
        assert caught.value.details["bytes"] >= 2**26
        assert [call.result(PATIENCE) for call in calls][-1] == 99
        assert _peak_of(node) - before < 16 * 2**20


def test_a_unary_call_larger_than_every_pool_allows_is_refused(stranger: Stranger) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stranger.execute("one", "echo", value="x" * 2**26)
    assert dict(caught.value.trailing_metadata())["snakepit-code"] == "payload_too_large"  # type: ignore[attr-defined]


def _peak_of(node: RunningBroker) -> int:
    """The highest resident memory of the broker so far, in bytes."""
    status = Path(f"/proc/{node.client.status().node.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def _send_raw(stub: Any, authorization: str, data: bytes) -> None:
    """Send bytes that need not be a message, and wait for what comes of it."""
    async with asyncio.timeout(PATIENCE), stub.open(metadata={"authorization": authorization}) as stream:
        await stream.send_request()
        await stream._stream.send_data(data)
        if stream._cardinality.client_streaming:
            await stream.end()
        await stream.recv_message()
        await stream.recv_trailing_metadata()


def test_removing_a_pool_lets_its_running_calls_finish(tmp_path: Path) -> None:
    """Longer than the pause between two looks for orphans."""
    with broker({"p": {"size": 1}}) as running:
        running.ready("p")
        (pid,) = running.pids("p")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        held = running.client.submit("p", "hold", path=str(pipe))
        for _ in range(20_000):
            if running.status("p").workers[0].calls:
                break
        running.define({})
        running.until("pool.removed")
        assert not wait_gone(pid, 2.2), "it was taken for an orphan"
        with open(pipe, "wb"):
            pass
        assert held.result(PATIENCE) == 1
        assert wait_gone(pid, PATIENCE)


# The service over fakes, in this process: where the limits can be made small.


class Served:
    def __init__(self, channel: Channel, broker: Broker, launcher: FakeLauncher) -> None:
        self.channel, self.broker, self.launcher = channel, broker, launcher
        self.metadata = {"authorization": "Bearer t"}

    async def echo(self, value: Any) -> Any:
        request = pb.ExecuteRequest(pool="p", command="echo", arguments=json.dumps({"value": value}))
        reply = await BrokerStub(self.channel).Execute(request, metadata=self.metadata, timeout=PATIENCE)
        return json.loads(reply.json)

    async def until(self, question: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not question():
                await asyncio.sleep(0.001)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture(params=["1", "0"], ids=["fast path", "public API"])
async def served(home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setenv(FAST_PATH, request.param)
    launcher, recorder = FakeLauncher(), ListRecorder()
    spec = PoolSpec(name="p", adapter="everything", size=2)
    definitions = FixedDefinitions(Definition(spec, "tests.everything.Everything"))
    clock = FakeClock()  # stands still: no deadline passes
    recent = RecentEvents(NoMeter(), recorder)
    running = Broker(
        NodeFacts("n", "1", 1, f"{home}/s", "3.11", "0000"),
        Ports(launcher, FakeLinker(launcher), clock, definitions, recent, recent),
        Random(1),
    )
    server = make_server(running, "t", recent)
    await running.start()
    await server.start(path=f"{home}/s")
    channel = Channel(path=f"{home}/s")
    try:
        yield Served(channel, running, launcher)
    finally:
        channel.close()
        await running.stop(grace=0.0)
        server.close()
        await server.wait_closed()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Limits of kilobytes, and the largest number of bytes that ever waited in a session."""
    monkeypatch.setattr(session, "MAX_WAITING", 100_000)
    waiting: list[int] = [0]
    added = session.Batch.added

    def measured(self: Any, size: int, *, urgent: bool = False) -> None:
        added(self, size, urgent=urgent)
        waiting[0] = max(waiting[0], self.waiting)

    monkeypatch.setattr(session.Batch, "added", measured)
    return waiting


async def test_a_session_that_floods_and_never_reads_is_ended_and_others_are_served(
    served: Served, small: list[int]
) -> None:
    calls = [pb.Request(call=pb.Call(ref=n, pool="x" * 2000, command="echo")) for n in range(1, 101)]
    other = Channel(path=served.channel._path)

    async def flood() -> None:
        async with BrokerStub(other).Session.open(metadata=served.metadata) as stream:
            for _ in range(200):  # twenty thousand calls, forty megabytes of refusals
                await stream.send_message(pb.Requests(requests=calls))
                assert await served.echo("me too") == "me too"

    try:
        with pytest.raises(GRPCError, match="answers waited to be read by this client") as caught:
            await flood()
    finally:
        other.close()
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert 300_000 < small[0] < 1_000_000
    await served.until(lambda: served.broker.sessions == 0)
    assert await served.echo("still here") == "still here"


async def test_a_stopped_broker_ends_sessions_with_what_became_of_their_last_calls(served: Served) -> None:
    async with BrokerStub(served.channel).Session.open(metadata=served.metadata) as stream:
        await stream.send_message(pb.Requests())
        await served.until(lambda: served.broker.sessions == 1)
        await served.broker.stop(grace=0.0)
        for session in tuple(served.broker.open_sessions):
            session.leave()
        assert await stream.recv_message() is None
        await stream.end()
        await stream.recv_trailing_metadata()
    ended = dict(stream.trailing_metadata)
    assert (ended["snakepit-code"], ended["snakepit-outcome"]) == ("shutting_down", "not_started")
    assert served.broker.sessions == 0


async def test_a_session_that_promises_room_for_chunks_and_does_not_read_them_is_ended(
    served: Served, small: list[int]
) -> None:
    call = pb.Call(ref=1, pool="p", command="count", arguments=b'{"to": 30000}', credit=2**32 - 1)

    async def never_read() -> None:
        async with BrokerStub(served.channel).Session.open(metadata=served.metadata) as stream:
            await stream.send_message(pb.Requests(requests=[pb.Request(call=call)]))
            await served.until(lambda: small[0] > 100_000 and served.broker.sessions == 0)
            while True:  # until the end that the broker sent has come
                await stream.send_message(pb.Requests())
                await served.echo("me too")

    with pytest.raises(GRPCError, match="answers waited to be read by this client"):
        await asyncio.wait_for(never_read(), PATIENCE)
    assert small[0] < 1_000_000
    await served.until(lambda: served.broker.snapshot("p").pools[0].free == 2)
    assert not served.broker.runners["p"].pool.calls
    assert await served.echo("still here") == "still here"


async def test_a_session_that_ends_cancels_what_it_waits_for(served: Served) -> None:
    async with BrokerStub(served.channel).Session.open(metadata=served.metadata) as stream:
        requests = [pb.Request(call=pb.Call(ref=n, pool="p", command="obedient")) for n in (1, 2, 3)]
        await stream.send_message(pb.Requests(requests=requests))
        await served.until(lambda: served.broker.snapshot("p").pools[0].waiting == 1)
        await stream.cancel()
    await served.until(lambda: served.broker.snapshot("p").pools[0].free == 2)
    assert served.broker.sessions == 0
    assert not served.broker.runners["p"].pool.calls


async def test_a_session_answers_bad_calls_one_by_one(served: Served) -> None:
    requests = [
        pb.Request(call=pb.Call(ref=1, pool="p", command="hold")),
        pb.Request(call=pb.Call(ref=1, pool="p", command="echo")),
        pb.Request(call=pb.Call(ref=2, pool="p", command="echo", priority=1000)),
        pb.Request(call=pb.Call(ref=3, pool="p", command="echo", timeout=-1)),
        pb.Request(cancel=pb.Cancel(ref=99)),
        pb.Request(credit=pb.Credit(ref=99, chunks=5)),
        pb.Request(),
        pb.Request(call=pb.Call(ref=4, pool="p", command="echo", arguments=b'{"value": 4}')),
        pb.Request(cancel=pb.Cancel(ref=1)),
    ]
    got: dict[int, list[Any]] = {}
    async with BrokerStub(served.channel).Session.open(metadata=served.metadata) as stream:
        await stream.send_message(pb.Requests(requests=requests))
        while sum(map(len, got.values())) < 5:
            replies = await stream.recv_message()
            assert replies is not None
            for reply in replies.replies:
                got.setdefault(reply.ref, []).append(reply)
        await stream.cancel()
    assert sorted(reply.error.code for reply in got[1]) == ["bad_request", "cancelled"]
    assert "names another open call" in next(r.error.message for r in got[1] if r.error.code == "bad_request")
    assert got[2][0].error.message.startswith("priority: 1000")
    assert got[3][0].error.message.startswith("timeout: -1")
    assert got[4][0].result.value.json == b"4"


async def answers(served: Served, requests: list[pb.Request], count: int) -> list[pb.Reply]:
    """What a session says to these requests, up to so many last words."""
    got: list[pb.Reply] = []
    async with BrokerStub(served.channel).Session.open(metadata=served.metadata) as stream:
        await stream.send_message(pb.Requests(requests=requests))
        while sum(len(reply.results.refs) or 1 for reply in got) < count:
            replies = await asyncio.wait_for(stream.recv_message(), PATIENCE)
            assert replies is not None
            got += replies.replies
        await stream.cancel()
    return got


def calls(refs: list[int], *arguments: bytes, **fields: Any) -> pb.Request:
    return pb.Request(calls=pb.Calls(refs=refs, arguments=arguments, **{"pool": "p", "command": "echo", **fields}))


async def test_calls_that_come_together_are_answered_each_with_its_own_value_and_timing(served: Served) -> None:
    refs = list(range(1, 41))
    got = await answers(served, [calls(refs, *(b'{"value": %d}' % ref for ref in refs))], 40)
    told = [
        one
        for reply in got
        for one in zip(
            reply.results.refs,
            map(json.loads, reply.results.json),
            reply.results.calls,
            reply.results.run_seconds,
            strict=True,
        )
    ]
    assert {ref: value for ref, value, _, _ in told} == {ref: ref for ref in refs}
    assert len({call for _, _, call, _ in told}) == 40
    assert all(reply.results.worker.startswith("p-") for reply in got)
    assert {ran for _, _, _, ran in told} == {0.001}
    assert served.broker.snapshot("p").pools[0].finished == 40


async def test_bytes_failures_and_refusals_among_calls_in_a_batch_get_replies_of_their_own(
    served: Served,
) -> None:
    requests = [
        calls([1, 2], b'{"value": 1}', b"{}"),
        calls([3], b"{}", command="raises"),
        calls([4, 5], b"{}", b"{}", command="nothing_of_the_kind"),
        calls([6, 7], b"{}", b"{}", pool="q"),
        calls([8, 8], b"{}", b"{}"),
        calls([9], b"{}", priority=1000),
        calls([10, 11], b"{}"),
        calls([12], b"{}", timeout=-1),
        calls([]),
        pb.Request(call=pb.Call(ref=13, pool="p", command="echo")),
    ]
    got = await answers(served, requests, 14)
    results = sorted(ref for reply in got for ref in reply.results.refs)
    errors = sorted((reply.ref, reply.error.code) for reply in got if reply.HasField("error"))
    assert results == [1, 2, 8]
    assert [reply.ref for reply in got if reply.HasField("result")] == [13], "a foreign call is answered as ever"
    assert errors == [
        (3, "adapter_error"),
        *((ref, "command_unknown") for ref in (4, 5)),
        *((ref, "pool_unknown") for ref in (6, 7)),
        *((ref, "bad_request") for ref in (8, 9, 10, 11, 12)),
    ]


async def test_one_of_the_calls_that_came_together_is_cancelled_alone(served: Served) -> None:
    requests = [calls([1, 2, 3], b"{}", b"{}", b"{}", command="hold"), pb.Request(cancel=pb.Cancel(ref=2))]
    (reply,) = await answers(served, requests, 1)
    assert (reply.ref, reply.error.code) == (2, "cancelled")
    await served.until(lambda: served.broker.sessions == 0)


async def test_the_queue_limit_counts_calls_that_come_together_one_by_one(served: Served) -> None:
    await served.until(lambda: served.broker.snapshot("p").pools[0].free == 2)
    spec = PoolSpec(name="p", adapter="everything", size=2, queue_limit=3)
    served.broker.runners["p"].apply(Definition(spec, "tests.everything.Everything"))
    got = await answers(served, [calls(list(range(1, 10)), *([b"{}"] * 9), command="hold")], 4)
    assert [(reply.ref, reply.error.code) for reply in got] == [(ref, "queue_full") for ref in (6, 7, 8, 9)]


@pytest.fixture
def reply_socket(home: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind(str(home / "r-0123abcd"))
        yield made


async def test_a_call_whose_result_is_to_be_delivered_is_answered_in_the_reply_socket(
    served: Served, reply_socket: socket.socket, home: Path
) -> None:
    """And others beside it through the session; the reply_socket of a session that has ended is removed."""

    def call(ref: int, command: str, deliver: bool = True, **arguments: int) -> pb.Request:
        given = json.dumps(arguments).encode()
        return pb.Request(call=pb.Call(ref=ref, pool="p", command=command, arguments=given, direct_reply=deliver))

    metadata = {**served.metadata, "snakepit-reply-socket": "r-0123abcd"}
    async with BrokerStub(served.channel).Session.open(metadata=metadata) as stream:

        async def said(*requests: pb.Request) -> list[tuple[int, bytes, str]]:
            await stream.send_message(pb.Requests(requests=requests))
            replies = await asyncio.wait_for(stream.recv_message(), PATIENCE)
            assert replies is not None
            return [(reply.ref, reply.result.value.json, reply.error.code) for reply in replies.replies]

        await stream.send_message(pb.Requests(requests=[call(7, "echo", value=1)]))
        delivery = Delivery.FromString(await asyncio.get_running_loop().sock_recv(reply_socket, 65_536))
        assert (delivery.ref, delivery.json, delivery.worker[:2]) == (7, b"1", "p-")
        await served.until(lambda: not served.broker.runners["p"].pool.calls)
        assert await said(call(8, "echo", deliver=False, value=3)) == [(8, b"3", "")]
        assert await said(call(9, "hold"), call(10, "echo", deliver=False, value=2)) == [(10, b"2", "")]
        assert await said(pb.Request(cancel=pb.Cancel(ref=9))) == [(9, b"", "cancelled")]
        await stream.cancel()
    await served.until(lambda: not (home / "r-0123abcd").exists())
    assigned = [order for process in served.launcher.processes for order in process.assigned]
    by_box = {order.reply_socket for order in assigned if order.ref == 7}
    assert by_box == {f"{home}/r-0123abcd"}
    assert {order.command for order in assigned if order.reply_socket} == {"echo", "hold"}
    assert served.broker.runners["p"].pool.finished_count == 3


async def test_a_broker_without_direct_reply_answers_through_the_session(
    served: Served, reply_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECT_REPLY, "0")
    call = pb.Call(ref=1, pool="p", command="echo", arguments=b'{"value": 1}', direct_reply=True)
    metadata = {**served.metadata, "snakepit-reply-socket": "r-0123abcd"}
    async with BrokerStub(served.channel).Session.open(metadata=metadata) as stream:
        await stream.send_message(pb.Requests(requests=[pb.Request(call=call)]))
        replies = await asyncio.wait_for(stream.recv_message(), PATIENCE)
        assert replies is not None
        assert [reply.result.value.json for reply in replies.replies] == [b"1"]
        await stream.cancel()
    with pytest.raises(BlockingIOError):
        reply_socket.recv(65_536)


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_client_that_leaves_with_its_result_in_hand_has_not_cancelled_the_call(
    served: Served, reply_socket: socket.socket, monkeypatch: pytest.MonkeyPatch, delivered: bool
) -> None:
    """The worker's word about it may come later than the client's goodbye; but it is not waited for long."""
    monkeypatch.setattr(session, "REPORT_GRACE", PATIENCE if delivered else 0.0)
    call = pb.Call(ref=1, pool="p", command="obedient", direct_reply=True)
    metadata = {**served.metadata, "snakepit-reply-socket": "r-0123abcd"}
    async with BrokerStub(served.channel).Session.open(metadata=metadata) as stream:
        await stream.send_message(pb.Requests(requests=[pb.Request(call=call)]))
        await served.until(lambda: any(process.assigned for process in served.launcher.processes))
        await stream.end()
        assert await stream.recv_message() is None
        await stream.recv_trailing_metadata()
    (worker,) = [process for process in served.launcher.processes if process.assigned]
    pool = served.broker.runners["p"].pool
    if delivered:
        worker.report("delivered", worker.assigned[0].sequence, 0.5)
    await served.until(lambda: not pool.calls)
    assert (pool.finished_count, pool.failed_count) == ((1, 0) if delivered else (0, 1))
    assert bool(worker.cancelled) is not delivered


@pytest.mark.parametrize("name", ["../../etc/x", "r-0123abcde", "R-0123abcd", "broker.sock", "r-0123abcg"])
async def test_a_reply_socket_with_another_name_is_refused(served: Served, name: str) -> None:
    async def begin() -> None:
        metadata = {**served.metadata, "snakepit-reply-socket": name}
        async with BrokerStub(served.channel).Session.open(metadata=metadata) as stream:
            await stream.send_request()
            await stream.recv_message()

    with pytest.raises(GRPCError, match="snakepit-reply-socket") as caught:
        await begin()
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert await served.echo(1) == 1


async def test_a_worker_that_reports_an_unrequested_delivery_fails_the_call(served: Served) -> None:
    asked = asyncio.ensure_future(BrokerStub(served.channel).Execute(
        pb.ExecuteRequest(pool="p", command="hold"), metadata=served.metadata, timeout=PATIENCE
    ))  # fmt: skip
    await served.until(lambda: any(process.assigned for process in served.launcher.processes))
    (worker,) = [process for process in served.launcher.processes if process.assigned]
    worker.report("delivered", worker.assigned[0].sequence, 0.5)
    with pytest.raises(GRPCError, match="without a reply socket") as caught:
        await asked
    assert caught.value.status is Status.INTERNAL
    assert not served.broker.runners["p"].pool.calls
    assert await served.echo(1) == 1


async def test_what_is_no_message_ends_the_session_with_a_reason(served: Served) -> None:
    with pytest.raises(GRPCError) as caught:
        await _send_raw(BrokerStub(served.channel).Session, "Bearer t", b"\0\0\0\0\x04\xff\xff\xff\xff")
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert await served.echo(1) == 1


def test_many_clients_may_connect_while_the_broker_is_busy() -> None:
    with broker({"p": {"size": 1}}) as node, contextlib.ExitStack() as held:
        node.ready("p")
        os.kill(node.process.pid, signal.SIGSTOP)  # it accepts none meanwhile
        try:
            for _ in range(300):
                peer = held.enter_context(socket.socket(socket.AF_UNIX))
                peer.setblocking(False)
                peer.connect(str(node.runtime / "broker.sock"))
        finally:
            os.kill(node.process.pid, signal.SIGCONT)
        assert node.client.call("p", "echo", value=1) == 1


# The runtime directory


def run_on(directory: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """A broker that is expected to refuse the directory."""
    (home / "pools.json").write_text("{}")
    with open(os.devnull, "wb") as events:
        command = [sys.executable, "-m", "tests.brokers", str(os.getpid()), str(directory), str(home / "pools.json")]
        return subprocess.run(
            [*command, str(events.fileno()), "3600"],
            cwd=ROOT,
            pass_fds=(events.fileno(),),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line


def test_a_second_broker_on_a_directory_is_refused_and_the_first_is_unharmed(node: RunningBroker, home: Path) -> None:
    before = (node.runtime / "token").read_text(), (node.runtime / "instance").read_text()
    assert_refused(run_on(node.runtime, home), "already runs", f"pid {node.process.pid}", "RUNTIME_DIR")
    assert ((node.runtime / "token").read_text(), (node.runtime / "instance").read_text()) == before
    assert node.client.call("one", "echo", value="unharmed") == "unharmed"
    assert node.pids("one")


def test_a_directory_that_is_open_to_others_is_refused(home: Path) -> None:
    (home / "run").mkdir(mode=0o755)
    (home / "run").chmod(0o755)
    assert_refused(run_on(home / "run", home), "open to other users", "0755", "chmod it to 700")
    assert not list((home / "run").iterdir())


def test_a_link_is_not_followed(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    (home / "run").symlink_to(home / "real")
    assert_refused(run_on(home / "run", home), "is not a directory", "link")
    assert not list((home / "real").iterdir())


def test_a_file_in_its_place_is_refused(home: Path) -> None:
    (home / "run").touch()
    assert_refused(run_on(home / "run", home), "cannot be used as the runtime directory")


@pytest.mark.parametrize("name", ["lock", "instance", "broker.sock"])
def test_a_directory_where_a_file_of_the_broker_belongs_is_refused(home: Path, name: str) -> None:
    (home / "run").mkdir(mode=0o700)
    (home / "run" / name).mkdir()
    assert_refused(run_on(home / "run", home), name)


@pytest.mark.parametrize("over", [1, 2, 60])
def test_a_path_that_leaves_no_room_for_the_sockets_is_refused(home: Path, over: int) -> None:
    """The longest name in it is broker.sock: one byte too many is one too many."""
    length = 107 + over - len("/broker.sock") - len(str(home)) - 1
    assert_refused(run_on(home / ("d" * length), home), "too long", "RUNTIME_DIR")


def test_what_a_killed_broker_left_is_taken_over(home: Path) -> None:
    """A dead socket, a lock without an owner, half a token, an instance that is no JSON."""
    run = home / "run"
    run.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(run / "broker.sock"))
    dead.close()
    (run / "lock").write_text("4194304")
    (run / "instance").write_text("{half")
    (run / "token").symlink_to(home / "elsewhere")
    (run / ".token.new").write_text("killed while writing")
    for name in ("r-89abcdef", "r-01234567"):  # reply_sockets of clients that were killed
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
            box.bind(str(run / name))
    running = RunningBroker({"p": {"size": 1}}, home, 3600.0)
    try:
        running.until("listening")
        running.ready("p")
        assert running.client.call("p", "echo", value=1) == 1
        assert not (run / "token").is_symlink()
        assert not (run / "r-89abcdef").exists()
        assert (run / "token").stat().st_mode & 0o777 == 0o600
        assert (run / "broker.sock").stat().st_mode & 0o777 == 0o600
    finally:
        assert running.stop() == 0
    assert not list(run.iterdir())
    assert not (home / "elsewhere").exists()


async def test_a_watcher_gets_events_after_a_number_and_figures(served: Served) -> None:
    async def ask(**fields: Any) -> pb.StatusReply:
        request = pb.StatusRequest(**fields)
        return await BrokerStub(served.channel).Status(request, metadata=served.metadata, timeout=PATIENCE)

    everything = await ask(watch=True)
    assert everything.events[0].kind == "node.started"
    assert [event.seq for event in everything.events] == list(range(1, len(everything.events) + 1))
    last = everything.events[-1].seq
    later = await ask(watch=True, events_after=last - 1)
    assert [event.seq for event in later.events][:1] == [last]
    assert not (await ask()).events
