"""What a forked process shares with the one that wrote a memory file, or received it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snakepit.workers.kept_files import are_possible

pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not are_possible(), reason="this system cannot tell when a memory file is free")
ROOT = Path(__file__).resolve().parents[3]

FORKS = """
import asyncio, os, sys
import numpy as np
from tests.unit.workers.test_kept_files import LEAST, arrived, placed, sent
from snakepit.workers.kept_files import files

files.start(asyncio.new_event_loop())

def child(work):
    '''Fork; the child works, waits for the parent, and works again.'''
    ours, theirs = os.pipe()
    done, ended = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(theirs)
            generator = work()
            next(generator)
            os.write(ended, b"x")
            os.read(ours, 1)
            for _ in generator:
                pass
            code = 0
        finally:
            os._exit(code)
    os.close(ours)
    os.read(done, 1)
    def join():
        os.close(theirs)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return join

# A receiver's child has the value: it stays.
value = arrived(np.full(LEAST, 3.0))[0]
def reads():
    yield
    assert (value == 3).all()
join = child(reads)
del value
for _ in range(4):
    arrived(np.zeros(LEAST))
join()

# A sender's child keeps nothing of its parent's, and has no map of it.
assert files._files
addresses = [f"{one.address:x}-" for one in files._files]
def forgot():
    assert not files._files and files.take(LEAST) is None
    maps = open("/proc/self/maps").read()
    assert not [one for one in addresses if one in maps]
    yield
join = child(forgot)
kept = len(files._files)
assert (arrived(np.full(LEAST, 4.0))[0] == 4).all()
join()
assert len(files._files) == kept

# A command whose child may still write to its array: the file is sent as bytes, or is not written again.
out, outgoing = placed(LEAST)
def writes():
    out[0] = 9
    yield
    out[:] = 8
join = child(writes)
assert out[0] == 9
before = set(files._files)
try:
    delivered = sent(out, outgoing)[0]
except OSError:
    pass
else:
    raise SystemExit("the file was sealed beside a writer")
assert set(files._files) <= before
join()
print("held")
"""


def test_what_a_fork_shares_is_not_written_again() -> None:
    words = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "held\n", done.stderr
