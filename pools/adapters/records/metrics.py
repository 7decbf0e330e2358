"""Prometheus metrics of a broker: counters from calls and events, gauges from its status at each scrape.

Every call passes through the broker, so it keeps the numbers; web and Celery processes pass them on.
docs/reference/metrics.md explains every name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from snakepit.pools.broker.caller import QuotaStatus
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.ports import Recorder
from snakepit.pools.broker.quotas import COUNTED
from snakepit.pools.broker.status import CLOCK_MISSING, BrokerStatus, PoolStatus, WorkerStatus

# From a tenth of a millisecond (an echo) to ten minutes (a training run).
BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600)
BOUNDS = (*(str(float(bound)) for bound in BUCKETS), "+Inf")
STATES = ("starting", "ready", "draining", "stopping")
MIB = 2**20  # bytes


class Metrics:
    """A Meter, and a Recorder that forwards what it counts."""

    def __init__(self, then: Recorder) -> None:
        self._then = then
        self.registry = CollectorRegistry()
        self._calls = CallCounts()
        self.registry.register(self._calls)
        self._full = self._counter("pool_capacity_reached", "How often the last free slot was taken.", "pool")
        of = ("pool", "of")
        self._buffers = self._counter("buffers", "Results, chunks and arguments with parts in shared memory.", *of)
        self._buffer_bytes = self._counter("buffer_bytes", "Bytes of these parts in shared memory.", *of)
        self._started = self._histogram("worker_start_seconds", "From a worker's start until it is ready.", "pool")
        by_reason = ("pool", "reason")
        counter = self._event_counter
        self._events = {
            Kind.WORKER_STARTED: counter("worker_starts", "Workers that became ready.", "pool"),
            Kind.WORKER_RECYCLED: counter("recycles", "Workers that were replaced on purpose.", *by_reason),
            Kind.WORKER_DIED: counter("worker_deaths", "Workers whose process ended unexpectedly.", *by_reason),
            Kind.WORKER_KILLED: counter("worker_kills", "Workers that the broker ended.", *by_reason),
            Kind.WORKER_UNHEALTHY: counter("health_check_failures", "Workers that failed the check.", *by_reason),
            Kind.POOL_SATURATED: counter("pool_saturated", "How often a queue was full.", "pool"),
            Kind.POOL_FAILED: counter("pool_failures", "How often a pool was marked failed.", *by_reason),
            Kind.COMMAND_SUSPENDED: counter("command_suspensions", "Commands that ended too many workers.", "pool"),
            Kind.THREAD_RACE: counter("thread_races", "State that two threads wrote without a lock.", "pool"),
            Kind.GIL_ENABLED: counter("gil_enabled", "Workers whose GIL was switched on.", *by_reason),
            Kind.TEMPLATE_STARTED: counter("template_starts", "Templates that were ready.", "pool"),
            Kind.TEMPLATE_DIED: counter("template_deaths", "Templates that died.", "pool"),
            Kind.TEMPLATE_REFUSED: counter("template_refusals", "Refused templates.", *by_reason),
            Kind.SLOT_LOST: counter("slots_lost", "Calls in threads that did not stop.", "pool"),
            Kind.CALL_RETRIED: counter("calls_retried", "Calls that ran again after a worker's death.", "pool"),
        }

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"snakepit_{name}", help, labels, registry=self.registry)

    def _event_counter(self, name: str, help: str, *labels: str) -> tuple[Counter, tuple[str, ...]]:
        """Return a counter, and the fields of an event that label it."""
        return self._counter(name, help, *labels), labels

    def _histogram(self, name: str, help: str, *labels: str) -> Histogram:
        return Histogram(f"snakepit_{name}", help, labels, registry=self.registry, buckets=BUCKETS)

    # Meter

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        self._calls.note(pool, command, code, queued, ran)

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        self._calls.succeeded(pool, command, queued, ran)

    def delivered(self, pool: str, results: int) -> None:
        self._calls.delivered(pool, results)

    def buffered(self, pool: str, of: str, size: int) -> None:
        self._buffers.labels(pool, of).inc()
        self._buffer_bytes.labels(pool, of).inc(size)

    def full(self, pool: str, times: int) -> None:
        self._full.labels(pool).inc(times)

    # Recorder

    def start(self) -> None:
        self._then.start()

    def record(self, at: float, event: Event) -> None:
        if event.kind in self._events:
            counter, fields = self._events[event.kind]
            counter.labels(*(getattr(event, field) for field in fields)).inc()
        if event.kind is Kind.WORKER_STARTED and "seconds" in event.data:
            self._started.labels(event.pool).observe(event.data["seconds"])
        self._then.record(at, event)

    def observe(self, status: BrokerStatus) -> None:
        self._then.observe(status)

    def stop(self) -> None:
        self._then.stop()

    # Scrapes

    def expose(self, snapshot: Callable[[], BrokerStatus]) -> None:
        """Add the gauges, which are computed from a fresh status at each scrape."""
        self.registry.register(Gauges(snapshot))

    def text(self) -> str:
        return generate_latest(self.registry).decode()


class DurationBuckets:
    """A histogram as plain numbers."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def extend(self, durations: Sequence[float]) -> None:
        buckets = self.buckets
        for seconds in durations:
            buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += sum(durations)

    def sums(self) -> list[tuple[str, float]]:
        return list(zip(BOUNDS, accumulate(self.buckets), strict=True))


class CallCounts:
    """Counts of calls as plain numbers: looking up labels at each call would cost more than all other statistics."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str, str], int] = {}
        self._ran: dict[tuple[str, str], DurationBuckets] = {}
        self._queued: dict[tuple[str], DurationBuckets] = {}
        self._delivered: dict[str, int] = {}

    def delivered(self, pool: str, results: int) -> None:
        self._delivered[pool] = self._delivered.get(pool, 0) + results

    def note(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        if code == "ok":
            self.succeeded(pool, command, (queued,), (ran,))
            return
        self._count((pool, command, code), 1)
        if ran:
            self._time(pool, command, (queued,), (ran,))

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        self._count((pool, command, "ok"), len(ran))
        self._time(pool, command, queued, ran)

    def _count(self, key: tuple[str, str, str], calls: int) -> None:
        self._ended[key] = self._ended.get(key, 0) + calls

    def _time(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        times = self._ran.get((pool, command))
        if times is None:
            times = self._ran[pool, command] = DurationBuckets()
        times.extend(ran)
        times = self._queued.get((pool,))
        if times is None:
            times = self._queued[pool,] = DurationBuckets()
        times.extend(queued)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("snakepit_calls", "Calls that were answered.", labels=("pool", "command", "code"))
        for key, count in self._ended.items():
            ended.add_metric(key, count)
        yield ended
        delivered = CounterMetricFamily(
            "snakepit_results_delivered", "Results that a worker sent directly to the client.", labels=("pool",)
        )
        for pool, count in self._delivered.items():
            delivered.add_metric((pool,), count)
        yield delivered
        ran = HistogramMetricFamily(
            "snakepit_call_duration_seconds", "Run time of commands.", labels=("pool", "command")
        )
        for names, times in self._ran.items():
            ran.add_metric(names, times.sums(), times.seconds)
        yield ran
        queued = HistogramMetricFamily("snakepit_queue_wait_seconds", "Wait of calls for a slot.", labels=("pool",))
        for name, times in self._queued.items():
            queued.add_metric(name, times.sums(), times.seconds)
        yield queued


class Gauges:
    """A Prometheus collector of the broker's present state."""

    def __init__(self, snapshot: Callable[[], BrokerStatus]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        return []  # without this, registering would ask for values before there are any

    def collect(self) -> Iterator[Metric]:
        status = self._snapshot()
        pools, workers, node = status.pools, status.workers, status.node
        counts = GaugeMetricFamily("snakepit_pool_workers", "Workers by state.", labels=("pool", "state"))
        for pool in pools:
            for state in STATES:
                there = sum(worker.pool == pool.name and worker.state == state for worker in workers)
                counts.add_metric((pool.name, state), there)
        yield counts
        yield from (_by_pool(pools, *gauge) for gauge in POOL_GAUGES)
        memory = GaugeMetricFamily("snakepit_worker_memory_bytes", "PSS with descendants.", labels=("pool", "worker"))
        for worker in workers:
            if worker.memory_mb >= 0:
                memory.add_metric((worker.pool, worker.id), worker.memory_mb * MIB)
        yield memory
        yield from _of_templates(pools)
        yield from _of_threads(workers)
        yield from growth(pools)
        yield from usage(pools)
        yield from batches(pools)
        yield from _of_callers(status.quotas)
        yield GaugeMetricFamily("snakepit_broker_loop_lag_seconds", "Delay of the event loop.", node.loop_lag)
        yield GaugeMetricFamily("snakepit_broker_sessions", "Clients with an open session.", node.sessions)
        yield GaugeMetricFamily("snakepit_node_draining", "1: the node takes no new calls.", float(node.draining))
        yield from _of_network(node.listeners)
        missing = node.clock == CLOCK_MISSING
        yield GaugeMetricFamily("snakepit_lifecycle_clock_missing", "1: no sweeps come from beat.", float(missing))


def _of_network(listeners: Sequence[ListenerStatus]) -> Iterator[Metric]:
    """Of the network listener, where there is one. Its connections are those of all addresses together."""
    if not listeners:
        return
    first = listeners[0]
    yield GaugeMetricFamily("snakepit_network_connections", "Open network connections.", first.connections)
    yield CounterMetricFamily("snakepit_network_connections_accepted", "Accepted connections.", first.accepted)
    refused = CounterMetricFamily(
        "snakepit_network_connections_refused", "Refused connections and handshakes.", labels=("reason",)
    )
    for reason, times in first.refused.items():
        refused.add_metric((reason,), times)
    yield refused
    expiry = GaugeMetricFamily(
        "snakepit_certificate_expires_timestamp_seconds", "End of the broker's certificate.", labels=("address",)
    )
    issued = GaugeMetricFamily(
        "snakepit_certificate_issued_timestamp_seconds", "Begin of the broker's certificate.", labels=("address",)
    )
    for one in listeners:
        if one.certificate_expires:
            expiry.add_metric((one.address,), one.certificate_expires)
            issued.add_metric((one.address,), one.certificate_issued)
    yield from (expiry, issued)
    if first.authorities_expire:
        name = "snakepit_client_authority_expires_timestamp_seconds"
        yield GaugeMetricFamily(name, "Next end of a certificate in client_ca.", first.authorities_expire)
        name = "snakepit_client_authority_issued_timestamp_seconds"
        yield GaugeMetricFamily(name, "Begin of that certificate.", first.authorities_issued)
    if first.lists_expire:
        name = "snakepit_revocation_list_expires_timestamp_seconds"
        yield GaugeMetricFamily(name, "End of the revocation list that expires first.", first.lists_expire)
        name = "snakepit_revocation_list_issued_timestamp_seconds"
        yield GaugeMetricFamily(name, "When that revocation list was written.", first.lists_issued)


def _of_callers(quotas: Iterable[QuotaStatus]) -> Iterator[Metric]:
    labels = ("of", "name")
    running = GaugeMetricFamily("snakepit_caller_calls_in_flight", "Calls of an API key or user.", labels=labels)
    calls = CounterMetricFamily("snakepit_caller_calls", "Calls of an API key or user.", labels=(*labels, "outcome"))
    refused = CounterMetricFamily("snakepit_caller_refusals", "Calls refused, by limit.", labels=(*labels, "limit"))
    for quota in quotas:
        for limit, count in zip(COUNTED, (quota.over_rate, quota.over_in_flight, quota.over_waiting), strict=True):
            refused.add_metric((quota.of, quota.name, limit), count)
        running.add_metric((quota.of, quota.name), quota.in_flight)
        calls.add_metric((quota.of, quota.name, "accepted"), quota.accepted)
        calls.add_metric((quota.of, quota.name, "limited"), quota.refused)
    yield from (running, calls, refused)


def _of_templates(pools: Iterable[PoolStatus]) -> Iterator[Metric]:
    ready = GaugeMetricFamily("snakepit_template_ready", "1: workers are forked from a template.", labels=("pool",))
    used = GaugeMetricFamily("snakepit_template_memory_bytes", "PSS of the template.", labels=("pool",))
    took = GaugeMetricFamily("snakepit_template_load_seconds", "Time to load the adapter.", labels=("pool",))
    total = GaugeMetricFamily("snakepit_pool_memory_bytes", "PSS of all workers and the template.", labels=("pool",))
    for pool in pools:
        name, template = (pool.name,), pool.template
        total.add_metric(name, pool.memory_mb * MIB)
        if template.state != "off":
            ready.add_metric(name, template.state == "ready")
        if template.state == "ready":
            took.add_metric(name, template.load_seconds)
            if template.memory_mb >= 0:
                used.add_metric(name, template.memory_mb * MIB)
    yield from (ready, used, took, total)


def _of_threads(workers: Iterable[WorkerStatus]) -> Iterator[Metric]:
    labels = ("pool", "worker")
    factor = GaugeMetricFamily("snakepit_worker_parallelism", "Slots that run together, measured.", labels=labels)
    gil = GaugeMetricFamily("snakepit_worker_gil", "1: the GIL is on.", labels=labels)
    for worker in workers:
        if worker.parallelism:
            factor.add_metric((worker.pool, worker.id), worker.parallelism)
        if worker.gil:
            gil.add_metric((worker.pool, worker.id), float(worker.gil == "on"))
    yield factor
    yield gil


def growth(pools: Iterable[PoolStatus]) -> Iterator[Metric]:
    """Only measured values: an absent metric is better than a wrong one."""
    help = "Memory growth of a worker by one call."
    whole = GaugeMetricFamily("snakepit_pool_growth_bytes_per_call", help, labels=("pool",))
    each = GaugeMetricFamily("snakepit_command_growth_bytes_per_call", help, labels=("pool", "command"))
    for pool in pools:
        if (mb := pool.growth.mb_per_1000_calls) is not None:
            whole.add_metric((pool.name,), mb / 1000 * MIB)
        for command in pool.growth.commands:
            if (mb := command.mb_per_1000_calls) is not None:
                each.add_metric((pool.name, command.command), mb / 1000 * MIB)
    yield whole
    yield each


def usage(pools: Iterable[PoolStatus]) -> Iterator[Metric]:
    """Of the last ten minutes, and only measured values."""
    busy = GaugeMetricFamily("snakepit_pool_busy_share", "Share of the slot time that was taken.", labels=("pool",))
    cpu = GaugeMetricFamily("snakepit_pool_cpu_seconds_per_call", "CPU time of a call.", labels=("pool",))
    for pool in pools:
        for family, value in ((busy, pool.usage.busy), (cpu, pool.usage.cpu_per_call)):
            if value is not None:
                family.add_metric((pool.name,), value)
    yield busy
    yield cpu


def batches(pools: Iterable[PoolStatus]) -> Iterator[Metric]:
    """Of commands that run in batches. The gain only where it is measured."""
    labels = ("pool", "command")
    formed = CounterMetricFamily("snakepit_command_batches", "Batches of two calls or more.", labels=labels)
    calls = CounterMetricFamily("snakepit_command_batched_calls", "Calls that ran in batches.", labels=labels)
    size = GaugeMetricFamily("snakepit_command_batch_size", "Calls of a batch, mean of the newest.", labels=labels)
    help = "Calls a second of a slot in batches, divided by those of calls that run alone."
    gain = GaugeMetricFamily("snakepit_command_batch_gain", help, labels=labels)
    for pool in pools:
        for one in pool.batches:
            name = (pool.name, one.command)
            formed.add_metric(name, one.batches)
            calls.add_metric(name, one.calls)
            size.add_metric(name, one.size)
            if one.gain is not None:
                gain.add_metric(name, one.gain)
    yield from (formed, calls, size, gain)


PoolGauge = Callable[[PoolStatus], float]
POOL_GAUGES: tuple[tuple[str, str, PoolGauge], ...] = (
    ("size", "Desired number of workers.", lambda pool: pool.size),
    ("slots", "Slots of ready workers.", lambda pool: pool.slots),
    ("slots_free", "Slots that would take a call now.", lambda pool: pool.free),
    ("slots_lost_now", "Slots held by calls that did not stop.", lambda pool: pool.lost),
    ("waiting", "Calls that wait.", lambda pool: pool.waiting),
    (
        "prefetched",
        "Of those, calls that were sent to a busy worker before a slot was free.",
        lambda pool: pool.prefetched,
    ),
    ("buffer_bytes", "Arguments in shared memory, of calls that wait or run.", lambda pool: pool.buffer_bytes),
    ("oldest_wait_seconds", "Wait of the oldest waiting call.", lambda pool: pool.oldest_wait),
    ("degraded", "1: workers are missing, or cannot be replaced.", lambda pool: float(pool.state == "degraded")),
    ("load_seconds", "Expected time of a start.", lambda pool: pool.load_seconds),
)


def _by_pool(pools: Iterable[PoolStatus], name: str, help: str, value: PoolGauge) -> Metric:
    gauge = GaugeMetricFamily(f"snakepit_pool_{name}", help, labels=("pool",))
    for pool in pools:
        gauge.add_metric((pool.name,), value(pool))
    return gauge
