"""All faults, in the order of the page."""

from __future__ import annotations

from benchmarks.faults.cases import (
    buffers,
    calls,
    clock,
    cron,
    drain,
    freezes,
    frozen_jobs,
    jobs,
    kill_storm,
    malformed,
    rest,
    services,
    soak,
)

MODULES = (kill_storm, calls, buffers, freezes, frozen_jobs, jobs, malformed, clock, cron, services, drain, rest, soak)
FAULTS = {fault.name: fault for module in MODULES for fault in module.FAULTS}
