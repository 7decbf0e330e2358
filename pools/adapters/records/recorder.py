"""Writes the observed state into rows: events and statuses from the broker's loop, in a thread of its own.

    loop:    record(event) ──▶ bounded buffer ┐
             observe(status) ───▶ the newest  ┤
    thread:            once a second at most ─┴▶ one transaction: Event, Node and Worker rows

While the database is down, the buffer keeps the newest events and counts those it drops. The broker never waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    close_old_connections,
    connections,
    transaction,
)
from django.db.models.functions import Now

from snakepit.pools import conf, signals
from snakepit.pools.adapters.records.minute_aggregator import MinuteAggregator, MinuteTotals
from snakepit.pools.broker.events import Event as BrokerEvent
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.status import BrokerStatus, NodeStatus, WorkerStatus
from snakepit.pools.host import host_id, socket_id
from snakepit.pools.models import PoolPeriod, schema
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.observed import LEVELS, WORKER_STATES, Event, Node, Worker
from snakepit.pools.models.strict_json import scrub, scrub_text

logger = logging.getLogger("snakepit.recorder")

BUFFER = 10_000  # events that may wait for the database
BATCH = 500  # events in one transaction
BEAT = 5.0  # an unchanged row gets a new `seen_at` this often
PRUNE = 60.0  # pause between two prunings
RETRY = (1.0, 2.0, 5.0)  # pauses while the database is down; the last one repeats
ENDS = (Kind.WORKER_DIED, Kind.WORKER_RECYCLED)

Pending = tuple[float, BrokerEvent]


class DatabaseRecorder:
    """The port `Recorder` over the database."""

    def __init__(self, node: str = "", *, pause: float = 1.0) -> None:
        self.node = node or conf.node_name()
        self.dropped = 0
        self._pause = pause
        self._pending: deque[Pending] = deque()
        self._unsent: deque[Pending] = deque(maxlen=BUFFER)  # for receivers of the signal
        self._status: BrokerStatus | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._last_prune = float("-inf")
        self._rows = _Rows(self.node)
        self._minutes = MinuteAggregator()
        self._due: list[MinuteTotals] = []  # minutes that are over and not written yet
        self._thread: threading.Thread | None = None

    # On the broker's loop: these never block and never raise.

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="snakepit-recorder", daemon=True)
        self._thread.start()

    def record(self, at: float, event: BrokerEvent) -> None:
        with self._lock:
            self._pending.append((at, event))
            self._unsent.append((at, event))
            self._trim()
        self._wake.set()

    def observe(self, status: BrokerStatus) -> None:
        with self._lock:
            self._status = status
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Write the remaining events, mark this node's rows as ended, and end the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    # In the recorder's thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.wait()
                self._wake.clear()
                self._flush()
                self._stopping.wait(self._next_pause())
            if self._flush():
                self._due += self._minutes.end()
                self._unit(self._write_last)
        finally:
            connections.close_all()

    def _next_pause(self) -> float:
        if not self._failures:
            return self._pause
        self._wake.set()  # retry even if no event arrives
        return RETRY[min(self._failures, len(RETRY)) - 1]

    def _flush(self) -> bool:
        """Send the signals, and write all pending events; returns False if the database failed."""
        self._send_signals()
        while True:
            with self._lock:
                batch = [self._pending.popleft() for _ in range(min(BATCH, len(self._pending)))]
                status, self._status = self._status, None
                more = bool(self._pending)
            if status is not None:  # also while the database is away: each minute gets its own calls
                self._due = [*self._due, *self._minutes.add(status, time.time())][-BUFFER:]
            if not self._unit(partial(self._write, batch, status)):
                self._give_back(batch, status)
                return False
            if not more:
                return True

    def _send_signals(self) -> None:
        """Send each event once, also while the database is down. A receiver's error must not harm the broker."""
        while self._unsent:
            at, event = self._unsent.popleft()
            for receiver, answer in signals.event.send_robust(type(self), at=at, node=self.node, event=event):
                if isinstance(answer, Exception):
                    logger.error("%s raised on the event %s", receiver, event.kind, exc_info=answer)

    def _give_back(self, batch: Iterable[Pending], status: BrokerStatus | None) -> None:
        with self._lock:
            self._pending.extendleft(reversed(list(batch)))
            self._trim()
            self._status = self._status or status

    def _trim(self) -> None:
        while len(self._pending) > BUFFER:
            self._pending.popleft()
            self.dropped += 1

    def _unit(self, work: Callable[[], None]) -> bool:
        """Run one unit of work in the database; returns False if the database is down."""
        try:
            # Close connections that died since the last unit; otherwise a restart of PostgreSQL is never noticed.
            close_old_connections()
            with transaction.atomic(using=schema.alias()):
                work()
        except (DataError, IntegrityError):
            # The rows are wrong, not the database: the same batch would always fail.
            logger.exception("a batch of events was dropped")
            self._rows.forget()
        except (DatabaseError, InterfaceError) as error:
            self._failures += 1
            self._rows.forget()
            if self._failures == 1:
                logger.warning("the database cannot be written; events are kept in memory: %s", error)
            return False
        except Exception:
            # A bug here must not stop the observed state: drop this batch, keep the thread.
            logger.exception("a batch of events was dropped")
            self._rows.forget()
        finally:
            close_old_connections()
        if self._failures:
            logger.info("the database can be written again; %d events were dropped", self.dropped)
            self._failures = 0
        return True

    def _write(self, batch: list[Pending], status: BrokerStatus | None) -> None:
        Event.objects.bulk_create([_event_row(self.node, at, event) for at, event in batch])
        if status is not None:
            self._rows.write(status)
        self._rows.write_ends(event for _, event in batch)
        self._write_minutes()
        now = time.monotonic()
        if now - self._last_prune >= PRUNE:
            prune()
            self._last_prune = now

    def _write_last(self) -> None:
        self._write_minutes()
        self._rows.close()

    def _write_minutes(self) -> None:
        if not self._due:
            return
        rows = [PoolPeriod(node=self.node, **{**asdict(one), "at": _moment(one.at)}) for one in self._due]
        PoolPeriod.objects.bulk_create(rows, ignore_conflicts=True)
        # What the database did not take is written with the next minute.
        transaction.on_commit(self._due.clear, using=schema.alias())


class _Rows:
    """The Node row and the Worker rows of one node. Unchanged rows are written only every BEAT seconds."""

    def __init__(self, node: str) -> None:
        self.name = node
        self._written: dict[str, dict[str, Any]] = {}
        self._node: dict[str, Any] = {}
        self._present: frozenset[str] | None = None
        self._last_beat = float("-inf")

    def forget(self) -> None:
        """Write all rows at the next turn, because the last write may have been rolled back."""
        self.__init__(self.name)  # type: ignore[misc]

    def write(self, status: BrokerStatus) -> None:
        now, tick = utc_now(), time.monotonic()
        beat = tick - self._last_beat >= BEAT
        columns = _node_columns(status.node)
        workers = {one.id: _worker_columns(one) for one in status.workers}
        changed = {ident: one for ident, one in workers.items() if beat or self._written.get(ident) != one}
        present = frozenset(workers)
        if not (beat or changed or columns != self._node or present != self._present):
            return
        seen = {"stopped": False, "seen_at": Now()}
        node, _ = Node.objects.update_or_create(name=self.name, defaults={**columns, **seen})
        self._upsert(node, changed, now)
        if present != self._present:
            _mark_gone(Worker.objects.filter(node=node).exclude(worker_id__in=present), now)
        self._written, self._node, self._present = workers, columns, present
        self._last_beat = tick if beat else self._last_beat

    def _upsert(self, node: Node, changed: dict[str, dict[str, Any]], now: datetime) -> None:
        if changed:
            rows = [Worker(node=node, worker_id=key, seen_at=now, **columns) for key, columns in changed.items()]
            Worker.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["node", "worker_id"],
                update_fields=[*next(iter(changed.values())), "seen_at", "gone_at"],
                batch_size=200,
            )

    def write_ends(self, events: Iterable[BrokerEvent]) -> None:
        """Write the last count and the reason of workers that ended; what they did last is in no status."""
        ends = {one.worker: one for one in events if one.kind in ENDS}
        if not ends:
            return
        rows = list(Worker.objects.filter(node__name=self.name, worker_id__in=ends))
        for row in rows:
            end = ends[row.worker_id]
            row.served, row.reason = end.data.get("served", row.served), scrub_text(end.reason, 200)
        Worker.objects.bulk_update(rows, ["served", "reason"], batch_size=200)

    def close(self) -> None:
        """Mark the node as stopped and its workers as gone, after a clean shutdown."""
        Node.objects.filter(name=self.name).update(stopped=True, seen_at=Now())
        _mark_gone(Worker.objects.filter(node__name=self.name), utc_now())


def prune() -> None:
    """Delete all but the newest EVENTS_KEPT events and WORKERS_KEPT rows of workers that are gone."""
    settings = conf.current()
    _keep(Event.objects.all(), settings.events_kept)
    _keep(Worker.objects.filter(state="gone"), settings.workers_kept)


def _keep(rows: Any, count: int) -> None:
    oldest_kept = rows.order_by("-pk").values_list("pk", flat=True)[count - 1 : count].first()
    if oldest_kept is not None:
        rows.filter(pk__lt=oldest_kept).delete()


def _mark_gone(rows: Any, now: datetime) -> None:
    rows.exclude(state="gone").update(state="gone", gone_at=now, load=0)


def _event_row(node: str, at: float, event: BrokerEvent) -> Event:
    return Event(
        at=_moment(at) or utc_now(),
        node=scrub_text(node, 200),
        kind=scrub_text(str(event.kind), 50),
        pool=scrub_text(event.pool, 48),
        worker=scrub_text(event.worker, 100),
        reason=scrub_text(event.reason, 100),
        message=scrub_text(event.message, 10_000),
        level=event.level if event.level in LEVELS else "info",
        data=scrub(event.data),
    )


def _node_columns(node: NodeStatus) -> dict[str, Any]:
    return {
        "address": scrub_text(node.address, 500),
        "host": socket_id(node.address) or host_id(),
        "advertised": scrub(list(node.advertised)),
        "labels": scrub(list(node.labels)),
        "pid": node.pid,
        "version": scrub_text(node.version, 50),
        "python": scrub_text(node.python, 200),
        "clock": scrub_text(node.clock, 50),
        "draining": node.draining,
        "problems": scrub(list(node.problems)),
        "started_at": _moment(node.started_at),
    }


def _worker_columns(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "pool": scrub_text(worker.pool, 48),
        "state": worker.state if worker.state in WORKER_STATES else "starting",
        "reason": scrub_text(worker.reason, 200),
        "pid": worker.pid,
        "generation": worker.generation,
        "load": worker.load,
        "capacity": worker.capacity,
        "lost": worker.lost,
        "served": worker.served,
        "memory_mb": worker.measured_mb,
        "gil": scrub_text(worker.gil, 8),
        "gil_culprit": scrub_text(worker.gil_culprit, 200),
        "python": scrub_text(worker.python, 200),
        "parallelism": worker.parallelism,
        "template": scrub_text(worker.template, 100),
        "load_seconds": worker.load_seconds,
        "started_at": _moment(worker.started_at),
    }


def _moment(seconds: float) -> datetime | None:
    """Seconds since the epoch as a moment; 0 means that there is none."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
