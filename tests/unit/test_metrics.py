"""The broker's numbers: counted once, labelled rightly, and each of them documented."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from snakepit.pools.adapters.network import client_certificate
from snakepit.pools.adapters.records.metrics import Metrics
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.jobs import gauges
from tests.fakes import ListRecorder
from tests.statuses import command_growth, growth, pool, status, template, usage, worker

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def snapshot(**changes: Any) -> BrokerStatus:
    commands = (command_growth("leak", 1000.0, 1.0), command_growth("echo", None, None))
    found = pool(
        "p",
        size=2,
        slots=2,
        free=1,
        waiting=3,
        prefetched=1,
        buffer_bytes=8000,
        oldest_wait=1.5,
        load_seconds=2.0,
        memory_mb=110.0,
        template=template(memory_mb=100.0, load_seconds=1.5),
        usage=usage(busy=0.75),
        growth=growth(500.0, commands=commands),
    )
    workers = [
        worker("p-1", memory_mb=10.0, gil="off", parallelism=1.9),
        worker("p-2", state="starting", gil=""),
    ]
    of_node: dict[str, Any] = {"loop_lag": 0.25, "sessions": 4, "clock": "lifecycle clock missing", "draining": True}
    refused = {"certificate_expired": 2}
    of_node["listeners"] = (
        ListenerStatus("0.0.0.0:7443", "mutual", 2e9, "", 3, 9, refused, 1.9e9, 1.8e9, 1.7e9, 1.6e9, 1.5e9),
    )
    return status([replace(found, **changes)], workers, **of_node)


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_the_network_listener_has_its_figures() -> None:
    metrics = Metrics(ListRecorder())
    one = ListenerStatus(
        "0.0.0.0:7443", "mutual", 2e9, "", 3, 9, {"certificate_expired": 2}, 1.9e9, 1.8e9, 1.7e9, 1.6e9, 1.5e9
    )
    metrics.expose(lambda: status([], [], listeners=(one, replace(one, address="[::1]:7443"))))
    found = scraped(metrics)
    assert found["snakepit_network_connections", ()] == 3
    assert found["snakepit_network_connections_accepted_total", ()] == 9
    assert found["snakepit_network_connections_refused_total", (("reason", "certificate_expired"),)] == 2
    assert found["snakepit_certificate_expires_timestamp_seconds", (("address", "[::1]:7443"),)] == 2e9
    assert found["snakepit_revocation_list_expires_timestamp_seconds", ()] == 1.9e9
    assert found["snakepit_revocation_list_issued_timestamp_seconds", ()] == 1.8e9
    assert found["snakepit_certificate_issued_timestamp_seconds", (("address", "[::1]:7443"),)] == 1.7e9
    assert found["snakepit_client_authority_expires_timestamp_seconds", ()] == 1.6e9
    assert found["snakepit_client_authority_issued_timestamp_seconds", ()] == 1.5e9


def test_calls_are_counted_by_their_end_and_timed() -> None:
    metrics = Metrics(ListRecorder())
    metrics.executed("p", "run", "ok", 0.2, 0.7)
    metrics.executed("p", "run", "queue_full", 0.0, 0.0)
    metrics.full("p", 1)
    metrics.delivered("p", 1)
    metrics.delivered("p", 1)
    found = scraped(metrics)
    assert found["snakepit_calls_total", (("code", "ok"), ("command", "run"), ("pool", "p"))] == 1
    assert found["snakepit_calls_total", (("code", "queue_full"), ("command", "run"), ("pool", "p"))] == 1
    assert found["snakepit_call_duration_seconds_count", (("command", "run"), ("pool", "p"))] == 1
    assert found["snakepit_call_duration_seconds_sum", (("command", "run"), ("pool", "p"))] == 0.7
    assert found["snakepit_queue_wait_seconds_sum", (("pool", "p"),)] == 0.2
    assert found["snakepit_pool_capacity_reached_total", (("pool", "p"),)] == 1
    assert found["snakepit_results_delivered_total", (("pool", "p"),)] == 2


def test_calls_that_ended_well_together_are_counted_as_if_they_had_ended_one_by_one() -> None:
    together, alone = Metrics(ListRecorder()), Metrics(ListRecorder())
    waits, runs = (0.001, 0.2, 0.0), (0.5, 0.00005, 30.0)
    together.succeeded("p", "run", waits, runs)
    for wait, run in zip(waits, runs, strict=True):
        alone.executed("p", "run", "ok", wait, run)
    assert scraped(together) == pytest.approx(scraped(alone))


def test_events_are_counted_by_reason_and_passed_on() -> None:
    recorder = ListRecorder()
    metrics = Metrics(recorder)
    for reason in ("ttl", "ttl", "max_requests"):
        metrics.record(1.0, Event(Kind.WORKER_RECYCLED, "p", "p-1", reason))
    metrics.record(1.0, Event(Kind.WORKER_STARTED, "p", "p-2", data={"seconds": 2.5}))
    metrics.record(1.0, Event(Kind.NODE_STARTED))
    found = scraped(metrics)
    assert found["snakepit_recycles_total", (("pool", "p"), ("reason", "ttl"))] == 2
    assert found["snakepit_recycles_total", (("pool", "p"), ("reason", "max_requests"))] == 1
    assert found["snakepit_worker_starts_total", (("pool", "p"),)] == 1
    assert found["snakepit_worker_start_seconds_sum", (("pool", "p"),)] == 2.5
    assert len(recorder.events) == 5


def test_gauges_are_those_of_the_moment_of_the_scrape() -> None:
    metrics = Metrics(ListRecorder())
    moments = [snapshot(), snapshot(waiting=7)]
    metrics.expose(lambda: moments.pop(0))
    found = scraped(metrics)
    assert found["snakepit_pool_workers", (("pool", "p"), ("state", "ready"))] == 1
    assert found["snakepit_pool_workers", (("pool", "p"), ("state", "draining"))] == 0
    assert found["snakepit_worker_memory_bytes", (("pool", "p"), ("worker", "p-1"))] == 10 * 2**20
    assert ("snakepit_worker_memory_bytes", (("pool", "p"), ("worker", "p-2"))) not in found
    assert found["snakepit_worker_parallelism", (("pool", "p"), ("worker", "p-1"))] == 1.9
    assert found["snakepit_worker_gil", (("pool", "p"), ("worker", "p-1"))] == 0
    assert ("snakepit_worker_gil", (("pool", "p"), ("worker", "p-2"))) not in found
    assert found["snakepit_lifecycle_clock_missing", ()] == 1
    assert found["snakepit_node_draining", ()] == 1
    assert found["snakepit_pool_busy_share", (("pool", "p"),)] == 0.75
    assert ("snakepit_pool_cpu_seconds_per_call", (("pool", "p"),)) not in found
    assert found["snakepit_pool_growth_bytes_per_call", (("pool", "p"),)] == 2**19
    assert found["snakepit_command_growth_bytes_per_call", (("command", "leak"), ("pool", "p"))] == 2**20
    assert ("snakepit_command_growth_bytes_per_call", (("command", "echo"), ("pool", "p"))) not in found
    assert scraped(metrics)["snakepit_pool_waiting", (("pool", "p"),)] == 7


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    metrics = Metrics(ListRecorder())
    metrics.expose(snapshot)
    exposed = set()
    for family in metrics.registry.collect():
        exposed.add(family.name + ("_total" if family.type == "counter" else ""))
    documented = set(re.findall(r"^\| `(snakepit_\w+)` \|", DOCS.read_text(), re.MULTILINE))
    assert documented == exposed | gauges.NAMES | client_certificate.NAMES
