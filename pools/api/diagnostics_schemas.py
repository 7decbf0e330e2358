"""The schemas of what the diagnostics answer: findings, recommendations, scaling and libraries."""

from __future__ import annotations

from ninja import Field, Schema

from snakepit.pools.api.json_value import JsonValue
from snakepit.pools.diagnostics.scaling import ScalingFacts


class FindingOut(Schema):
    check: str
    status: str = Field(description="ok, warning, problem or skipped.")
    evidence: str
    fix: str = Field(description="Empty: nothing to do.")
    pool: str = Field(description="Empty: not about a single pool.")


class ReportOut(Schema):
    node: str = Field(description="The node of the host where the checks ran.")
    at: float = Field(description="Seconds since the epoch; a report is kept for ten seconds.")
    seconds: float = Field(description="Duration of the examination.")
    healthy: bool = Field(description="No finding is a problem.")
    counts: dict[str, int]
    findings: list[FindingOut]


class FieldChangeOut(Schema):
    field: str
    before: JsonValue = Field(serialization_alias="from")
    to: JsonValue


class RecommendationOut(Schema):
    id: str = Field(description="The rule and the pool; the same advice keeps its id while it holds.")
    rule: str
    pool: str
    title: str
    evidence: str = Field(description="The numbers behind it.")
    changes: list[FieldChangeOut]
    cost: str = Field(description="Such as +420 MiB; empty: none, or not known.")
    sentence: str
    settings_line: str = Field(description="For a pool of the settings, the line to write. Empty: it can be applied.")


class JudgementOut(Schema):
    rule: str
    pool: str
    verdict: str = Field(description="advised, fine, not enough evidence, or does not apply.")
    evidence: str


class RecommendationsOut(Schema):
    recommendations: list[RecommendationOut]
    judgements: list[JudgementOut] = Field(description="The judgement of every rule on every pool.")


class LimitOut(Schema):
    resource: str = Field(description="size (the present one), CPU, memory, or largest size.")
    evidence: str = Field(description="What it was measured on, or what is missing.")
    calls_per_second: float | None = Field(description="Null: not enough evidence.")
    workers: int | None


class ScalingOut(Schema):
    pool: str
    verdict: str = Field(description="measured, or not enough evidence.")
    sentence: str
    binds: str | None = Field(description="The resource that binds first; null: not enough evidence.")
    carries: LimitOut | None = Field(description="What the machine can carry, and the limiting resource.")
    limits: list[LimitOut]
    lacks: list[str]
    notes: list[str]
    facts: ScalingFacts = Field(description="The figures used, in seconds, MiB and cores; null: not known.")


class LibraryOut(Schema):
    name: str
    version: str
    status: str = Field(description="safe, conditional, unsafe or unknown, for this pool.")
    reasons: list[str]
    threads: str
    gil: str
    free_threading: str
    since: str
    abis: list[str] = Field(description="Free-threaded ABIs with wheels; empty if all are alike.")
    wheels: str = Field(description="free_threading, since and abis in a few words.")
    advice: str
    source: str = Field(description="The page about threads.")
    wheels_source: str = Field(description="The page about wheels; empty if it is the tracker.")
    checked: str = Field(description="The day on which the source was read; empty if it was not.")


class CompatOut(Schema):
    title: str
    profile: str
    python: str
    free_threaded: bool
    unsafe: bool
    verdicts: list[LibraryOut]
    left_out: int = Field(description="Pure Python packages that the table does not have.")
    note: str = Field(description="What could not be read.")
    races: list[str] = Field(description="State that two threads wrote without a lock (thread_checks).")
