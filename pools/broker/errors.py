"""All errors that a caller can get, each with its HTTP and gRPC status.

An exception's docstring is its default message. `outcome` is the state of the work: `not_started` (safe to send again),
`failed` (it ran and failed) or `unknown` (it may have run).

>>> error = QueueFull("3 of 3 places are taken", retry_after=0.5)
>>> error.code, error.http_status, error.outcome, error.retry_after
('queue_full', 429, 'not_started', 0.5)
>>> str(PoolPaused())
'The pool is paused by its operator and takes no calls.'
>>> type(from_code("worker_lost", "gone", outcome="unknown")).__name__
'WorkerLost'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

NOT_STARTED = "not_started"
FAILED = "failed"
UNKNOWN = "unknown"


class BrokerError(Exception):
    """The broker could not answer the call."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    default_outcome: ClassVar[str] = UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        outcome: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.outcome = outcome or self.default_outcome
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments cannot be unpickled without this (concurrent.futures, Celery).
        made = (self.code, self.message, self.outcome, self.details, self.retry_after)
        notes = getattr(self, "__notes__", None)
        return (from_code, made, {"__notes__": list(notes)}) if notes else (from_code, made)


class BadRequest(BrokerError):
    """The request cannot be read."""

    code = "bad_request"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    default_outcome = NOT_STARTED


class Unauthenticated(BrokerError):
    """No valid API key, token or session came with the request."""

    code = "unauthenticated"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"
    default_outcome = NOT_STARTED


class PermissionDenied(BrokerError):
    """The key or user may not do this."""

    code = "permission_denied"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    default_outcome = NOT_STARTED


class PoolUnknown(BrokerError):
    """This node has no pool of this name."""

    code = "pool_unknown"
    http_status = 404
    grpc_status = "NOT_FOUND"
    default_outcome = NOT_STARTED


class CommandUnknown(BrokerError):
    """The pool's adapter has no command of this name."""

    code = "command_unknown"
    http_status = 404
    grpc_status = "NOT_FOUND"
    default_outcome = NOT_STARTED


class WorkerUnknown(BrokerError):
    """This node has no worker with this id."""

    code = "worker_unknown"
    http_status = 404
    grpc_status = "NOT_FOUND"
    default_outcome = NOT_STARTED


class PeriodicUnknown(BrokerError):
    """There is no periodic job of this name."""

    code = "periodic_unknown"
    http_status = 404
    grpc_status = "NOT_FOUND"
    default_outcome = NOT_STARTED


class NodeUnknown(BrokerError):
    """No broker of this node answers."""

    code = "node_unknown"
    http_status = 404
    grpc_status = "NOT_FOUND"
    default_outcome = NOT_STARTED


class PayloadTooLarge(BrokerError):
    """The arguments are larger than the pool allows."""

    code = "payload_too_large"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"
    default_outcome = NOT_STARTED


class BadArguments(BrokerError):
    """The arguments do not fit the command's signature."""

    code = "bad_arguments"
    http_status = 422
    grpc_status = "INVALID_ARGUMENT"
    default_outcome = NOT_STARTED


class DefinitionInvalid(BrokerError):
    """The pool's definition is not valid."""

    code = "definition_invalid"
    http_status = 422
    grpc_status = "INVALID_ARGUMENT"
    default_outcome = NOT_STARTED


class NotAdvised(BrokerError):
    """There is no recommendation with this id, or it is outdated."""

    code = "not_advised"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class ManagedBySettings(BrokerError):
    """The settings define this pool: change the line that the details have."""

    code = "managed_by_settings"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class CommandsPending(BrokerError):
    """No worker of the pool has reported its commands yet."""

    code = "commands_pending"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class QueueFull(BrokerError):
    """The pool's queue is full; try again later."""

    code = "queue_full"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    default_outcome = NOT_STARTED


class LimitReached(BrokerError):
    """The API key or user has reached a limit of its own; the details name it."""

    code = "limit_reached"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    default_outcome = NOT_STARTED


class Expired(BrokerError):
    """The job did not begin before its `expires`."""

    code = "expired"
    http_status = 410
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class Cancelled(BrokerError):
    """The caller cancelled the call."""

    code = "cancelled"
    http_status = 499
    grpc_status = "CANCELLED"
    default_outcome = UNKNOWN


class AdapterError(BrokerError):
    """The command raised an exception."""

    code = "adapter_error"
    http_status = 500
    grpc_status = "UNKNOWN"
    default_outcome = FAILED


class Snoozed(BrokerError):
    """The command put its work off; `retry_after` has the seconds."""

    code = "snoozed"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = FAILED


class ResultTooLarge(BrokerError):
    """The command's result is larger than the pool allows."""

    code = "result_too_large"
    http_status = 500
    grpc_status = "RESOURCE_EXHAUSTED"
    default_outcome = FAILED


class ResultUnreadable(BrokerError):
    """The command's result has a type that the caller's process cannot restore."""

    code = "result_unreadable"
    http_status = 500
    grpc_status = "INTERNAL"
    default_outcome = FAILED


class WorkerLost(BrokerError):
    """The worker died while it held the call."""

    code = "worker_lost"
    http_status = 502
    grpc_status = "UNAVAILABLE"
    default_outcome = UNKNOWN


class QueueTimeout(BrokerError):
    """No worker was free for the call in time."""

    code = "queue_timeout"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = NOT_STARTED


class PoolPaused(BrokerError):
    """The pool is paused by its operator and takes no calls."""

    code = "pool_paused"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = NOT_STARTED


class PoolFailed(BrokerError):
    """The pool's workers cannot start."""

    code = "pool_failed"
    http_status = 503
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class CommandSuspended(BrokerError):
    """The command ended its workers again and again, so its calls are refused for a while."""

    code = "command_suspended"
    http_status = 503
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class NodeDraining(BrokerError):
    """The node is drained by its operator and takes no calls."""

    code = "node_draining"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = NOT_STARTED


class ShuttingDown(BrokerError):
    """The broker is shutting down and takes no calls."""

    code = "shutting_down"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = NOT_STARTED


class BrokerUnreachable(BrokerError):
    """No broker answers at the address."""

    code = "broker_unreachable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = UNKNOWN


class CertificateRefused(BrokerError):
    """One side of a TLS connection does not accept the other's certificate."""

    code = "certificate_refused"
    http_status = 502
    grpc_status = "UNAUTHENTICATED"
    default_outcome = NOT_STARTED


class DatabaseUnavailable(BrokerError):
    """The database does not answer."""

    code = "database_unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_outcome = UNKNOWN


class StacksUnavailable(BrokerError):
    """The worker's stacks cannot be read now."""

    code = "stacks_unavailable"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"
    default_outcome = NOT_STARTED


class DeadlineExceeded(BrokerError):
    """The call did not end before its deadline."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
    default_outcome = UNKNOWN


ERRORS: dict[str, type[BrokerError]] = {
    BrokerError.code: BrokerError,
    **{error.code: error for error in BrokerError.__subclasses__()},
}


def from_code(
    code: str,
    message: str = "",
    outcome: str = "",
    details: Mapping[str, Any] | None = None,
    retry_after: float = 0.0,
) -> BrokerError:
    """Return the exception for a code that came over the wire; an unknown code becomes a plain BrokerError."""
    return ERRORS.get(code, BrokerError)(message, outcome=outcome, details=details, retry_after=retry_after)


def is_silent(error: BrokerError) -> bool:
    """Whether a broker runs but did not answer a question in time: starting another one would not help."""
    return isinstance(error, DeadlineExceeded) or bool(error.details.get("silent"))
