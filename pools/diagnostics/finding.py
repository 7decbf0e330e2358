"""One line of the doctor's checklist, and the whole of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FindingStatus(StrEnum):
    """How it stands with one thing that was looked at."""

    OK = "ok"
    WARNING = "warning"  # works, and will not for long, or not for all
    PROBLEM = "problem"  # something does not work
    SKIPPED = "skipped"  # could not be looked at; the evidence says why


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names the thing, `evidence` what was seen, `fix` what to do (empty where nothing is to be done)."""

    check: str
    status: FindingStatus
    evidence: str
    fix: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    at: float  # seconds since the epoch
    seconds: float  # that it took
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """No problem; warnings do not count."""
        return all(one.status != FindingStatus.PROBLEM for one in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        return {str(status): sum(one.status == status for one in self.findings) for status in FindingStatus}


def report_of(at: float, seconds: float, findings: Iterable[Finding]) -> DoctorReport:
    return DoctorReport(at, round(seconds, 3), tuple(findings))
