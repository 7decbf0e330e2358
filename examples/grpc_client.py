"""A client of the broker on stock grpcio, with the stubs that the package ships.

Python programs use `snakepit.connect`. This is the way for a program that uses gRPC already, and a template for other
languages: the calls, the metadata and the errors are the same there.

    pip install 'django-snakepit[grpc]'
    python -m snakepit.examples.grpc_client /run/snakepit primes count '{"below": 100000}'
    SNAKEPIT_TOKEN=snk_... SNAKEPIT_TLS_CA=ca.pem \
        python -m snakepit.examples.grpc_client gpu-1.internal:7443 primes count '{"below": 100000}'
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from snakepit.pools.wire.broker_pb2 import ExecuteReply, ExecuteRequest, StatusRequest
from snakepit.pools.wire.broker_pb2_grpc import BrokerStub

# A peer that does not answer is noticed within 8 seconds, also while no call runs.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 4000),
    ("grpc.keepalive_timeout_ms", 3500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


class CallFailed(Exception):
    """`code` is one of the broker's closed list; `outcome` is `not_started`, `failed` or `unknown`."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        trailers = dict(error.trailing_metadata() or ())
        self.status: grpc.StatusCode = error.code()
        self.code = trailers.get("snakepit-code", "")
        self.outcome = trailers.get("snakepit-outcome", "unknown")


class GrpcClient:
    """One connection, for any number of threads."""

    def __init__(self, place: Path | str, environ: Mapping[str, str] = os.environ) -> None:
        """`place`: a broker's runtime directory, or the `host:port` of one; then `environ` has the key and files."""
        token = environ.get("SNAKEPIT_TOKEN", "")
        if isinstance(place, Path):
            self.channel = grpc.insecure_channel(f"unix:{place}/broker.sock")
            token = (place / "token").read_text()
        else:
            self.channel = grpc.secure_channel(place, _credentials(environ), options=KEEPALIVE)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._broker = BrokerStub(self.channel)  # type: ignore[no-untyped-call]  # generated

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def pools(self) -> dict[str, str]:
        """Name and state of each pool."""
        status = self._broker.Status(StatusRequest(), metadata=self.metadata)
        return {pool.name: pool.state for pool in status.pools}

    def call(self, pool: str, command: str, timeout: float = 30.0, **arguments: Any) -> Any:
        """The result of one call. When grpcio's deadline passes, the broker cancels the call."""
        request = ExecuteRequest(pool=pool, command=command, arguments=json.dumps(arguments))
        try:
            return _value(self._broker.Execute(request, metadata=self.metadata, timeout=timeout))
        except grpc.RpcError as error:
            raise CallFailed(error) from error

    def stream(self, pool: str, command: str, timeout: float = 30.0, **arguments: Any) -> Iterator[Any]:
        """The chunks of a streaming command. Closing the iterator cancels the call."""
        request = ExecuteRequest(pool=pool, command=command, arguments=json.dumps(arguments))
        replies = self._broker.ExecuteStream(request, metadata=self.metadata, timeout=timeout)
        try:
            for reply in replies:
                if reply.WhichOneof("value"):  # the last message has the timing alone
                    yield _value(reply)
        except grpc.RpcError as error:
            raise CallFailed(error) from error
        finally:
            replies.cancel()


def _credentials(environ: Mapping[str, str]) -> grpc.ChannelCredentials:
    """TLS from PEM files: the authorities of brokers, and a client certificate for mutual TLS."""
    ca, cert, key = (environ.get(f"SNAKEPIT_TLS_{name}") for name in ("CA", "CERT", "KEY"))
    read = [Path(path).read_bytes() if path else None for path in (ca, key, cert)]
    return grpc.ssl_channel_credentials(*read)


def _value(reply: ExecuteReply) -> Any:
    return reply.raw if reply.WhichOneof("value") == "raw" else json.loads(reply.json)


def main(place: str, pool: str, command: str, arguments: str = "{}") -> int:
    with GrpcClient(Path(place) if "/" in place else place) as client:
        try:
            print(json.dumps(client.call(pool, command, **json.loads(arguments))))  # noqa: T201
        except CallFailed as error:
            print(f"{error.code} ({error.outcome}): {error}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
