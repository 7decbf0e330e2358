"""The newest outcome of each row, in latest.json: a list of rows, each with the date and the machine of its own run.

A failed row has its name and reason, but no numbers: earlier measurements are not valid for code that fails now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.row import Failed, Measured, Outcome, Result, Row, Run


class Latest:
    """The results of the existing rows, in their order. Removed rows of the file are dropped."""

    def __init__(self, path: Path, rows: Iterable[Row]) -> None:
        self._path = path
        self.rows = tuple(rows)
        self._outcomes: dict[str, Outcome] = {}
        named = {row.name: row for row in self.rows}
        for facts in json.loads(path.read_text()) if path.exists() else ():
            if row := named.get(facts["name"]):
                self._outcomes[row.name] = from_json(row, facts)

    def enter(self, outcome: Outcome) -> None:
        """Save an outcome immediately."""
        self._outcomes[outcome.row.name] = outcome
        text = json.dumps([to_json(each) for each in self.outcomes()], indent=2, ensure_ascii=False)
        self._path.write_text(text + "\n")

    def get(self, name: str) -> Outcome | None:
        return self._outcomes.get(name)

    def outcomes(self) -> list[Outcome]:
        """The saved outcomes, in the order of the rows."""
        return [self._outcomes[row.name] for row in self.rows if row.name in self._outcomes]


def to_json(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    found: dict[str, Any] = {"name": row.name, "ours": None, "peer": None, "unit": row.unit, "ratio": None}
    if isinstance(outcome, Result):
        found |= {"ours": outcome.measured.ours, "peer": outcome.measured.peer, "ratio": outcome.ratio}
    if row.target is not None:
        found |= {"target": row.target, "met": isinstance(outcome, Result) and outcome.met}
    if isinstance(outcome, Failed):
        found["failed"] = outcome.reason
    else:
        found |= {"cpu": outcome.measured.cpu} if outcome.measured.cpu else {}
        found |= {"note": outcome.measured.note} if outcome.measured.note else {}
    return {**found, "date": outcome.run.date, "busy": outcome.run.busy, "machine": outcome.run.machine}


def from_json(row: Row, facts: dict[str, Any]) -> Outcome:
    run = Run(facts["date"], facts["machine"], facts.get("busy", True))
    if reason := facts.get("failed"):
        return Failed(row, reason, run)
    return Result(row, Measured(facts["ours"], facts["peer"], facts.get("cpu", {}), facts.get("note", "")), run)
