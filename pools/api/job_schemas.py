"""Schemas of jobs, for the OpenAPI document and for validation of a submission."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema
from pydantic import BeforeValidator

from snakepit.pools.api.bounds import PAGE
from snakepit.pools.api.json_value import JsonValue
from snakepit.pools.api.schemas import FailureBody
from snakepit.pools.jobs import predecessors
from snakepit.pools.models.states import SHOWN_STATES


def _no_number(value: object) -> object:
    """Reject numbers: pydantic reads `3600` as seconds since 1970, but the caller means seconds from now."""
    try:
        float(str(value))
    except ValueError:
        return value
    raise ValueError(f"{value!r} is a number; write a time in ISO 8601 with a zone: 2026-01-31T12:00:00Z")


def _no_flag(value: object) -> object:
    """Reject true and false, which pydantic reads as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    return value


Whole = Annotated[int, BeforeValidator(_no_flag)]
Number = Annotated[float, BeforeValidator(_no_flag)]
Moment = Annotated[datetime, BeforeValidator(_no_number)]


class JobOptionsIn(Schema):
    """A command, and the options of its jobs. Times are ISO 8601 with a zone; durations are seconds."""

    model_config = {"extra": "forbid"}

    pool: str = Field(max_length=48)
    command: str = Field(max_length=200, json_schema_extra={"minLength": 1})
    priority: Whole = Field(default=0, description="Higher first.", json_schema_extra={"minimum": -100, "maximum": 100})
    run_after: Moment | None = None
    deadline: Moment | None = None
    expires: Moment | None = Field(default=None, description="Cancel the job if it has not begun by then.")
    timeout: Number | None = Field(
        default=None,
        description="Seconds for one attempt.",
        json_schema_extra={"minimum": 0.001, "maximum": 31 * 86_400},
    )
    max_attempts: Whole | None = Field(default=None, json_schema_extra={"minimum": 1, "maximum": 100})
    backoff: Number | None = Field(default=None, json_schema_extra={"minimum": 0, "maximum": 3600})
    retry: str = Field(default="lost", json_schema_extra={"enum": ["never", "safe", "lost", "always"]})
    tags: list[str] = Field(default_factory=list, json_schema_extra={"maxItems": 16})
    retention: Whole | None = Field(default=None, json_schema_extra={"minimum": 0, "maximum": 10**9})
    unique: bool = Field(default=False, description="Answer with a job of the caller that is the same, if one exists.")
    unique_by: list[str] | None = Field(
        default=None,
        description="Names of the arguments that must be equal; default: all. An empty list: the command alone.",
        json_schema_extra={"maxItems": 50},
    )
    unique_period: Number | None = Field(
        default=None, description="Only jobs that were created in these seconds count."
    )
    unique_states: list[str] | None = Field(
        default=None,
        description="The states in which a job counts; default: scheduled, blocked, queued and running.",
        json_schema_extra={"items": {"type": "string", "enum": list(SHOWN_STATES)}},
    )
    depends_on: list[str] = Field(
        default_factory=list,
        description="Ids of jobs that it waits for, in any state. The caller must be able to see them.",
        json_schema_extra={"maxItems": predecessors.MOST},
    )
    on_failure: str = Field(
        default="cancel",
        description="If one of them ends without success: cancel this job, or run it.",
        json_schema_extra={"enum": ["cancel", "run"]},
    )


class JobIn(JobOptionsIn):
    """A submission. Times are ISO 8601 with a zone; `timeout`, `backoff` and `retention` are seconds."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: str | None = Field(default=None, json_schema_extra={"maxLength": 200})
    results: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="By argument: the id of a job, or a list of ids. The argument receives the result, or their list.",
    )


class BatchOut(Schema):
    ids: list[str] = Field(description="The jobs, in the order of the lines.")
    count: int = Field(description="Number of lines.")
    created: int = Field(description="Number of new jobs. For the other lines, a job with their key exists already.")


class JobFilters(Schema):
    pool: str = ""
    state: str = Field(default="", json_schema_extra={"enum": ["", *SHOWN_STATES]})
    command: str = ""
    tag: str = ""
    owner: str = ""
    since: Moment | None = Field(default=None, description="Created at or after.")
    until: Moment | None = Field(default=None, description="Created before.")
    workflow: str = Field(default="", max_length=36, description="The id of a workflow.")
    arguments: str = Field(
        default="",
        max_length=1000,
        description="PostgreSQL only: text in the arguments, or a JSON object that they contain. "
        "Covers the newest 20,000 jobs whose arguments the caller may see.",
    )


class JobFilter(JobFilters):
    limit: int | None = Field(default=None, description="At most SNAKEPIT['PAGE_LIMIT'] rows.", json_schema_extra=PAGE)
    cursor: str | None = Field(default=None, description="`next` of the previous page.")


class JobOut(Schema):
    id: str
    pool: str
    command: str
    state: str = Field(json_schema_extra={"enum": list(SHOWN_STATES)})
    attempts: int
    max_attempts: int
    failures: int
    deaths: int
    retry: str
    priority: int
    timeout: float | None
    run_after: datetime | None
    deadline: datetime | None
    expires: datetime | None = Field(description="The job is cancelled if it has not begun by then.")
    snoozes: int = Field(description="How often its command put it off.")
    cancel_requested: bool
    owner: str
    tags: list[str]
    idempotency_key: str
    progress: float | None
    progress_message: str
    error: FailureBody | None
    truncated: bool
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    arguments: dict[str, JsonValue] | None = Field(default=None, description="Not in lists.")
    result: Any = Field(default=None, description="Not in lists.")
    workflow: str | None = Field(default=None, description="The id of its workflow.")
    arguments_short: str = Field(default="", description="Only in lists: the start of the arguments, as JSON.")
    waits_for: str = Field(default="", description="The limit, the pool or the jobs that it waits for. Not in lists.")
    depends_on: list[str] = Field(
        default_factory=list, description="The jobs that it waits for, or has waited for. Not in lists."
    )
    payload_hidden: bool = Field(
        default=False,
        description="The caller may not see arguments, result, progress message and the text of errors. Not in lists.",
    )


class JobPage(Schema):
    jobs: list[JobOut]
    next: str | None = Field(description="The `cursor` of the next, older page; null on the last page.")


class StreamTokenIn(Schema):
    model_config = {"extra": "forbid"}

    job: str = Field(max_length=36, description="The id of the job.")


class StreamTokenOut(Schema):
    """A token that opens the stream of one job."""

    token: str
    url: str = Field(description="The path of the stream with the token, for `new EventSource(url)`.")
    expires_at: datetime = Field(description="The stream opens until then; an open stream goes on.")
