"""Freed memory that a process keeps for its next large message."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]  # not of tests.brokers: this file runs where the worker's packages alone are
PROGRAM = """
import resource
from snakepit.workers.process.heap import keep_freed_memory

def call():
    made = [bytes(100_000) for _ in range(4)]
    del made

keep_freed_memory()
call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other rules")
def test_large_messages_get_no_new_pages() -> None:
    words = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000  # without, each call gets some hundred
