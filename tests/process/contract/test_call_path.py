"""The bound of the files that a lone call passes, which keeps its way short enough to be read in one sitting."""

from __future__ import annotations

import subprocess
import sys

from tests.brokers import ROOT


def test_a_lone_call_passes_thirty_files_of_which_ten_are_in_the_broker() -> None:
    command = [sys.executable, "-m", "benchmarks.trace", "--call"]
    traced = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert traced.returncode == 0, traced.stdout + traced.stderr
    assert ": met." in traced.stdout
