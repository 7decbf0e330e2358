"""The wall clock jumps by two hours, forward and back, under a real broker and Celery workers (libfaketime, preloaded).

Monotonic clocks are left alone, as a real jump leaves them. The times of the settings are short.
Beat is not here, but in tests/unit/test_cadence.py: libfaketime breaks sleeps that end at a monotonic time, as its do.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.process.acceptance.test_jobs import letting_go, stand

HOURS = 7200
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
]


class Clock:
    """The wall clock of every process that is started while it is in the environment."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = file
        self.set(0)
        monkeypatch.setenv("LD_PRELOAD", str(LIBRARIES[0]))
        monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
        monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
        monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")

    def set(self, seconds: int) -> None:
        """So far from the true time."""
        draft = self._file.with_suffix(".draft")  # never read half written
        draft.write_text(f"{seconds:+d}")
        draft.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> Clock:
    # After Valkey, which all tests of a session share, and whose clock is its own.
    if not LIBRARIES:
        unavailable("libfaketime is missing: apt install faketime")
    return Clock(tmp_path / "clock", monkeypatch)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("jump", [HOURS, -HOURS])
def test_a_jump_of_two_hours_ends_no_living_attempt_and_spares_no_dead_one(
    clock: Clock, valkey_url: str, tmp_path: Path, pipe: Path, jump: int
) -> None:
    with stand(tmp_path, valkey_url) as here:
        here.worker(threads=1)
        living = here.submit("hold_again", {"path": str(pipe)})
        here.holding()
        doomed = here.worker("w2", threads=1)
        dead = here.submit("hold_again", {"path": str(pipe)})
        here.holding(2)
        clock.set(jump)
        doomed.kill()
        freed = here.until(lambda: [one for one in here.ask("jobs") if one["outcomes"]], "a job that is freed")
        assert [(one["id"], one["outcomes"]) for one in freed] == [(*dead, ["lease_expired"])]
        letting_go(pipe)
        here.holding(3)
        letting_go(pipe)
        rows = {row["id"]: row for row in here.ended(living + dead)}
        assert [rows[one]["outcomes"] for one in living + dead] == [["succeeded"], ["lease_expired", "succeeded"]]
        assert len(here.lines("holding")) == 3
