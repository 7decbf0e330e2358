"""The wire form of a worker's reports: many of them as one Reports message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from snakepit.workers.report import (
    BootFailureReport,
    ChunkReport,
    DeliveredReport,
    EncodedValue,
    FailureReport,
    HelloReport,
    LogReport,
    ProgressReport,
    RaceReport,
    Report,
    ResultReport,
    RevokedReport,
    VitalsReport,
)
from snakepit.workers.wire import worker_pb2 as pb


def to_wire(batch: list[Report]) -> bytes:
    """Serialise reports as one message. Results with a JSON value, which nearly all are, share one report."""
    message = pb.Reports()
    reports = message.reports
    results: pb.Results | None = None
    for report in batch:
        if type(report) is ResultReport and (value := report.value) is not None and is_text(value):
            if results is None:
                results = reports.add().results
            results.sequences.append(report.sequence)
            results.json.append(value.data)
            results.seconds.append(report.seconds)
            continue
        results = None
        if type(report) is DeliveredReport:  # of nearly all lone calls
            delivered = reports.add().delivered
            delivered.sequence, delivered.seconds = report.sequence, report.seconds
            delivered.buffer_bytes = report.buffer_bytes
        elif type(report) is ChunkReport:
            chunk = reports.add().chunk
            chunk.sequence = report.sequence
            fill(chunk.value, report.value)
        else:
            reports.append(TO_WIRE[type(report)](report))
    return message.SerializeToString()


def is_text(value: EncodedValue) -> bool:
    """Whether a value is JSON and nothing else."""
    return not (value.raw or value.parts)


def fill(wire: pb.Value, value: EncodedValue) -> None:
    if value.raw:
        wire.raw = value.data
    else:
        wire.json = value.data
    if value.parts:
        wire.parts, wire.parts_bytes = value.parts, value.parts_bytes


def _result(report: ResultReport) -> pb.Report:
    wire = pb.Report(result=pb.Result(sequence=report.sequence, seconds=report.seconds))
    if report.value is not None:
        fill(wire.result.value, report.value)
    return wire


def _failure(report: FailureReport) -> pb.Report:
    return pb.Report(
        failure=pb.Failure(
            sequence=report.sequence,
            code=report.code,
            message=report.message,
            type=report.type,
            traceback=report.traceback,
            seconds=report.seconds,
            details=json.dumps(report.details, default=str) if report.details else "",
        )
    )


def _revoked(report: RevokedReport) -> pb.Report:
    return pb.Report(revoked=pb.Revoked(sequence=report.sequence))


def _progress(report: ProgressReport) -> pb.Report:
    progress = pb.Progress(sequence=report.sequence, fraction=report.fraction, message=report.message)
    return pb.Report(progress=progress)


def _log(report: LogReport) -> pb.Report:
    return pb.Report(log=pb.Log(sequence=report.sequence, message=report.message))


def _vitals(report: VitalsReport) -> pb.Report:
    return pb.Report(
        vitals=pb.Vitals(
            nonce=report.nonce,
            served=report.served,
            load=report.load,
            gil_enabled=report.gil_enabled,
            gil_culprit=report.gil_culprit,
        )
    )


def _race(report: RaceReport) -> pb.Report:
    return pb.Report(
        race=pb.Race(
            attribute=report.attribute,
            first_thread=report.first_thread,
            first_stack=report.first_stack,
            second_thread=report.second_thread,
            second_stack=report.second_stack,
        )
    )


def _hello(report: HelloReport) -> pb.Report:
    commands = [
        pb.Command(**{**facts, **{name: json.dumps(facts[name]) for name in ("schema", "result_schema")}})
        for facts in report.commands
    ]
    return pb.Report(hello=pb.Hello(**report.facts, commands=commands))


def _boot_failure(report: BootFailureReport) -> pb.Report:
    failure = pb.BootFailure(type=report.type, message=report.message, traceback=report.traceback)
    return pb.Report(boot_failure=failure)


TO_WIRE: dict[type[Report], Callable[[Any], pb.Report]] = {
    ResultReport: _result,
    FailureReport: _failure,
    RevokedReport: _revoked,
    ProgressReport: _progress,
    LogReport: _log,
    VitalsReport: _vitals,
    RaceReport: _race,
    HelloReport: _hello,
    BootFailureReport: _boot_failure,
}
