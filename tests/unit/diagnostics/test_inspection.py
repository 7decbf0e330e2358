"""What `snakepit inspect` makes of a status: figures of all pools and each, and the warnings beside them."""

from __future__ import annotations

from snakepit.pools.broker.command_status import CommandRunTimes
from snakepit.pools.broker.status import CommandInfo, RecyclePlan
from snakepit.pools.cli.inspect import Inspection, lines
from snakepit.pools.diagnostics.inspection import InspectedPool, inspect_memory, inspect_pool
from tests.statuses import pool, usage, worker

PLAN = RecyclePlan("a", (), at_once=1, max_surge=1, max_unavailable=0, load_seconds=0.0)


def inspected(name: str, busy: float, memory: float = 40.0) -> InspectedPool:
    used = usage(seconds=600.0, answered=100, calls_per_second=2.0, busy=busy)
    found = pool(name, size=2, ready=2, slots=2, memory_mb=80.5, load_seconds=0.5, usage=used)
    return inspect_pool(found, [worker(f"{name}-1", memory_mb=memory)], PLAN, None, None)


def text(*pools: InspectedPool) -> str:
    return "\n".join(lines(Inspection("", pools, (), ""), False, False))


def test_from_four_fifths_on_use_is_a_warning() -> None:
    assert inspected("a", 0.79).warnings == ()
    assert inspected("a", 0.8).warnings == ("80% busy over 10 minutes: from 80% on, calls soon wait",)
    assert "  warning       93% busy over 10 minutes" in text(inspected("a", 0.93))


def test_memory_of_the_workers_is_given_from_the_smallest_to_the_largest() -> None:
    workers = [worker(memory_mb=40.0), worker(memory_mb=60.0), worker(memory_mb=-1.0)]
    memory = inspect_memory(pool(), workers)
    assert (memory.smallest_mb, memory.mean_mb, memory.largest_mb) == (40.0, 50.0, 60.0)
    assert inspected("a", 0.1, memory=-1.0).memory.mean_mb is None


def test_several_pools_are_summed_up() -> None:
    assert "all pools: 4 of 4 workers ready, 2 of 4 slots free, 161 MiB" in text(
        inspected("a", 0.1), inspected("b", 0.1)
    )
    assert "all pools" not in text(inspected("a", 0.1))


def test_each_command_is_shown_with_its_types_also_one_that_never_ran() -> None:
    ran = CommandRunTimes("words", 2, 0.004, 0.002, (0, 0, 2, 0, 0, 0, 0))
    gone = CommandRunTimes("gone", 1, 0.001, 0.001, (0, 1, 0, 0, 0, 0, 0))
    known = (
        CommandInfo("near", streams=True, result_schema='{"$ref": "#/$defs/P", "$defs": {"P": {"type": "object"}}}'),
        CommandInfo("words", result_schema='{"type": "array", "items": {"type": "string"}}'),
    )
    made = inspect_pool(pool("a", run_times=(ran, gone)), [], PLAN, None, None, known)
    shown = "\n".join(lines(Inspection("", (made,), (), ""), True, False))
    assert "command       words: 2 runs, recently" in shown
    assert "words() -> string[]" in shown
    assert "command       gone: 1 runs" in shown
    assert "command       near: no runs" in shown
    assert "near() -> stream of P" in shown
    assert "P = object" in shown


def test_the_first_line_names_the_node() -> None:
    assert next(lines(Inspection("", (), (), "", "gpu-1"), False, False)) == "node gpu-1"
