"""Requests to every operation of the REST API that its description allows, and that it does not (schemathesis)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.faults.census import until
from benchmarks.faults.fault import Fault, Findings
from benchmarks.faults.place import POOL, WITHIN, Place, place
from benchmarks.stack import ROOT
from snakepit.pools.broker.errors import BrokerError
from tests import services

LEAST = 60.0  # seconds; in less it skips whole operations
EXTRA = 300.0  # seconds for phases that are not bound by the time of the run
ACCEPTANCE = "ST202"  # its number of the check positive_data_acceptance
COUNT = re.compile(r"^\s+([\d,]+) generated", re.MULTILINE)
FAILURE = re.compile(r"❌ (ST\d+ .+): (\d+)")
# 503 is what readiness says while a pool that the fuzz has added has no worker.
CONFIG = """
[[operations]]
include-operation-id = "ready"
checks.not_a_server_error.expected-statuses = [200, 503]
"""


def fuzz(database: Callable[[], AbstractContextManager[str]], seconds: float) -> Findings:
    if find_spec("schemathesis") is None:
        raise services.Missing("schemathesis is missing: pip install 'django-snakepit[fuzz]'")
    with ExitStack() as opened:
        url = opened.enter_context(database())
        here = opened.enter_context(place({"SNAKEPIT_DATABASE_URL": url} if url else {}))
        text = schemathesis(here, max(seconds, LEAST))
        found = here.found
        cases = COUNT.search(text)
        found.expect(cases is not None, f"schemathesis did not run: {text[-500:]}")
        for what, number in FAILURE.findall(text):
            # Names of pools, states and cursors are text in the description, and only some are accepted.
            if what.startswith(ACCEPTANCE):
                found.measured["refused though described"] = f"{number} operations"
            else:
                found.expect(False, f"{what}: {number}")
        found.measured["requests"] = cases[1] if cases else "none"
        if found.broken:
            print(text)  # it has a curl command for each failure
        undo(here)
        found.expect(until(lambda: calls_work(here), WITHIN), "the next call does not work")
    return here.found


def undo(here: Place) -> None:
    """Take back what the operations may do to the node and to the pool that is called next."""
    here.client.resume()
    for path, body in (("resume", {}), ("scale", {"size": 2})):
        here.http.post(f"/api/pools/{POOL}/{path}", json=body)


def calls_work(here: Place) -> bool:
    try:
        return bool(here.client.call(POOL, "double", number=1, timeout=WITHIN) == 2)
    except BrokerError:
        return False  # no worker is ready yet, or the command is suspended for a moment


def schemathesis(here: Place, seconds: float) -> str:
    """Run it with all checks; return what it printed."""
    site = f"http://127.0.0.1:{here.site.port}"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{site}/api/openapi.json", "--checks", "all"]
    command += ["--header", f"Authorization: {here.http.headers['authorization']}", "--no-color"]
    command += ["--continue-on-failure", "--max-time", f"{seconds:.0f}"]
    command += ["--request-timeout", "60", "--max-response-time", "60"]  # its own 10 s fail on a busy machine
    hooks = {"SCHEMATHESIS_HOOKS": "benchmarks.faults.fuzz_hooks", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="snakepit-fuzz-") as home:
        Path(home, "schemathesis.toml").write_text(CONFIG)
        done = subprocess.run(
            command, cwd=home, env={**os.environ, **hooks}, capture_output=True, text=True, timeout=seconds + EXTRA,
            check=False, errors="replace",
        )  # fmt: skip
    return done.stdout + done.stderr


DATABASES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "sqlite": lambda: nullcontext(""),
    "postgresql": services.postgres,
}
FAULTS = tuple(
    Fault(
        name=f"rest-{name}",
        what=f"schemathesis with all checks against every REST operation, on {name}",
        promise="No status of the 500s, and no status, header or body that the description does not have.",
        tests=("process/integration/test_api.py", "process/integration/test_api_limits.py"),
        run=partial(fuzz, database),
        seconds=120.0,
    )
    for name, database in DATABASES.items()
)
