"""What the calls and jobs of a run show of the promises. Facts in, findings out; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.cluster.caller import DEADLINES, IDEMPOTENT, KINDS, PLACED, Call
from benchmarks.faults.fault import Findings

LATE = 1.0  # seconds after its deadline within which a call ends
EVEN = 0.2  # of the mean: how far the share of a node may be from it
SETTLED = 4.0  # seconds after a change from which the load is compared
AGAIN = 10.0  # seconds within which a node that came back has calls
DRAINED = 2.0  # seconds after its drain from which a node gets no calls
ENDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Moments:
    """When the faults were made. Each is (from, until); `quiet` has none of them."""

    quiet: tuple[float, float]
    killed: tuple[float, float]
    lost: tuple[float, float]
    drained: tuple[float, float]
    end: float
    ready: float = 0.0  # when the broker that was killed had a worker again


@dataclass(frozen=True, slots=True)
class Names:
    """The nodes, and those that the faults meet."""

    every: tuple[str, ...]
    killed: str
    lost: str
    drained: str
    gpu: str


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The jobs after the run: their states, the nodes of those of the placed pool, and how often each ended."""

    accepted: int
    refused: Counter[str] = field(default_factory=Counter)  # submissions by error
    states: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)  # jobs by the number of their ends
    placed: Counter[str] = field(default_factory=Counter)  # results of the placed pool by node
    wrong: int = 0


def judge(calls: Sequence[Call], jobs: JobFacts, moments: Moments, names: Names) -> Findings:
    """All promises, with what was measured."""
    found = Findings()
    _answers(found, calls)
    _deadlines(found, calls)
    _evenness(found, calls, moments, names)
    _returns(found, calls, moments, names)
    _placement(found, calls, jobs, names)
    _jobs(found, jobs)
    return found


def _answers(found: Findings, calls: Sequence[Call]) -> None:
    for kind in dict.fromkeys(KINDS):
        mine = [call for call in calls if call.kind == kind]
        codes = Counter(call.code for call in mine)
        right = codes.pop("", 0)
        errors = "".join(f"; {count:,} {code}" for code, count in codes.most_common())
        found.measured[f"calls: {kind}"] = f"{right:,} of {len(mine):,} right{errors}"
        found.expect(right > 0, f"{kind}: no call was right")
        bad = [code for code in codes if code in ("wrong", "no answer") or code.startswith("untyped")]
        found.expect(not bad, f"{kind}: {bad[:3]}")
        if kind == IDEMPOTENT:
            found.expect(right == len(mine), f"idempotent calls failed: {dict(codes)}")


def _deadlines(found: Findings, calls: Sequence[Call]) -> None:
    over = max((call.took - DEADLINES[call.kind] for call in calls), default=0.0)
    slowest = max((call.took for call in calls), default=0.0)
    found.measured["slowest call"] = f"{slowest:.1f} s; latest {over:+.2f} s from its deadline"
    found.expect(over <= LATE, f"a call waited {over:.2f} s beyond its deadline")


def _evenness(found: Findings, calls: Sequence[Call], moments: Moments, names: Names) -> None:
    """Equal nodes have equal shares while no fault is made: before the faults, and after the last one."""
    ways = {"before the faults": moments.quiet, "after them": (moments.drained[1] + SETTLED, moments.end)}
    for name, (begin, end) in ways.items():
        taken = Counter(call.node for call in calls if call.kind != PLACED and call.node and begin <= call.began < end)
        shares = {node: taken[node] for node in names.every}
        mean = sum(shares.values()) / len(shares)
        off = max(abs(count - mean) for count in shares.values()) / mean if mean else 1.0
        found.measured[f"load {name}"] = f"{shares}, at most {off:.0%} from even"
        found.expect(off <= EVEN, f"the load {name} is {off:.0%} from even: {shares}")


def _returns(found: Findings, calls: Iterable[Call], moments: Moments, names: Names) -> None:
    at: Mapping[str, list[float]] = {node: [] for node in names.every}
    for call in calls:
        if call.kind != PLACED and call.node:
            at[call.node].append(call.began)
    begin, until = moments.drained
    late = sum(begin + DRAINED <= moment < until for moment in at[names.drained])
    found.measured["calls to the drained node"] = f"{late} later than {DRAINED:.0f} s after the order"
    found.expect(not late, f"{late} calls went to a drained node")
    for what, node, moment in (
        ("killed broker", names.killed, max(moments.ready, moments.killed[1])),
        ("lost host", names.lost, moments.lost[1]),
        ("drained node", names.drained, moments.drained[1]),
    ):
        after = min((one - moment for one in at[node] if one >= moment), default=float("inf"))
        started = (
            f", ready {moments.ready - moments.killed[1]:.1f} s after its start" if what == "killed broker" else ""
        )
        found.measured[f"back: {what}"] = f"first call after {after:.1f} s{started}"
        found.expect(after <= AGAIN, f"the {what} had no call within {AGAIN:.0f} s after its return")


def _placement(found: Findings, calls: Iterable[Call], jobs: JobFacts, names: Names) -> None:
    nodes = Counter(call.node for call in calls if call.kind == PLACED and call.node)
    found.measured["pool of gpu=yes"] = f"calls on {dict(nodes)}, jobs on {dict(jobs.placed)}"
    found.expect(set(nodes) == {names.gpu}, f"calls of the placed pool ran on {dict(nodes)}")
    found.expect(set(jobs.placed) == {names.gpu}, f"jobs of the placed pool ran on {dict(jobs.placed)}")


def _jobs(found: Findings, jobs: JobFacts) -> None:
    refused = "".join(f"; {count} refused with {code}" for code, count in jobs.refused.items())
    found.measured["jobs"] = f"{jobs.states[ENDED]:,} of {jobs.accepted:,} accepted succeeded{refused}"
    found.expect(jobs.accepted > 0, "no job was accepted")
    found.expect(jobs.states == Counter({ENDED: jobs.accepted}), f"jobs ended as {dict(jobs.states)}")
    found.expect(jobs.ends == Counter({1: jobs.accepted}), f"jobs by number of ends: {dict(jobs.ends)}")
    found.expect(not jobs.wrong, f"{jobs.wrong} jobs have a wrong result")
    untyped = [code for code in jobs.refused if code.startswith("untyped")]
    found.expect(not untyped, f"submissions: {untyped[:2]}")
