"""What others may see of a job: everything but its payload.

Arguments, result, errors, tracebacks, progress, log lines and evidence are one class of data under the permission
`view_payload`. Messages contain values of the arguments: `KeyError: 'Ada Lovelace'`. Others see the kind of an error.

>>> error = {"code": "adapter_error", "message": "KeyError: 'Ada'", "details": {"type": "KeyError"}}
>>> kind_of(error)
{'code': 'adapter_error', 'message': 'The command raised an exception: KeyError.', 'outcome': '', 'details': {}}
>>> kind_of(None) is None
True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snakepit.pools.broker.errors import from_code
from snakepit.pools.models import Job, JobAttempt


def kind_of(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The code of a stored error, its outcome, and the type of the exception, without any text from the command."""
    if error is None:
        return None
    code, details = str(error.get("code", "")), error.get("details")
    message = from_code(code).message
    kind = str(details.get("type", "")) if isinstance(details, Mapping) else ""
    if kind.isidentifier():
        message = f"{message.rstrip('.')}: {kind}."
    return {"code": code, "message": message, "outcome": error.get("outcome", ""), "details": {}}


def hide_payload(job: Job, tries: Iterable[JobAttempt] = ()) -> Job:
    """Replace the payload in these rows, which were read to be shown and must not be saved."""
    job.arguments = job.result = job.result_raw = None
    job.error, job.progress_message = kind_of(job.error), ""
    job.arguments_short = ""  # the annotation of `listing.page`
    for one in tries:
        one.error, one.evidence = kind_of(one.error), None
    return job
