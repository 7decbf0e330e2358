"""Requests to every operation of the REST API that its description allows, and that it does not (schemathesis)."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from importlib.util import find_spec

from benchmarks.faults.fault import Fault, Findings
from benchmarks.faults.place import Place, place
from tests import services

LEAST = 60.0  # seconds; in less it skips whole operations
EXTRA = 300.0  # seconds for phases that are not bound by the time of the run
ACCEPTANCE = "ST202"  # its number of the check positive_data_acceptance
COUNT = re.compile(r"^\s+([\d,]+) generated", re.MULTILINE)
FAILURE = re.compile(r"❌ (ST\d+ .+): (\d+)")


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
        here.client.resume()  # one of the operations drains the node
        alive = here.client.call("p", "double", number=1, timeout=60.0) == 2
        found.expect(alive, "the next call does not work")
    return here.found


def schemathesis(here: Place, seconds: float) -> str:
    """Run it with all checks; return what it printed."""
    site = f"http://127.0.0.1:{here.site.port}"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{site}/api/openapi.json", "--checks", "all"]
    command += ["--header", f"Authorization: {here.http.headers['authorization']}", "--no-color"]
    command += ["--continue-on-failure", "--max-time", f"{seconds:.0f}", "--request-timeout", "60"]
    with tempfile.TemporaryDirectory(prefix="snakepit-fuzz-") as home:
        done = subprocess.run(
            command, cwd=home, capture_output=True, text=True, timeout=seconds + EXTRA, check=False, errors="replace"
        )
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
