"""What a call costs over the network: `python -m benchmarks.network`. CALLS=n sets how many calls, ROUNDS=n the rounds.

An echo of 100 bytes, one call at a time, on one machine: through the Unix socket, over mutual TLS on the loopback
interface, both with a worker behind the broker; and grpc.aio over the same TLS, where the server itself answers. All
take turns in rounds, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks import node
from benchmarks.work import SMALL
from snakepit.pools.client import Client, Tls, connect

ROUNDS = int(os.environ.get("ROUNDS", "20"))
CALLS = int(os.environ.get("CALLS", "200"))
METHOD = "/echo.Echo/Echo"


def certificate(directory: Path) -> Tls:
    """A certificate for localhost that signs itself: of the server, of the client, and of their authority."""
    cert, key = str(directory / "localhost.crt"), str(directory / "localhost.key")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*words, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return Tls(cert, cert, key)


@contextmanager
def ours(tls: Tls) -> Iterator[tuple[Client, Client]]:
    """A broker with one worker: a client of its socket, and one over TLS."""
    pools = [{"name": "work", "path": "benchmarks.work.Work", "size": 1, **node.ENDLESS}]
    files = {"cert": tls.cert, "key": tls.key, "client_ca": tls.ca}
    with node.serving(pools, options={"listen": files}) as running:
        running.wait_until_ready("work", 1)
        address = running.client.status().node.listeners[0].address
        with connect(address, tls=tls) as client:
            yield running.client, client


@contextmanager
def aio(tls: Tls) -> Iterator[Callable[[], object]]:
    """A server on grpc.aio in a process of its own; yields one call to it."""
    command = [sys.executable, "-m", "benchmarks.network", "serve", tls.cert, tls.key]
    with asyncio.Runner() as runner, subprocess.Popen(command, cwd=node.ROOT, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            port = int(server.stdout.readline())
            channel = runner.run(_channel(port, Path(tls.cert).read_bytes(), Path(tls.key).read_bytes()))
            echo = channel.unary_unary(METHOD)

            async def call() -> object:
                return await echo(SMALL.encode())

            yield lambda: runner.run(call())
            runner.run(channel.close())
        finally:
            server.terminate()


async def _channel(port: int, pem: bytes, key: bytes) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(pem, key, pem))


async def serve(pem: bytes, key: bytes) -> None:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", {"Echo": handler}),))
    credentials = grpc.ssl_server_credentials([(key, pem)], pem, require_client_auth=True)
    print(server.add_secure_port("localhost:0", credentials), flush=True)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as home, ExitStack() as stack:
        tls = certificate(Path(home))
        socket, network = stack.enter_context(ours(tls))
        contestants: dict[str, Callable[[], object]] = {
            "Unix socket, worker": lambda: socket.call("work", "echo", value=SMALL),
            "TLS on loopback, worker": lambda: network.call("work", "echo", value=SMALL),
            "grpc.aio over TLS, no worker": stack.enter_context(aio(tls)),
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for round in range(ROUNDS + 1):
            for name, call in contestants.items():
                for _ in range(CALLS):
                    began = time.perf_counter()
                    call()
                    if round:  # the first one warms up
                        taken[name].append(time.perf_counter() - began)
    table = Table("echo of 100 bytes", "p50", "p95")
    for name, times in taken.items():
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        table.add_row(name, f"{p50 * 1e6:.0f} µs", f"{p95 * 1e6:.0f} µs")
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*(Path(one).read_bytes() for one in sys.argv[2:4])))
    else:
        main()
