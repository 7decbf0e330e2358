"""Errors of the closed list in a session: as the reply to a call, and as the reason of its end."""

from __future__ import annotations

import json
from typing import Any

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.workers.report import utf8

MAX_DETAILS = 64 * 1024  # characters of an error's details


def error_message(error: BrokerError, timing: pb.Timing) -> pb.Error:
    details = json.dumps(error.details, default=str) if error.details else ""
    return pb.Error(
        code=error.code,
        message=utf8(error.message),
        outcome=error.outcome,
        details=details if len(details) <= MAX_DETAILS else "",
        retry_after=error.retry_after,
        timing=timing,
    )


async def end_in_order(stream: Any, error: BrokerError) -> None:
    """End a session whose calls without a reply end with this error.

    With the status OK: after another one grpclib resets the stream, and its client drops replies that it has not read.
    """
    await stream.send_trailing_metadata(metadata={"snakepit-code": error.code, "snakepit-outcome": error.outcome})
