"""The findings of the doctor and its report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FindingStatus(StrEnum):
    """The result of one check."""

    OK = "ok"
    WARNING = "warning"  # works, but not for long, or not for all
    PROBLEM = "problem"  # something does not work
    SKIPPED = "skipped"  # could not be checked; the evidence has the reason


@dataclass(frozen=True, slots=True)
class Finding:
    """`evidence` is what was found, `fix` what to do; `fix` is empty if nothing is to be done."""

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
    node: str = ""  # that of the host where the checks ran

    @property
    def healthy(self) -> bool:
        """No problem; warnings do not count."""
        return all(one.status != FindingStatus.PROBLEM for one in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        return {str(status): sum(one.status == status for one in self.findings) for status in FindingStatus}


def report_of(at: float, seconds: float, findings: Iterable[Finding], node: str = "") -> DoctorReport:
    return DoctorReport(at, round(seconds, 3), tuple(findings), node)
