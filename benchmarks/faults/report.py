"""The newest outcome of each fault, in faults.json, and the page that is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults.fault import Fault

ROOT = Path(__file__).parents[2]
LATEST = ROOT / "benchmarks" / "faults.json"
PAGE = ROOT / "docs" / "explanation" / "reliability.md"

Outcome = dict[str, Any]  # what is stored of one run

HEAD = """\
# Reliability

Written by `make faults` and `make docs`; do not edit. This page lists what Snakepit promises under faults, how each
promise is tested, and what the newest run measured.

## What is guaranteed

These promises hold under every fault of this page.

1. **One answer.** A call ends once: with its result, or with one error of the [closed list](../reference/errors.md).
2. **A known outcome.** Each error says whether the work did not start, failed, or may have run.
3. **Safe repetition.** A call that has not begun runs on another worker. One that has begun runs again only if its
   command is idempotent.
4. **Bounded time.** A call ends at its deadline, at most about a second later if the broker is silent.
5. **Bounded memory.** Queues, messages, logs and streams have [limits](../reference/limits.md).
6. **Nothing is left.** Afterwards all slots are free. No process, zombie, descriptor or thread is left over.
7. **No lost job.** An accepted job ends once, also if every process that carries it dies.
8. **The next call works.**

## What is not guaranteed

- A call whose worker dies fails with `worker_lost` if it has begun and is not idempotent. Its outcome is `unknown`.
- An idempotent call runs again at most five times, and retries are at most a share of all calls (`retry_budget`).
  Beyond that it fails with `worker_lost`, too. The kill storm raises this budget, because on a slow machine its deaths
  end more calls than a tenth.
- If more workers of a pool die in a minute than its `death_budget`, and the calls of a command end more of them than
  survive, that command is suspended. Its calls fail with `command_suspended`, and the pool serves the other commands.
- Without such a command the pool is in a crash loop. Calls wait for the next start if it comes within `queue_timeout`.
  Otherwise they fail with `pool_failed`. The kill storm raises this budget, too, because it kills more workers than
  a healthy pool loses.
- A worker that sends half a frame and holds a call is ended at the call's deadline, not before.
- While the database is away, REST answers `database_unavailable`, because it cannot check a key. Python clients on the
  machine of the broker need no database.

## How it is tested

There are three levels. Each fault that one of them found has a test in the suite.

| Level | Command | What it does |
|---|---|---|
| Suite | `make test` | Real processes, sockets, signals and databases. The tests below are part of it. |
| Faults | `make faults` | Starts a real broker or site for each fault, makes it for minutes, and checks the promises. |
| Chaos | `make chaos` | Kills each process in turn under 300 jobs, ten times. |

    make faults                                             # everything, about an hour
    make faults FAULTS="kill-spawned soak" SECONDS=20       # some of them, each for 20 seconds

After each fault the harness checks these points:

- Each call has an answer, and the answer is right.
- Each error is typed.
- All workers are ready and all slots free.
- The next call works.
- Broker and client have no more descriptors, threads, children or zombies than before.
- No process of the broker is left when it ends.

"""

TABLE_HEAD = """\
## The newest run

A run marked *busy* began on a machine with more than three runnable tasks per core. Its figures are only a hint; its
promises are not.

| Fault | Result | Seconds | Measured |
|---|---|--:|---|
"""


def read(path: Path = LATEST) -> dict[str, Outcome]:
    """The stored outcomes by the name of their fault."""
    return json.loads(path.read_text()) if path.exists() else {}


def enter(name: str, outcome: Outcome, path: Path = LATEST) -> None:
    """Store an outcome immediately."""
    stored = read(path) | {name: outcome}
    path.write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n")


def verdict(outcome: Outcome | None) -> str:
    """Return `holds`, `broken` or what kept the fault from running."""
    if outcome is None:
        return "not run"
    if outcome.get("failed"):
        return "failed"
    return "broken" if outcome["broken"] else "holds"


def page(faults: Mapping[str, Fault], outcomes: Mapping[str, Outcome]) -> str:
    """The whole page."""
    rows = []
    for name, fault in faults.items():
        outcome = outcomes.get(name)
        ran = "" if outcome is None else f"{outcome['date']}{', busy' if outcome['busy'] else ''}"
        seconds = "" if outcome is None else f"{outcome['seconds']:.0f}"
        rows.append(f"| `{fault.name}` | {verdict(outcome)} | {seconds} | {ran} |\n")
    details = "".join(section(fault, outcomes.get(name)) for name, fault in faults.items())
    machines = sorted({outcome["machine"] for outcome in outcomes.values()})
    where = "".join(f"\n## Where it ran\n\n{one}\n" for one in machines[-1:])
    return HEAD + TABLE_HEAD + "".join(rows) + "\n## Each fault\n" + details + where


def section(fault: Fault, outcome: Outcome | None) -> str:
    """What the fault is, what is promised, what was measured, and which tests of the suite belong to it."""
    text = f"\n### {fault.name}\n\n{fault.what}.\n\n**Promise:** {fault.promise}\n\n"
    if outcome is not None:
        cells = [("Failed", outcome["failed"])] if outcome.get("failed") else list(outcome["measured"].items())
        cells += [("Broken", one) for one in outcome["broken"]]
        lines = [f"| {name} | {value} |\n" for name, value in ((n, one_line(v)) for n, v in cells)]
        text += "| Measured | |\n|---|---|\n" + "".join(lines) + "\n"
    return (
        text
        + "Tests of the suite:\n\n"
        + "".join(f"- `tests/{test.partition('::')[0]}`{_name(test)}\n" for test in fault.tests)
    )


def one_line(text: str) -> str:
    """Text for a cell of a table.

    >>> one_line("a | b\\n  c")
    'a / b c'
    """
    return " ".join(text.replace("|", "/").split())


def _name(test: str) -> str:
    name = test.partition("::")[2]
    return f": {name.removeprefix('test_').replace('_', ' ')}" if name else ""
