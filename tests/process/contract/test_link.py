"""What a broker does with reports that no worker of this version sends: user code may have written them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.server import Server

from snakepit.pools.adapters.grpc.link import GrpcLinker
from snakepit.workers.wire import worker_pb2 as pb
from snakepit.workers.wire.worker_grpc import WorkerBase
from tests.brokers import PATIENCE


class Reporter(WorkerBase):
    """A worker's socket that sends reports and then waits for the broker's end of the stream."""

    def __init__(self) -> None:
        self.reports: list[pb.Report] = []

    async def Work(self, stream: Any) -> None:
        await stream.send_message(pb.Reports(reports=self.reports))
        await stream.recv_message()


class Said:
    """The port WorkerReports; notes each report, and the loss of the link."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.is_lost = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        if name == "lost":
            return self.is_lost.set
        return lambda *facts: self.said.append((name, facts))


@pytest.fixture
async def reporter(tmp_path: Path) -> AsyncIterator[Reporter]:
    made = Reporter()
    server = Server([made])
    await server.start(path=str(tmp_path / "w"))
    yield made
    server.close()
    await server.wait_closed()


def hello(**fields: Any) -> pb.Report:
    return pb.Report(hello=pb.Hello(protocol=1, commands=[pb.Command(**{"name": "echo", "schema": "{}", **fields})]))


RESULTS = pb.Results(sequences=[1], json=[b"1"])


@pytest.mark.parametrize(
    ("reports", "received"),
    [
        pytest.param([hello(), hello(name="other")], ["hello"], id="a second greeting"),
        pytest.param([hello(schema="{")], [], id="a schema that is no JSON"),
        pytest.param([hello(schema="[]")], [], id="a schema that is no object"),
        pytest.param([hello(timeout=math.nan)], [], id="a timeout that is no number"),
        pytest.param([hello(timeout=-1.0)], [], id="a timeout below zero"),
        pytest.param([hello(), pb.Report(results=RESULTS)], ["hello"], id="lists of different length"),
        *(
            pytest.param([hello(), pb.Report(**{kind: report})], ["hello"], id=f"{kind} after {seconds} s")
            for seconds in (math.nan, math.inf, -1.0)
            for kind, report in {
                "results": pb.Results(sequences=[1], json=[b"1"], seconds=[seconds]),
                "result": pb.Result(sequence=1, seconds=seconds),
                "delivered": pb.Delivered(sequence=1, seconds=seconds),
                "failure": pb.Failure(sequence=1, seconds=seconds),
            }.items()
        ),
        pytest.param([pb.Report()], [], id="nothing"),
    ],
)
async def test_a_report_that_makes_no_sense_ends_the_link(
    reporter: Reporter, tmp_path: Path, reports: list[pb.Report], received: list[str]
) -> None:
    reporter.reports = reports
    said = Said()
    link = GrpcLinker().link(str(tmp_path / "w"), said)
    async with asyncio.timeout(PATIENCE):
        await said.is_lost.wait()
    link.close()
    assert [name for name, _ in said.said] == received


async def test_progress_that_is_no_number_is_none(reporter: Reporter, tmp_path: Path) -> None:
    reporter.reports = [hello(), pb.Report(progress=pb.Progress(sequence=1, fraction=math.nan)), pb.Report()]
    said = Said()
    link = GrpcLinker().link(str(tmp_path / "w"), said)
    async with asyncio.timeout(PATIENCE):
        await said.is_lost.wait()
    link.close()
    assert said.said[1] == ("progress", (1, 0.0, ""))
