"""A client of the broker on stock grpcio, with the stubs that the package ships.

Python programs use `snakepit.connect`. This is the way for a program that speaks gRPC already, and a template for other
languages: the calls, the metadata and the errors are the same there.

    pip install 'django-snakepit[grpc]'
    python -m snakepit.examples.grpc_client /run/snakepit primes count '{"below": 100000}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from snakepit.pools.wire.broker_pb2 import ExecuteReply, ExecuteRequest, StatusRequest
from snakepit.pools.wire.broker_pb2_grpc import BrokerStub


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

    def __init__(self, runtime: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{runtime}/broker.sock")
        self._metadata = (("authorization", f"Bearer {(runtime / 'token').read_text()}"),)
        self._broker = BrokerStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def pools(self) -> dict[str, str]:
        """Name and state of each pool."""
        status = self._broker.Status(StatusRequest(), metadata=self._metadata)
        return {pool.name: pool.state for pool in status.pools}

    def call(self, pool: str, command: str, timeout: float = 30.0, **arguments: Any) -> Any:
        """The result of one call. When grpcio's deadline passes, the broker cancels the call."""
        request = ExecuteRequest(pool=pool, command=command, arguments=json.dumps(arguments))
        try:
            return _value(self._broker.Execute(request, metadata=self._metadata, timeout=timeout))
        except grpc.RpcError as error:
            raise CallFailed(error) from error

    def stream(self, pool: str, command: str, timeout: float = 30.0, **arguments: Any) -> Iterator[Any]:
        """The chunks of a streaming command. Closing the iterator cancels the call."""
        request = ExecuteRequest(pool=pool, command=command, arguments=json.dumps(arguments))
        replies = self._broker.ExecuteStream(request, metadata=self._metadata, timeout=timeout)
        try:
            for reply in replies:
                if reply.WhichOneof("value"):  # the last message has the timing alone
                    yield _value(reply)
        except grpc.RpcError as error:
            raise CallFailed(error) from error
        finally:
            replies.cancel()


def _value(reply: ExecuteReply) -> Any:
    return reply.raw if reply.WhichOneof("value") == "raw" else json.loads(reply.json)


def main(runtime: str, pool: str, command: str, arguments: str = "{}") -> int:
    with GrpcClient(Path(runtime)) as client:
        try:
            print(json.dumps(client.call(pool, command, **json.loads(arguments))))  # noqa: T201
        except CallFailed as error:
            print(f"{error.code} ({error.outcome}): {error}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
