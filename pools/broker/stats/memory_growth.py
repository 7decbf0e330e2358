"""Which command makes the workers of a pool grow: memory against calls, without touching the calls.

Between two samples of one worker lie its growth in MiB and how many calls of each command ended. Over many such pairs
the growth of a call of each command follows by least squares. Nothing is kept for a call but a count, and of the pairs
only their sums: COLUMNS squared numbers for a pool, however long it lives. Old pairs fade, so that a leak that was
mended, or began, shows.

There are no guesses: fewer than MIN_CALLS calls or MIN_SAMPLES pairs are "not enough evidence", and commands that only
ever run together "cannot be told apart".

>>> growth = MemoryGrowth()
>>> memory, worker = 50.0, WorkerGrowth()
>>> for turn in range(8):
...     for command, calls in (("embed", 10), ("echo", 40 + 10 * (turn % 3))):
...         worker.counts[command] += calls
...         memory += 0.005 * calls if command == "embed" else 0.0
...     growth.sampled(worker, memory, idle=True)
>>> [(found.command, round(found.mb), found.verdict) for found in growth.commands()]
[('embed', 5, 'measured'), ('echo', 0, 'measured')]
>>> growth.describe(worker)
'grew 0.8 MiB per 1,000 calls, mostly `embed`'
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import sqrt

MIN_CALLS = 20  # calls, and
MIN_SAMPLES = 3  # pairs of samples that a figure needs
COLUMNS = 16  # commands that are told apart; all others together are one more
OTHERS = "(others)"
DECAY = 0.998  # of the weight of each pair, when a newer one comes: half of it after some 350
ALONE = 0.002  # share of a command's calls that must be its own, not foretold by those of the others
PART = 0.05  # share that a command must have in foretelling another to be taken for a part of it
SURE = 2.0  # standard deviations that a command's growth must be above nothing before it is called the cause
MOST = 0.5  # share of a worker's growth that makes a command its main cause

MEASURED = "measured"
TOO_LITTLE = "not enough evidence"
TOGETHER = "cannot be told apart"


@dataclass(slots=True)
class WorkerGrowth:
    """One worker: what grew since its first sample after a call, and in how many calls."""

    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # calls since the last sample
    totals: dict[str, int] = field(default_factory=dict)  # calls in all pairs
    memory: float | None = None  # at the last sample
    grown: float = 0.0  # MiB in all pairs
    calls: int = 0
    samples: int = 0  # pairs
    last: dict[int, int] = field(default_factory=dict)  # calls in the last pair, by column
    last_delta: float = 0.0  # MiB in it

    @property
    def mb(self) -> float | None:
        """MiB per 1,000 calls; None: not enough evidence."""
        enough = self.calls >= MIN_CALLS and self.samples >= MIN_SAMPLES
        return self.grown / self.calls * 1000 if enough else None


@dataclass(frozen=True, slots=True)
class CommandGrowth:
    command: str
    mb: float | None  # per 1,000 calls; None: see the verdict
    error: float | None  # of it, one standard deviation
    calls: int
    samples: int  # pairs in which it ran
    verdict: str


class MemoryGrowth:
    """One generation of a pool: new code may have another leak, or none."""

    def __init__(self) -> None:
        self.grown = 0.0
        self.calls = 0
        self.samples = 0
        self._columns: dict[str, int] = {}
        self._calls: list[int] = []
        self._seen: list[int] = []
        self._products: list[list[float]] = []  # X'X: calls by calls
        self._effects: list[float] = []  # X'y: calls by growth
        self._squares = 0.0  # y'y
        self._weight = 0.0
        self._found: list[CommandGrowth] | None = None

    @property
    def mb(self) -> float | None:
        """MiB per 1,000 calls of all workers together; None: not enough evidence."""
        enough = self.calls >= MIN_CALLS and self.samples >= MIN_SAMPLES
        return self.grown / self.calls * 1000 if enough else None

    def sampled(self, worker: WorkerGrowth, memory: float, *, idle: bool) -> None:
        """A worker's memory in MiB. `idle`: it holds no call now."""
        counts = worker.counts
        if worker.memory is None:
            if counts:  # what the first call loads is no leak; without a call there is nothing to compare yet
                worker.memory, worker.counts = memory, defaultdict(int)
            return
        if not counts:
            if idle:  # it grew or shrank by itself: no command is the cause
                self._take_back(worker, worker.memory - memory)
                worker.memory = memory
            return  # else within a call that is still to be counted
        delta, worker.memory, worker.counts = memory - worker.memory, memory, defaultdict(int)
        worker.grown += delta
        worker.samples += 1
        self.grown += delta
        self.samples += 1
        for command, calls in counts.items():
            worker.calls += calls
            self.calls += calls
            known = command if command in worker.totals or len(worker.totals) < COLUMNS else OTHERS
            worker.totals[known] = worker.totals.get(known, 0) + calls
        worker.last, worker.last_delta = self._add_pair(counts, delta), delta

    def _take_back(self, worker: WorkerGrowth, fallen: float) -> None:
        """What calls left for some seconds, such as a file of a large result, is no growth when it is gone.

        No more than the last pair grew: the share of a worker in common memory falls when another worker starts.
        """
        fallen = min(fallen, worker.last_delta)
        if fallen <= 0.0:
            return
        worker.grown -= fallen
        self.grown -= fallen
        self._squares += (worker.last_delta - fallen) ** 2 - worker.last_delta**2
        for column, calls in worker.last.items():
            self._effects[column] -= calls * fallen
        worker.last_delta -= fallen
        self._found = None

    def _add_pair(self, counts: dict[str, int], delta: float) -> dict[int, int]:
        row: dict[int, int] = {}
        for command, calls in counts.items():
            column = self._column(command)
            row[column] = row.get(column, 0) + calls
        for products in self._products:
            for column in range(len(products)):
                products[column] *= DECAY
        self._effects = [effect * DECAY for effect in self._effects]
        self._squares = self._squares * DECAY + delta * delta
        self._weight = self._weight * DECAY + 1
        for one, calls in row.items():
            self._calls[one] += calls
            self._seen[one] += 1
            self._effects[one] += calls * delta
            for other, beside in row.items():
                self._products[one][other] += calls * beside
        self._found = None
        return row

    def _column(self, command: str) -> int:
        if command not in self._columns and len(self._columns) >= COLUMNS:
            command = OTHERS
        if command not in self._columns:
            self._columns[command] = len(self._columns)
            self._calls.append(0)
            self._seen.append(0)
            self._effects.append(0.0)
            for products in self._products:
                products.append(0.0)
            self._products.append([0.0] * len(self._columns))
        return self._columns[command]

    def commands(self) -> list[CommandGrowth]:
        """Every command's figure, the largest growth first, those without a figure last."""
        if self._found is None:
            self._found = sorted(self._judge(), key=lambda found: (found.mb is None, -(found.mb or 0.0), found.command))
        return self._found

    def _judge(self) -> list[CommandGrowth]:
        inverse = inverted(self._products)
        size = len(self._columns)
        slopes = [sum(inverse[one][other] * self._effects[other] for other in range(size)) for one in range(size)]
        explained = sum(slope * effect for slope, effect in zip(slopes, self._effects, strict=True))
        spread = max(0.0, self._squares - explained) / max(1.0, self._weight - size)
        found = []
        for command, one in self._columns.items():
            calls, samples = self._calls[one], self._seen[one]
            # The share of its calls that the other commands' calls do not foretell.
            alone = 1 / (inverse[one][one] * self._products[one][one]) if inverse[one][one] > 0 else 0.0
            enough = (
                calls >= MIN_CALLS and samples >= MIN_SAMPLES and self._weight > size and self._products[one][one] > 1
            )
            verdict = TOO_LITTLE if not enough else MEASURED if alone >= ALONE else TOGETHER
            known = verdict == MEASURED
            mb = slopes[one] * 1000 if known else None
            error = sqrt(spread * inverse[one][one]) * 1000 if known else None
            found.append(CommandGrowth(command, mb, error, calls, samples, verdict))
        return found

    def all_calls(self) -> dict[str, int]:
        """Calls by command, of all pairs."""
        return dict(zip(self._columns, self._calls, strict=True))

    def mostly(self, totals: dict[str, int]) -> str:
        """The command that made most of the growth of so many calls; empty: none did, or it is not known."""
        sure = [one for one in self.commands() if one.mb and one.error is not None and one.mb > SURE * one.error]
        shares = {one.command: (one.mb or 0.0) * totals.get(one.command, 0) for one in sure if one.command != OTHERS}
        whole = sum(max(0.0, one.mb or 0.0) * totals.get(one.command, 0) for one in self.commands())
        top = max(shares, key=lambda command: shares[command], default="")
        return top if top and shares[top] > MOST * whole else ""

    def describe(self, worker: WorkerGrowth) -> str:
        """One clause for people: "grew 4.9 MiB per 1,000 calls, mostly `embed`"; empty: not enough evidence."""
        own, whose = worker.mb, "grew"
        if own is None:
            own, whose = self.mb, "workers of the pool grew"
        if own is None:
            return ""
        totals = worker.totals if worker.mb is not None else self.all_calls()
        command = self.mostly(totals) if own > 0 else ""
        return f"{whose} {own:,.1f} MiB per 1,000 calls" + (f", mostly `{command}`" if command else "")


def inverted(matrix: list[list[float]]) -> list[list[float]]:
    """The inverse of a matrix of sums of products, by Gauss and Jordan; rows that others foretell become zeros.

    >>> inverted([[2.0, 0.0], [0.0, 4.0]])
    [[0.5, 0.0], [0.0, 0.25]]
    >>> inverted([[1.0, 2.0], [2.0, 4.0]])
    [[0.0, 0.0], [0.0, 0.0]]
    """
    size = len(matrix)
    left = [list(row) for row in matrix]
    right = [[float(one == other) for other in range(size)] for one in range(size)]
    dead = []
    for one in range(size):
        pivot = left[one][one]
        if pivot <= ALONE * matrix[one][one] or pivot <= 0.0:
            dead.append(one)
            continue
        left[one] = [value / pivot for value in left[one]]
        right[one] = [value / pivot for value in right[one]]
        for other in range(size):
            if other != one and (factor := left[other][one]):
                left[other] = [a - factor * b for a, b in zip(left[other], left[one], strict=True)]
                right[other] = [a - factor * b for a, b in zip(right[other], right[one], strict=True)]
    if not dead:
        return right
    # What is left in the column of a row that the others foretell is how much each of them has a part in it.
    tied = set(dead)
    for gone in dead:
        for one in set(range(size)) - tied:
            if abs(left[one][gone]) * sqrt(matrix[one][one]) > PART * sqrt(matrix[gone][gone]) > 0.0:
                tied.add(one)
    return _spread(matrix, [one for one in range(size) if one not in tied])


def _spread(matrix: list[list[float]], kept: list[int]) -> list[list[float]]:
    """The inverse of the kept rows and columns at their places among zeros."""
    small = inverted([[matrix[one][other] for other in kept] for one in kept])
    full = [[0.0] * len(matrix) for _ in matrix]
    for row, one in enumerate(kept):
        for column, other in enumerate(kept):
            full[one][other] = small[row][column]
    return full
