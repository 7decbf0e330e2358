"""Two clients of the broker's wire with one interface: `Ours` is snakepit.connect, `Stock` is grpcio with its stubs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from snakepit.examples.grpc_client import GrpcClient
from snakepit.pools.broker.caller import CallerIdentity, acting_for
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import Client, Tls, connect
from snakepit.pools.client.call_messages import _name_caller
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_pb2_grpc import BrokerStub
from tests.brokers import PATIENCE

Arguments = Mapping[str, Any]


class Failed(Exception):
    """What both clients say about a call that failed."""

    def __init__(self, code: str, outcome: str, message: str, details: Mapping[str, Any], retry_after: float) -> None:
        super().__init__(message)
        self.code, self.outcome, self.details, self.retry_after = code, outcome, dict(details), retry_after

    def __repr__(self) -> str:
        return f"<Failed {self.code} {self.outcome}: {self}>"


@dataclass(frozen=True)
class Place:
    """Where a broker is, and with which key and files a client reaches it. `address` empty: its Unix socket."""

    runtime: Path
    address: str = ""
    key: str = ""
    files: Mapping[str, str] = field(default_factory=dict)  # CA, CERT, KEY

    def environ(self) -> dict[str, str]:
        return {"SNAKEPIT_TOKEN": self.key, **{f"SNAKEPIT_TLS_{name}": path for name, path in self.files.items()}}


@dataclass(frozen=True)
class Started:
    """A call that runs."""

    result: Callable[[], Any]
    cancel: Callable[[], Any]


class Ours:
    """The Python client."""

    def __init__(self, place: Place) -> None:
        self.place = place
        if place.address:
            files = place.files
            tls = Tls(files["CA"], files["CERT"], files["KEY"])
            self._client: Client = connect(place.address, tls=tls, key=place.key, connect_timeout=PATIENCE)
        else:
            self._client = connect(
                str(place.runtime / "broker.sock"), token=place.key or None, connect_timeout=PATIENCE
            )

    def close(self) -> None:
        self._client.close()

    def with_key(self, key: str) -> Ours:
        return Ours(replace(self.place, key=key))

    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, caller: CallerIdentity | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        with _ours(), acting_for(caller):
            return self._client.call(pool, command, arguments, **options)

    def worker(self, pool: str, command: str, **options: Any) -> str:
        with _ours():
            return self._client.execute(pool, command, **options).worker

    def start(self, pool: str, command: str, arguments: Arguments | None = None) -> Started:
        future = self._client.submit(pool, command, arguments, timeout=PATIENCE)

        def result() -> Any:
            with _ours():
                return future.result(PATIENCE)

        return Started(result, future.cancel)

    def stream(self, pool: str, command: str, arguments: Arguments | None = None) -> Iterator[Any]:
        with _ours(), self._client.stream(pool, command, arguments, timeout=PATIENCE) as chunks:
            yield from chunks

    def together(self, calls: Sequence[tuple[str, str, Arguments]]) -> list[Any]:
        started = [self.start(*one) for one in calls]
        return [_value_or_failure(one.result) for one in started]

    def pools(self) -> dict[str, str]:
        with _ours():
            return {one.name: one.state for one in self._client.status().pools}

    def busy(self, pool: str) -> int:
        return self._client.status(pool).pools[0].busy

    def commands(self, pool: str) -> dict[str, bool]:
        """Name, and whether it is idempotent."""
        with _ours():
            return {one.name: one.idempotent for one in self._client.commands(pool)}

    def recycle(self, pool: str) -> int:
        with _ours():
            return self._client.recycle(pool, actor="ada", reason="a test")

    def kill(self, worker: str) -> None:
        with _ours():
            self._client.kill(worker, "ada", "a test")

    def drain(self, *, resume: bool = False) -> None:
        with _ours():
            (self._client.resume if resume else self._client.drain)("ada", "a test")

    def metrics(self) -> str:
        with _ours():
            return self._client.metrics()


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except BrokerError as error:
        raise Failed(error.code, error.outcome, error.message, error.details, error.retry_after) from error


class Stock:
    """Stock grpcio, with the channel of the example and the shipped stubs."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._made = GrpcClient(place.address or place.runtime, place.environ())
        if place.key:
            self._made.metadata = (("authorization", f"Bearer {place.key}"),)
        self._broker: Any = BrokerStub(self._made.channel)  # type: ignore[no-untyped-call]  # generated
        self._ask: dict[str, Any] = {"metadata": self._made.metadata, "timeout": PATIENCE}

    def close(self) -> None:
        self._made.channel.close()

    def with_key(self, key: str) -> Stock:
        return Stock(replace(self.place, key=key))

    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, caller: CallerIdentity | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        request = self._request(pool, command, arguments, **options)
        if caller is not None:
            _name_caller(request.caller, caller)
        with _stock():
            return _value(self._broker.Execute(request, **self._ask))

    def worker(self, pool: str, command: str, **options: Any) -> str:
        with _stock():
            return str(self._broker.Execute(self._request(pool, command, None, **options), **self._ask).timing.worker)

    def start(self, pool: str, command: str, arguments: Arguments | None = None) -> Started:
        running = self._broker.Execute.future(self._request(pool, command, arguments), **self._ask)

        def result() -> Any:
            with _stock():
                return _value(running.result())

        return Started(result, running.cancel)

    def stream(self, pool: str, command: str, arguments: Arguments | None = None) -> Iterator[Any]:
        replies = self._broker.ExecuteStream(self._request(pool, command, arguments), **self._ask)
        try:
            with _stock():
                for reply in replies:
                    if reply.WhichOneof("value"):
                        yield _value(reply)
        finally:
            replies.cancel()

    def together(self, calls: Sequence[tuple[str, str, Arguments]]) -> list[Any]:
        """All calls in one message of a Session."""
        sent = pb.Requests()
        for ref, (pool, command, arguments) in enumerate(calls, 1):
            sent.requests.add(
                call=pb.Call(ref=ref, pool=pool, command=command, arguments=json.dumps(arguments).encode())
            )
        answered = threading.Event()

        def requests() -> Iterator[pb.Requests]:
            yield sent
            answered.wait(PATIENCE)  # a session whose requests end cancels what it waits for

        got: dict[int, Any] = {}
        replies = self._broker.Session(requests(), **self._ask)
        for message in replies:
            for reply in message.replies:
                got[reply.ref] = _failure(reply.error) if reply.HasField("error") else _value(reply.result.value)
            if len(got) == len(calls):
                break
        answered.set()
        replies.cancel()
        return [got[ref] for ref in range(1, len(calls) + 1)]

    def pools(self) -> dict[str, str]:
        with _stock():
            return {one.name: one.state for one in self._broker.Status(pb.StatusRequest(), **self._ask).pools}

    def busy(self, pool: str) -> int:
        return int(self._broker.Status(pb.StatusRequest(pool=pool), **self._ask).pools[0].busy)

    def commands(self, pool: str) -> dict[str, bool]:
        with _stock():
            reply = self._broker.Commands(pb.CommandsRequest(pool=pool), **self._ask)
        return {one.name: one.idempotent for one in reply.commands}

    def recycle(self, pool: str) -> int:
        with _stock():
            request = pb.RecycleRequest(pool=pool, actor="ada", reason="a test")
            return int(self._broker.Recycle(request, **self._ask).planned)

    def kill(self, worker: str) -> None:
        with _stock():
            self._broker.Kill(pb.KillRequest(worker=worker, actor="ada", reason="a test"), **self._ask)

    def drain(self, *, resume: bool = False) -> None:
        with _stock():
            self._broker.Drain(pb.DrainRequest(resume=resume, actor="ada", reason="a test"), **self._ask)

    def metrics(self) -> str:
        with _stock():
            return str(self._broker.Metrics(pb.MetricsRequest(), **self._ask).text)

    def _request(
        self, pool: str, command: str, arguments: Arguments | None, *,
        timeout: float = 0.0, priority: int = 0, affinity: str = "",
    ) -> pb.ExecuteRequest:  # fmt: skip
        given = arguments or {}
        return pb.ExecuteRequest(
            pool=pool,
            command=command,
            arguments=json.dumps({name: value for name, value in given.items() if not isinstance(value, bytes)}),
            attachments={name: value for name, value in given.items() if isinstance(value, bytes)},
            timeout=timeout,
            priority=priority,
            affinity=affinity,
        )


@contextmanager
def _stock() -> Iterator[None]:
    try:
        yield
    except grpc.FutureCancelledError as error:
        raise Failed("cancelled", "unknown", "cancelled here", {}, 0.0) from error
    except grpc.RpcError as error:
        said: Any = error
        trailers = dict(said.trailing_metadata() or ())
        raise Failed(
            trailers.get("snakepit-code", said.code().name.lower()),
            trailers.get("snakepit-outcome", "unknown"),
            said.details(),
            json.loads(trailers.get("snakepit-details", "{}")),
            float(trailers.get("snakepit-retry-after", 0)),
        ) from error


def _value(reply: Any) -> Any:
    return reply.raw if reply.WhichOneof("value") == "raw" else json.loads(reply.json)


def _failure(error: pb.Error) -> Failed:
    return Failed(error.code, error.outcome, error.message, json.loads(error.details or "{}"), error.retry_after)


def _value_or_failure(result: Callable[[], Any]) -> Any:
    try:
        return result()
    except Failed as failed:
        return failed
