"""A worker lowers its own CPU priority before it exits, and that of no other process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from snakepit.workers.process.worker import EXIT_NICE

ENDING = """
import json, os, threading
from snakepit.workers.process import worker
os.nice({own})
held = threading.Event()
threading.Thread(target=held.wait).start()
worker.lower_priority()
threads = [os.getpriority(os.PRIO_PROCESS, int(name)) for name in os.listdir("/proc/self/task")]
print(json.dumps([threads, os.getpriority(os.PRIO_PROCESS, os.getppid())]))
held.set()
"""


@pytest.mark.parametrize("own", [0, 15])
def test_all_threads_of_an_exiting_process_are_lowered_and_none_is_raised(own: int) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    command = [sys.executable, "-c", ENDING.format(own=own)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    its = max(EXIT_NICE, min(19, ours + own))
    assert json.loads(done.stdout) == [[its, its], ours]


def test_a_priority_that_may_not_be_changed_stays_as_it_is() -> None:
    refuse = "def refuse(*a): raise PermissionError()\nos.setpriority = refuse\nworker.lower_priority()"
    imports = "import os\nfrom snakepit.workers.process import worker"
    program = f"{imports}\n{refuse}\nprint(os.getpriority(os.PRIO_PROCESS, 0))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ours}\n", "")
