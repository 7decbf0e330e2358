"""One hub for each web process: it reads the database once a second for all open streams of jobs.

    stream ─┐             ┌─ each POLL: number of entries and state of all followed jobs, in one query
    stream ─┼─ follow() ──┤
    stream ─┘             └─ new entries: one query for each job that changed; its streams share them

The hub works on a thread of its own, because streams run on the server's event loop (ASGI) or on one loop each (WSGI).
The thread ends with the last stream. Signals of jobs in this process wake it early.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, InterfaceError, connections

from snakepit.pools.api.body import dumps
from snakepit.pools.jobs import signals
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Job, JobEntry, schema
from snakepit.pools.models.states import TERMINAL

POLL = 1.0  # seconds between two reads
BATCH = 200  # entries of one job in one read, and entries that the hub keeps for its streams
MOST_IDS = 500  # jobs in one query; SQLite limits the parameters of a statement

SIGNALS = (signals.job_finished, signals.job_progressed)
UID = "snakepit.job-hub"

logger = logging.getLogger("snakepit.api")
Frames = list[tuple[int, str]]  # entries with their numbers, as server-sent events
Observed = dict[uuid.UUID, tuple[int, str]]  # the number of entries and the state of each job that exists


class FollowedJob:
    """What the streams of one job share. The hub's lock guards it."""

    def __init__(self, job_id: uuid.UUID, last: int) -> None:
        self.id = job_id
        self.last = last  # the newest entry that was read
        self.floor = last  # `entries` has all entries after this one
        self.entries: deque[tuple[int, str]] = deque(maxlen=BATCH)
        self.restarts = 0
        self.ended: Job | None = None
        self.deleted = False
        self.followers: set[Follower] = set()

    def add(self, frames: Frames) -> None:
        self.entries.extend(frames)
        self.last = frames[-1][0]
        self.floor = self.entries[0][0] - 1

    def restart(self) -> None:
        """The job was queued again: its entries were deleted and are numbered from 1."""
        self.entries.clear()
        self.last = self.floor = 0
        self.restarts += 1


class Follower:
    """One stream: its position, and the event that wakes it on its loop."""

    def __init__(self, job: FollowedJob, last: int) -> None:
        self.job = job
        self.last = last
        self.restarts = job.restarts
        self.finished = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop of a stream that has ended is closed
            logger.debug("a stream of job %s has no event loop any more", self.job.id)

    async def wait(self, seconds: float) -> bool:
        """Wait for news; False: none came in this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


class JobHub:
    """The followed jobs, and the thread that reads their news."""

    def __init__(self) -> None:
        self.polls = 0  # in this process's life
        self._jobs: dict[uuid.UUID, FollowedJob] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._due = threading.Event()

    @property
    def streams(self) -> int:
        """The number of streams that follow a job."""
        with self._lock:
            return sum(len(job.followers) for job in self._jobs.values())

    @contextmanager
    def follow(self, job_id: uuid.UUID, last: int) -> Iterator[Follower]:
        """Follow a job from its entry `last`."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.ended or job.deleted:  # streams of the earlier one read their last news
                job = self._jobs[job_id] = FollowedJob(job_id, last)
            follower = Follower(job, last)
            job.followers.add(follower)
            if self._thread is None or not self._thread.is_alive():
                self._start()
        try:
            yield follower
        finally:
            with self._lock:
                job.followers.discard(follower)
                if not job.followers and self._jobs.get(job_id) is job:
                    del self._jobs[job_id]
                if not self._jobs:
                    self._due.set()

    def news(self, follower: Follower) -> Frames | None:
        """The entries after the stream's position; None: the hub does not have all of them, read the rows."""
        with self._lock:
            job = follower.job
            if follower.restarts != job.restarts:
                follower.last, follower.restarts = 0, job.restarts
            if follower.last < job.floor:
                return None
            return [entry for entry in job.entries if entry[0] > follower.last]

    def read_soon(self, **_: Any) -> None:
        """Read now instead of at the next tick; a receiver of the signals of jobs."""
        if self._jobs:
            self._due.set()

    def _start(self) -> None:
        for signal in SIGNALS:
            signal.connect(self.read_soon, dispatch_uid=UID, weak=False)
        self._due.set()
        self._thread = threading.Thread(target=self._run, name="snakepit-job-hub", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._jobs:
                        self._thread = None
                        for signal in SIGNALS:
                            signal.disconnect(dispatch_uid=UID)
                        return
                    jobs = list(self._jobs.values())
                try:
                    with db_unit():
                        more = self._poll(jobs)
                except (DatabaseError, InterfaceError) as error:
                    logger.warning("the streams of jobs cannot read the database: %s", error)
                    more = False
                except Exception:
                    # A bug must not end every stream without a log line.
                    logger.exception("the streams of jobs cannot be updated")
                    more = False
                if not more:
                    self._due.wait(POLL)
                self._due.clear()
        finally:
            connections[schema.alias()].close()

    def _poll(self, jobs: Sequence[FollowedJob]) -> bool:
        """Read all followed jobs; True: a job has more entries than one read returns."""
        self.polls += 1
        ids = [job.id for job in jobs]
        observed: Observed = {}
        for start in range(0, len(ids), MOST_IDS):
            some = ids[start : start + MOST_IDS]
            rows = Job.objects.filter(pk__in=some).values_list("pk", "entry_count", "state")
            observed |= {job_id: (count, state) for job_id, count, state in rows}
        more = [self._update(job, *observed.get(job.id, (0, ""))) for job in jobs]
        return any(more)

    def _update(self, job: FollowedJob, count: int, state: str) -> bool:
        with self._lock:
            if state and count < job.last:
                job.restart()
            last = job.last
        frames = _read_entries(job.id, last) if count > last else []
        more = len(frames) == BATCH
        ended = Job.objects.filter(pk=job.id).first() if state in TERMINAL and not more else None
        with self._lock:
            if frames:
                job.add(frames)
            job.ended = ended if ended and ended.ended else None  # else it was queued again since it was read
            job.deleted = not state
            followers = tuple(job.followers) if frames or job.ended or job.deleted else ()
        for follower in followers:
            follower.wake()
        return more


def _read_entries(job_id: uuid.UUID, last: int) -> Frames:
    rows = JobEntry.objects.filter(job_id=job_id, seq__gt=last).order_by("seq")[:BATCH]
    return [(entry.seq, frame_of(entry)) for entry in rows]


def frame_of(entry: JobEntry) -> str:
    return f"id: {entry.seq}\nevent: {entry.kind}\ndata: {dumps(entry.data)}\n\n"


hub = JobHub()
