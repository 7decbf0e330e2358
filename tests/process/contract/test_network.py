"""The broker on a network: certificates, keys and their rights, limits, and peers that do not answer."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection

from snakepit.pools import permissions
from snakepit.pools.adapters.grpc.peer import NEEDS
from snakepit.pools.adapters.network.listener import bind
from snakepit.pools.broker.caller import CallerIdentity, Limits, acting_for
from snakepit.pools.broker.errors import (
    BrokerError,
    BrokerUnreachable,
    CertificateRefused,
    LimitReached,
    PermissionDenied,
    Unauthenticated,
)
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.client import Client, Tls, connect
from snakepit.pools.listening import ListenAddress
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_pb2_grpc import BrokerStub
from tests.brokers import PATIENCE, RunningBroker, broker
from tests.certificates import Authority

KEYS: dict[str, dict[str, Any]] = {
    **{f"snk_{scope}": {"scopes": [scope]} for scope in permissions.SCOPES},
    "snk_all": {"scopes": list(permissions.SCOPES)},
    "snk_other": {"scopes": list(permissions.SCOPES), "pools": ["other"]},
    "snk_limited": {"scopes": ["run"], "limits": {"calls_per_second": 0.001, "calls_burst": 1}},
}
REQUESTS: dict[str, Any] = {
    "Execute": pb.ExecuteRequest(pool="one", command="echo", arguments='{"value": 1}'),
    "ExecuteStream": pb.ExecuteRequest(pool="one", command="echo", arguments='{"value": 1}'),
    "Status": pb.StatusRequest(pool="one"),
    "Commands": pb.CommandsRequest(pool="one"),
    "Plan": pb.PlanRequest(pool="one"),
    "Metrics": pb.MetricsRequest(),
    "Sweep": pb.SweepRequest(source="test", interval=3600),
    "Apply": pb.ApplyRequest(pool="one", action="scale 1 to 1"),
    "Recycle": pb.RecycleRequest(pool="one", worker="none"),
    "Drain": pb.DrainRequest(resume=True),
    "Kill": pb.KillRequest(worker="one-1"),
    "Dump": pb.DumpRequest(worker="one-1"),
}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
REFUSED = {grpc.StatusCode.PERMISSION_DENIED: "permission_denied", grpc.StatusCode.UNAUTHENTICATED: "unauthenticated"}


class Network:
    """A broker with mutual TLS on a port of the loopback interface."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.authority = Authority(directory)
        self.directory = directory
        self.trusted = directory / "trusted.pem"
        self.trusted.write_bytes(self.authority.path.read_bytes())
        cert, key = self.authority.issue("server")
        self.keys = directory / "keys.json"
        self.keys.write_text(json.dumps(KEYS))
        config = {
            "tls": {"cert": cert, "key": key, "client_ca": str(self.trusted)},
            "keys": str(self.keys),
            "certificates": {"web": {"scopes": ["run", "view", "operate"]}, "one": {"scopes": ["view"]}},
            **options,
        }
        self.environment = {**os.environ, "LISTEN_CONFIG": json.dumps(config)}
        self.node: RunningBroker

    def listener(self) -> ListenerStatus:
        found: ListenerStatus = self.node.status().node.listeners[0]
        return found

    def tls(self, name: str = "", **more: Any) -> Tls:
        cert, key = self.authority.issue(name, **more) if name else ("", "")
        return Tls(str(self.authority.path), cert, key)

    def client(self, name: str = "web", key: str = "") -> Client:
        return connect(self.listener().address, tls=self.tls(name), key=key, connect_timeout=PATIENCE)

    def stub(self, key: str = "") -> tuple[BrokerStub, Any, grpc.Channel]:
        cert, private = self.authority.issue("nameless")
        channel = grpc.secure_channel(
            self.listener().address,
            grpc.ssl_channel_credentials(
                self.authority.path.read_bytes(), Path(private).read_bytes(), Path(cert).read_bytes()
            ),
        )
        return BrokerStub(channel), (("authorization", f"Bearer {key}"),) if key else (), channel

    def until_refused(self, reason: str, times: int = 1) -> None:
        """Wait until the broker has counted a refusal; each look is a round trip."""
        deadline = time.monotonic() + PATIENCE
        while self.listener().refused.get(reason, 0) < times:
            assert time.monotonic() < deadline, self.listener().refused


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = Network(tmp_path_factory.mktemp("network"))
    with broker({"one": {"size": 1}, "two": {"size": 1}}, env=made.environment) as made.node:
        made.node.ready("one")
        yield made
        if made.node._client:
            made.node._client.close()


def test_a_certificate_with_rights_needs_no_key(network: Network) -> None:
    with network.client() as client:
        assert client.call("one", "echo", value={"a": "é"}) == {"a": "é"}
        assert list(client.stream("one", "count", to=300)) == list(range(300))
        assert list(client.map("one", "echo", ({"value": n} for n in range(500)))) == list(range(500))
        assert client.call("one", "echo", value=b"y" * 200_000) == b"y" * 200_000
        listener = network.listener()
    assert (listener.tls, listener.connections >= 1) == ("mutual", True)


@pytest.mark.parametrize(
    ("side", "reason", "words"),
    [
        ("client", "certificate_expired", "the client's certificate has expired"),
        ("client", "certificate_untrusted", "not in the broker's client_ca"),
        ("client", "certificate_missing", "it requires a client certificate"),
        ("broker", "closed_by_client", "The certificate of the broker at .* is not accepted"),
    ],
)
def test_a_wrong_certificate_is_an_error_on_both_sides(
    network: Network, tmp_path: Path, side: str, reason: str, words: str
) -> None:
    other = Authority(tmp_path, "other")
    before = network.listener().refused.get(reason, 0)
    tls = {
        "certificate_expired": lambda: network.tls("web", days=-1, file="expired"),
        "certificate_untrusted": lambda: Tls(str(network.authority.path), *other.issue("web")),
        "certificate_missing": network.tls,
        "closed_by_client": lambda: Tls(str(other.path), *network.authority.issue("web")),
    }[reason]()
    client = connect(network.listener().address, tls=tls, key="snk_all", connect_timeout=PATIENCE)
    for ask in (lambda: client.call("one", "echo", value=1), client.status):
        with pytest.raises(CertificateRefused, match=words) as caught:
            ask()
        assert (caught.value.outcome, caught.value.details["side"]) == ("not_started", side)
    network.until_refused(reason, before + 2)


def test_a_certificate_of_the_broker_for_another_name_is_refused(network: Network) -> None:
    tls = Tls(str(network.authority.path), *network.authority.issue("web"), server_name="elsewhere")
    with pytest.raises(CertificateRefused, match="elsewhere"):
        connect(network.listener().address, tls=tls, connect_timeout=PATIENCE).call("one", "echo", value=1)


def allowed(method: str, key: str) -> bool:
    granted = permissions.of_scopes(KEYS[key]["scopes"])
    return key != "snk_other" and all(permission in granted for permission in NEEDS[method])


def test_every_method_is_in_the_table() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["Broker"].methods}
    assert methods - {"Session"} == set(REQUESTS) == set(NEEDS)


@pytest.mark.parametrize(
    "key", [*(f"snk_{scope}" for scope in permissions.SCOPES), "snk_all", "snk_other", "wrong", ""]
)
def test_a_key_may_use_the_methods_of_its_scopes_and_no_others(network: Network, key: str) -> None:
    stub, metadata, channel = network.stub(key)
    with channel:
        for method, request in REQUESTS.items():
            code, name = None, ""
            try:
                answer = getattr(stub, method)(request, metadata=metadata, timeout=PATIENCE)
                _ = list(answer) if method == "ExecuteStream" else answer
            except grpc.RpcError as error:
                code, name = error.code(), dict(error.trailing_metadata() or ()).get("snakepit-code")
            if key not in KEYS:
                assert (method, code, name) == (method, grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
            elif allowed(method, key):
                assert code not in REFUSED, (method, key)
            elif method == "Kill" or method == "Dump":  # an earlier kill may have ended the worker of that name
                assert code in (*REFUSED, grpc.StatusCode.NOT_FOUND), (method, key)
            else:
                assert (method, code, name) == (method, grpc.StatusCode.PERMISSION_DENIED, "permission_denied")


def test_each_call_of_a_session_has_the_rights_of_its_key(network: Network) -> None:
    with network.client("nameless", "snk_view") as client:
        assert [pool.name for pool in client.status().pools] == ["one", "two"]
        with pytest.raises(PermissionDenied, match="lacks the scope 'run'"):
            client.call("one", "echo", value=1)
        with pytest.raises(PermissionDenied):
            list(client.map("one", "echo", ({"value": n} for n in range(50))))
    with network.client("nameless", "snk_other") as client:
        assert client.status().pools == ()
        with pytest.raises(PermissionDenied, match="may not use the pool 'one'"):
            client.call("one", "echo", value=1)


def test_a_peer_cannot_choose_its_own_limits(network: Network) -> None:
    claimed = CallerIdentity("snk_claimed", "ada", Limits(calls_per_second=1000.0, calls_burst=1000))
    with network.client("nameless", "snk_limited") as client, acting_for(claimed):
        assert client.call("one", "echo", value=1) == 1
        with pytest.raises(LimitReached) as caught:
            client.call("one", "echo", value=2)
    assert caught.value.details["limit"] == "calls_per_second"


def test_the_actor_of_an_order_is_the_caller(network: Network) -> None:
    with network.client() as client:
        client.drain("ada", "a test")
        client.resume("ada", "a test")
    for reason in ("drain", "resume"):
        acted = partial(network.node.told, "operator.acted", reason=reason)
        network.node.wait(
            lambda acted=acted: any(one["data"]["actor"] == "certificate web for ada" for one in acted()), reason
        )


def test_a_revoked_key_ends_within_seconds(network: Network) -> None:
    with network.client("nameless", "snk_gone") as client:
        network.keys.write_text(json.dumps({**KEYS, "snk_gone": {"scopes": ["run"]}}))
        until(lambda: client.call("one", "echo", value=1) == 1, Unauthenticated)  # the wrong key was remembered
        waiting = client.submit("one", "obedient")
        network.keys.write_text(json.dumps(KEYS))
        assert isinstance(waiting.exception(PATIENCE), Unauthenticated)
        with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
            client.call("one", "echo", value=1)


def until(ask: Callable[[], bool], *errors: type[BrokerError]) -> None:
    """Ask until the answer is true; these errors are none."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if ask():
                return
        except errors:
            pass
        assert time.monotonic() < deadline


def test_files_are_read_again_and_connections_go_on(network: Network) -> None:
    with network.client() as before:
        assert before.call("one", "echo", value=1) == 1
        expires = network.listener().certificate_expires
        network.authority.issue("server", days=9)
        until(lambda: network.listener().certificate_expires > expires + 86_400)
        connections = network.listener().accepted
        assert before.call("one", "echo", value=2) == 2
        assert network.listener().accepted == connections
        with connect(
            network.listener().address, tls=network.tls("two"), key="snk_all", connect_timeout=PATIENCE
        ) as after:
            assert after.call("one", "echo", value=3) == 3


def test_a_file_that_is_half_written_leaves_the_last_one_in_force(network: Network) -> None:
    whole = Path(network.directory / "server.crt").read_text()
    Path(network.directory / "server.crt").write_text(whole[:100])
    until(lambda: "server.crt" in network.listener().problem)
    with network.client() as client:
        assert client.call("one", "echo", value=1) == 1
    Path(network.directory / "server.crt").write_text(whole)
    until(lambda: not network.listener().problem)


def test_a_certificate_that_is_removed_is_refused_and_its_connections_end(network: Network, tmp_path: Path) -> None:
    second = Authority(tmp_path, "second")
    trusted = network.trusted.read_bytes()
    network.trusted.write_bytes(trusted + second.path.read_bytes())
    tls = Tls(str(network.authority.path), *second.issue("web"))
    with network.client() as kept, connect(network.listener().address, tls=tls, connect_timeout=PATIENCE) as client:
        until(lambda: client.call("one", "echo", value=1) == 1, CertificateRefused)
        assert kept.call("one", "echo", value=1) == 1
        waiting = client.submit("one", "obedient")
        network.trusted.write_bytes(trusted)
        assert isinstance(waiting.exception(PATIENCE), BrokerUnreachable)
        network.until_refused("certificate_removed")
        with pytest.raises(CertificateRefused, match="not in the broker's client_ca"):
            client.call("one", "echo", value=1)
        assert kept.call("one", "echo", value=1) == 1


def test_reflection_over_the_network_needs_a_key(network: Network) -> None:
    _, metadata, channel = network.stub("snk_view")
    with channel:
        reflect = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflect(iter([asked]), metadata=metadata, timeout=PATIENCE)
        assert "snakepit.broker.v1.Broker" in {one.name for one in answer.list_services_response.service}
        with pytest.raises(grpc.RpcError) as caught:
            list(reflect(iter([asked]), timeout=PATIENCE))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_health_of_a_pool_follows_its_workers_and_a_drain(network: Network) -> None:
    _, metadata, channel = network.stub("snk_other")
    words = {
        "request_serializer": health_pb2.HealthCheckRequest.SerializeToString,
        "response_deserializer": health_pb2.HealthCheckResponse.FromString,
    }
    with channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check", **words)
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch", **words)

        def asked(service: str) -> Any:
            return health_pb2.HealthCheckRequest(service=service)

        for service in ("", "snakepit.broker.v1.Broker", "two"):
            until(lambda service=service: check(asked(service), timeout=PATIENCE).status == 1)
        watched = {service: watch(asked(service), timeout=PATIENCE) for service in ("", "two", "three")}
        first = {service: next(stream).status for service, stream in watched.items()}
        assert first == {"": SERVING, "two": SERVING, "three": health_pb2.HealthCheckResponse.SERVICE_UNKNOWN}
        network.node.client.drain("ada", "a test")
        assert next(watched["two"]).status == NOT_SERVING
        assert check(asked("snakepit.broker.v1.Broker"), timeout=PATIENCE).status == NOT_SERVING
        assert check(asked(""), timeout=PATIENCE).status == SERVING  # the process is well: no reason to restart it
        network.node.client.resume("ada", "a test")
        assert next(watched["two"]).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(asked("two"), metadata=metadata, timeout=PATIENCE)  # its key may not use the pool
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_peer_that_answers_nothing_is_noticed_on_both_sides(network: Network) -> None:
    context = network.tls("web").context()
    context.set_alpn_protocols(["h2"])
    host, _, port = network.listener().address.rpartition(":")
    with (
        socket.create_server(("127.0.0.1", 0)) as dead,
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as mute,
        connect(f"127.0.0.1:{dead.getsockname()[1]}", key="snk_all", connect_timeout=PATIENCE) as client,
    ):
        mute.settimeout(PATIENCE)
        mute.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        began = time.monotonic()
        waiting = client.submit("one", "echo", value=1)
        with pytest.raises(OSError, match=r"reset|EOF"):
            read_all(mute)
        print(f"the broker noticed after {time.monotonic() - began:.1f} s")
        error = waiting.exception(PATIENCE)
        print(f"the client noticed after {time.monotonic() - began:.1f} s")
        assert isinstance(error, BrokerUnreachable)
        assert "does not answer any more" in error.message
        network.until_refused("dead_peer")


def test_the_number_of_connections_and_their_times_are_limited(tmp_path: Path) -> None:
    limits = {"connections_per_host": 3, "handshake_timeout": 0.5, "login_timeout": 1.0, "streams": 7}
    files = {"cert": str(tmp_path / "server.crt"), "key": str(tmp_path / "server.key")}
    made = Network(tmp_path, tls=files, **limits)
    with broker({"one": {"size": 1, "max_payload": 2048}}, env=made.environment) as made.node:
        made.node.ready("one")
        host, _, port = made.listener().address.rpartition(":")
        until(lambda: say_nothing(host, int(port)) or made.listener().refused.get("too_many_of_host", 0) >= 2)
        made.until_refused("timeout", 3)
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        context.set_alpn_protocols(["h2"])
        until(lambda: login_ends(context, host, int(port)))
        made.until_refused("no_login")
        until(lambda: announced_streams(context, host, int(port)) == 7)
        tls = made.tls()
        with connect(made.listener().address, tls=tls, key="snk_all", connect_timeout=PATIENCE) as client:
            until(lambda: client.call("one", "echo", value=1) == 1, BrokerUnreachable)
            with pytest.raises(BrokerError) as caught:
                client.call("one", "echo", value="x" * 2_000_000)
            assert caught.value.code == "payload_too_large"
            assert made.listener().tls == "server"


@pytest.mark.parametrize("wrong", ["port", "file"])
def test_a_listener_that_cannot_start_ends_the_broker_with_the_setting(tmp_path: Path, wrong: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        files = {"cert": str(tmp_path / "none"), "key": str(tmp_path / "none")}
        config = {"addresses": [address]} if wrong == "port" else {"tls": files}
        environment = {**os.environ, "LISTEN_CONFIG": json.dumps(config)}
        node = RunningBroker({"one": {"size": 1}}, tmp_path, 3600.0, env=environment)
        assert node.process.wait(PATIENCE) == 1
    said = node.errors.read_text()
    assert (f"LISTEN: {address}: Address already in use" if wrong == "port" else "LISTEN_TLS: cert") in said


def test_a_name_with_an_address_that_this_host_has_not_is_bound_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0))
    local = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **more: [absent, local])
    (bound,) = bind(ListenAddress("both", 0), ["both:0"])
    with bound:
        assert bound.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **more: [absent])
    with pytest.raises(OSError, match=r"assign requested address|not supported"):
        bind(ListenAddress("both", 0), ["both:0"])


def test_without_tls_the_loopback_interface_needs_a_key_too(tmp_path: Path) -> None:
    made = Network(tmp_path, tls=None, addresses=["127.0.0.1:0", "[::1]:0"])
    with broker({"one": {"size": 1}}, env=made.environment) as made.node:
        made.node.ready("one")
        listeners = made.node.status().node.listeners
        assert [one.tls for one in listeners] == ["none", "none"]
        for one in listeners:
            with connect(one.address, key="snk_run", connect_timeout=PATIENCE) as client:
                assert client.call("one", "echo", value=1) == 1
            with connect(one.address, key="wrong", connect_timeout=PATIENCE) as client, pytest.raises(Unauthenticated):
                client.call("one", "echo", value=1)


def test_a_client_without_tls_reads_what_is_missing(network: Network) -> None:
    client = connect(network.listener().address, key="snk_run", connect_timeout=PATIENCE)
    with pytest.raises(BrokerUnreachable, match="If it takes TLS, pass tls"):
        client.call("one", "echo", value=1)


def read_all(tls: ssl.SSLSocket) -> None:
    """Read until the peer ends the connection; raises OSError then."""
    while tls.recv(65536):
        pass
    raise ConnectionResetError("EOF")


def say_nothing(host: str, port: int) -> bool:
    """Open more connections than the broker allows, and wait until it has closed them. Returns False.

    It closes some at once, and the others when their time is over. On a machine that stands still between two of them,
    the time of the first is over before the last comes.
    """
    for one in [socket.create_connection((host, port)) for _ in range(5)]:
        one.settimeout(PATIENCE)
        with one, contextlib.suppress(ConnectionResetError):
            while one.recv(1000):
                pass
    return False


def announced_streams(context: ssl.SSLContext, host: str, port: int) -> int:
    """How many streams the broker allows on a connection; 0: it refused the connection."""
    try:
        tls = context.wrap_socket(socket.create_connection((host, port)), server_hostname="localhost")
    except OSError:
        return 0
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    with tls:
        tls.settimeout(PATIENCE)
        tls.sendall(client.data_to_send())
        while client.remote_settings.max_concurrent_streams in (2**32 + 1, 100):  # no settings yet, and h2's own
            client.receive_data(tls.recv(1000))
        return client.remote_settings.max_concurrent_streams


def login_ends(context: ssl.SSLContext, host: str, port: int) -> bool:
    """Open a connection without a key, and wait until the broker ends it; False: it refused the connection."""
    try:
        tls = context.wrap_socket(socket.create_connection((host, port)), server_hostname="localhost")
    except OSError:
        return False
    tls.settimeout(PATIENCE)
    with tls, pytest.raises(OSError, match=r"reset|EOF"):
        read_all(tls)
    return True
