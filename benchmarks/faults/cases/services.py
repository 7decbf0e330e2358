"""The services beside the site: PostgreSQL and Valkey go, freeze, refuse and come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.faults.fault import Fault, Findings
from benchmarks.faults.place import Place, place
from tests import services

AWAY = 5.0  # seconds of each absence


def rounds(here: Place, seconds: float, faults: list[Callable[[], None]]) -> int:
    """Make the faults in turn, under traffic, each followed by a rest; return how many."""
    here.start()
    here.over.wait(3.0)
    end, made = time.monotonic() + seconds, 0
    while time.monotonic() < end or made < len(faults):
        faults[made % len(faults)]()
        here.over.wait(AWAY)
        made += 1
    here.stop()
    return made


def database_away(seconds: float) -> Findings:
    """PostgreSQL is stopped without a checkpoint for five seconds, again and again."""
    with ExitStack() as opened:
        database = opened.enter_context(services.restartable_postgres())
        transport = opened.enter_context(services.valkey())
        here = opened.enter_context(place({"SNAKEPIT_DATABASE_URL": database.url, "SNAKEPIT_CELERY_URL": transport}))

        def away() -> None:
            database.crash()
            here.over.wait(AWAY)
            database.start()

        made = rounds(here, seconds, [away])
        here.check()
        here.found.expect(here.calls.right == here.calls.asked, f"calls: {here.calls}")
        here.found.expect(set(here.rest.errors) <= {"database_unavailable"}, f"REST calls: {here.rest}")
        here.found.measured["absences"] = f"{made} of {AWAY:g} s"
    return here.found


def transport_away(seconds: float) -> Findings:
    """Valkey is killed and comes back empty, is frozen, and refuses commands for want of memory, in turn."""
    with ExitStack() as opened:
        transport = opened.enter_context(services.restartable_valkey())
        here = opened.enter_context(place({"SNAKEPIT_CELERY_URL": transport.url}))

        def kill() -> None:
            transport.kill()
            here.over.wait(AWAY)
            transport.start_empty()

        def freeze() -> None:
            transport.freeze()
            here.over.wait(AWAY)
            transport.thaw()

        def refuse() -> None:
            transport.configure("maxmemory", 1)
            here.over.wait(AWAY)
            transport.configure("maxmemory", 0)

        made = rounds(here, seconds, [kill, freeze, refuse])
        here.check()
        for name, counted in (("calls", here.calls), ("REST calls", here.rest)):
            here.found.expect(counted.right == counted.asked, f"{name}: {counted}")
        here.found.measured["faults"] = f"{made} of {AWAY:g} s"
    return here.found


FAULTS = (
    Fault(
        "database-away",
        "PostgreSQL is stopped without a checkpoint for 5 s, again and again",
        "Calls continue. REST answers `database_unavailable`. Every accepted job ends once, with its result.",
        (
            "process/acceptance/test_database_away.py::test_every_operation_and_page_reports_an_unavailable_database"
            "_and_works_when_it_is_back",
            "process/acceptance/test_jobs_chaos.py::test_300_jobs_end_once_while_all_that_carries_them_is_killed_in"
            "_turn",
        ),
        database_away,
    ),
    Fault(
        "redis-away",
        "Valkey is killed and comes back empty, is frozen, refuses commands for want of memory: 5 s each",
        "Calls and REST continue. Submissions are accepted within seconds. Every accepted job ends once.",
        (
            "process/acceptance/test_jobs.py::test_jobs_survive_a_valkey_that_comes_back_empty",
            "process/integration/test_jobs_transport.py::test_a_message_to_a_frozen_transport_does_not_block_its_sender",
        ),
        transport_away,
    ),
)
