"""A worker that ends lets those who work go first, and lowers nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from snakepit.workers.process.exit_priority import NICE

ENDING = """
import json, os, threading
from snakepit.workers.process import exit_priority
os.nice({own})
held = threading.Event()
threading.Thread(target=held.wait).start()
exit_priority.give_way()
threads = [os.getpriority(os.PRIO_PROCESS, int(name)) for name in os.listdir("/proc/self/task")]
print(json.dumps([threads, os.getpriority(os.PRIO_PROCESS, os.getppid())]))
held.set()
"""


@pytest.mark.parametrize("own", [0, 15])
def test_all_threads_of_a_process_that_ends_give_way_and_none_is_raised(own: int) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    command = [sys.executable, "-c", ENDING.format(own=own)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    its = max(NICE, min(19, ours + own))
    assert json.loads(done.stdout) == [[its, its], ours]


def test_what_the_system_does_not_allow_is_left_as_it_is() -> None:
    refuse = "def refuse(*a): raise PermissionError()\nos.setpriority = refuse\nexit_priority.give_way()"
    imports = "import os\nfrom snakepit.workers.process import exit_priority"
    program = f"{imports}\n{refuse}\nprint(os.getpriority(os.PRIO_PROCESS, 0))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ours}\n", "")
