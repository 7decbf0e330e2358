"""The schema of the age of an answer."""

from __future__ import annotations

from ninja import Field, Schema


class SnapshotOut(Schema):
    """The age of what an answer has from the broker."""

    at: float = Field(description="When the broker reported it, seconds since the epoch.")
    age: float = Field(description="Seconds since then.")
    stale: bool = Field(description="The broker does not answer now: this is its last report.")
    reason: str = Field(description="Why it does not answer; empty if it does.")
    since: float | None = Field(description="When it first did not answer; null if it does.")
