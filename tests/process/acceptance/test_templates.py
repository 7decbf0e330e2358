"""Templates, with real processes: who forks whom, what is shared and what is not, and who survives whose death."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.adapters.processes.reaper import carriers
from snakepit.pools.broker.status import BrokerStatus, TemplateStatus
from tests.brokers import PATIENCE, RunningBroker, broker, eventually, wait_gone

PRELOADING = {"adapter": "preloading", "size": 2}


def each(node: RunningBroker, command: str, pool: str = "p") -> dict[int, Any]:
    """What every ready worker of a pool answers, by its pid."""
    pids = {worker.pid for worker in node.status(pool).workers if worker.state == "ready"}
    found: dict[int, Any] = {}

    def all_answered() -> bool:
        for future in [node.client.submit(pool, command) for _ in range(2 * len(pids))]:
            answer = future.result(timeout=PATIENCE)
            found[answer["pid"]] = answer
        return found.keys() >= pids

    eventually(all_answered, f"answers of all of {pids}")
    return found


def template_of(node: RunningBroker, pool: str = "p") -> TemplateStatus:
    return node.pool(pool).template


def test_forked_workers_are_the_brokers_own_children_with_all_that_a_spawned_one_has(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    forked = {**PRELOADING, "args": {"recent": str(recent)}}
    with broker({"p": forked, "s": {**PRELOADING, "preload": "off"}}) as node:
        node.ready("p", 2)
        node.ready("s", 2)
        template = template_of(node)
        assert recent.read_text().split() == ["preload", str(template.pid)], "loaded once, by the template"
        (spawned, *_), mine = each(node, "origin", "s").values(), each(node, "origin")
        for pid, origin in mine.items():
            assert origin["parent"] == node.process.pid
            assert origin["loaded_by"] == template.pid
            assert origin["session"] == origin["group"] == pid
            same = ("directory", "nice", "limits", "threads", "descriptors", "environment", "signals", "mask")
            assert {name: origin[name] for name in same} == {name: spawned[name] for name in same}
        workers = {worker.pid: worker for worker in node.status("p").workers}
        for pid, origin in mine.items():
            name = workers[pid].id
            assert origin["temporary"].endswith(f"/tmp/{name}")
            shown = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            assert shown[-1] == name.encode()
            assert f"SNAKEPIT_WORKER={name}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert workers[pid].template == template.id
        numbers = [origin["random"] for origin in mine.values()]
        assert len(set(numbers)) == len(numbers), "preload() had seeded them alike"
        hashes = {origin["hash"] for origin in mine.values()}
        assert len(hashes) == 1, "the seed of hash() is the template's, as documented"


def test_a_worker_prints_to_its_own_output_and_logs_there(tmp_path: Path) -> None:
    with broker({"p": PRELOADING}) as node:
        node.ready("p", 2)
        for future in [node.client.submit("p", "announce") for _ in range(20)]:
            future.result(timeout=PATIENCE)

        def printed() -> dict[str, tuple[str, ...]] | None:
            found = {worker.id: worker.output for worker in node.status("p").workers}
            return found if sum(map(len, found.values())) >= 40 else None

        told = eventually(printed, "a printed and a logged line for each call")  # read after the call's answer
        for name, lines in told.items():
            assert all(line.endswith(name) for line in lines), "what a sibling printed is here"
        assert sum(map(len, told.values())) == 40, "none twice"
        assert template_of(node).output == ("native code says hello",), "it waited in a buffer at the fork"


def test_killing_the_template_ends_no_worker_and_loses_no_call_and_the_next_start_makes_a_new_one(
    tmp_path: Path,
) -> None:
    with broker({"p": PRELOADING}) as node:
        node.ready("p", 2)
        pids, template = set(node.pids("p")), template_of(node)
        pipes = [tmp_path / "one", tmp_path / "two"]
        for pipe in pipes:
            os.mkfifo(pipe)
        held = [node.client.submit("p", "hold", path=str(pipe)) for pipe in pipes]
        os.kill(template.pid, signal.SIGKILL)
        node.until("template.died")
        assert set(node.pids("p")) == pids
        assert template_of(node).state == "absent"
        for pipe in pipes:
            pipe.open("wb").close()  # opens once its reader is there
        assert [future.result(timeout=PATIENCE) for future in held] == [1, 1]
        victim = pids.pop()
        os.kill(victim, signal.SIGKILL)
        node.until("template.started", 2)
        node.ready("p", 3)
        assert template_of(node).pid not in (0, template.pid)
        assert each(node, "origin").keys() == set(node.pids("p"))


def test_a_killed_template_is_made_again_while_workers_are_being_forked() -> None:
    with broker({"p": {**PRELOADING, "size": 12, "startup_batch": 12}}) as node:
        started = node.until("template.started")
        os.kill(_pid_of(node, started["worker"]), signal.SIGKILL)
        node.ready("p", 12)
        assert not node.told("worker.died"), "a start that the template's death ended counts against no worker"
        assert len(each(node, "origin")) == 12


def _pid_of(node: RunningBroker, template: str) -> int:
    found = template_of(node)
    assert found.id == template
    return int(found.pid)


def test_killing_the_broker_ends_the_template_and_all_workers(tmp_path: Path) -> None:
    with broker({"p": {**PRELOADING, "size": 4}}) as node:
        node.ready("p", 4)
        pids = [*node.pids("p"), template_of(node).pid]
        node.process.kill()
        assert [pid for pid in pids if not wait_gone(pid, PATIENCE)] == []


@pytest.mark.parametrize(
    ("adapter", "reason", "words"),
    [
        ("thread_in_preload", "unsafe", "'ticker'"),
        ("connection_in_preload", "unsafe", "a connection is open"),
        ("loop_in_preload", "unsafe", "an event loop is open"),
        ("raises_in_preload", "load_failed", "RuntimeError: the weights are missing"),
        ("everything", "no_preload", "has no preload()"),
    ],
)
def test_what_cannot_be_forked_is_spawned_and_the_reason_is_everywhere(adapter: str, reason: str, words: str) -> None:
    with broker({"p": {"adapter": adapter, "size": 1}}) as node:
        told = node.until("template.refused")
        assert told["reason"] == reason
        assert words in told["message"]
        if reason == "load_failed":
            node.until("worker.died")  # it fails there, too, and says so in its own name
        else:
            node.ready("p", 1)
            assert node.client.call("p", "echo", value=1) == 1
            assert [worker.template for worker in node.status("p").workers] == [""]
        row = node.pool("p")
        assert (row.template.state, row.template.reason) == ("refused", reason)
        assert words in row.template.why
        assert any(words in warning for warning in row.warnings) == (reason != "no_preload")


def test_a_thread_that_preload_ended_again_does_no_harm() -> None:
    with broker({"p": {"adapter": "brief_thread_in_preload", "size": 1}}) as node:
        node.until("template.started")
        node.ready("p", 1)
        assert template_of(node).state == "ready"
        assert [worker.template for worker in node.status("p").workers] == [template_of(node).id]
        assert node.client.call("p", "echo", value=1) == 1
        assert not node.told("template.refused")


@pytest.mark.parametrize("change", ["definition", "recycle"])
def test_new_code_and_new_definitions_come_by_a_new_template_and_no_call_fails(change: str) -> None:
    with broker({"p": PRELOADING}) as node:
        node.ready("p", 2)
        before, pids = template_of(node), set(node.pids("p"))
        if change == "definition":
            node.define({"p": {**PRELOADING, "env": {"MODEL": "b"}}})
        else:
            node.client.recycle("p", reason="new code")
        node.until("worker.recycled", 2)
        after = template_of(node)
        assert wait_gone(before.pid, PATIENCE), "no worker needs the old one"
        assert after.pid != before.pid
        assert {origin["loaded_by"] for origin in each(node, "origin").values()} == {after.pid}
        assert not pids & set(node.pids("p"))
        assert not node.told("worker.died")


def test_seeds_of_numpy_differ_between_workers() -> None:
    pytest.importorskip("numpy")
    with broker({"p": {"adapter": "numpy_in_preload", "size": 3}}) as node:
        node.ready("p", 3)
        numbers = [origin["number"] for origin in each(node, "draw").values()]
        assert len(set(numbers)) == 3


def test_the_example_of_the_documentation_works() -> None:
    with broker({"p": {"adapter": "rivers", "size": 2}}) as node:
        node.ready("p", 2)
        assert template_of(node).state == "ready"
        assert node.client.call("p", "length", river="Rhine") == 1233
        drawn = [node.client.call("p", "draw") for _ in range(8)]
        assert len({one["number"] for one in drawn}) == 8
        assert {one["answer"] for one in drawn} == {1}


def test_the_pools_memory_is_the_sum_over_workers_and_template() -> None:
    with broker({"p": PRELOADING}, interval=0.3) as node:
        node.ready("p", 2)

        def parts() -> list[float]:
            found.append(node.status("p"))
            return [worker.memory_mb for worker in found[-1].workers] + [found[-1].pools[0].template.memory_mb]

        found: list[BrokerStatus] = []
        eventually(lambda: min(parts()) > 0)  # all are measured
        measured = parts()
        assert len(measured) == 3
        assert found[-1].pools[0].memory_mb == pytest.approx(sum(measured), abs=0.5)


@pytest.mark.slow
def test_a_thousand_killed_workers_leave_no_process() -> None:
    pool = {**PRELOADING, "size": 10, "startup_batch": 10, "death_budget": 100_000}
    with broker({"p": pool}) as node:
        instance = json.loads((node.runtime / "instance").read_text())["instance"]
        for rounds in range(1, 101):
            node.ready("p", 10 * rounds)
            for pid in node.pids("p"):
                os.kill(pid, signal.SIGKILL)
        node.ready("p", 1010)
        assert len(node.told("worker.died")) == 1000
        assert template_of(node).deaths == 0
        workers = set(node.pids("p"))
        eventually(lambda: len([pid for pid in carriers(instance) if pid not in workers]) == 1)
        eventually(lambda: _zombies(node.process.pid) == [])


def _zombies(parent: int) -> list[int]:
    children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    found = []
    for pid in children:
        with suppress(OSError):  # reaped meanwhile
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(pid)
    return found


def test_arrow_starts_no_thread_that_would_refuse_the_template() -> None:
    """scikit-learn imports pandas, and that pyarrow, where they are installed."""
    with broker({"digits": {"adapter": "digits", "size": 1}}) as node:
        node.ready("digits")
        found = node.pool("digits")
        assert (found.template.state, found.warnings) == ("ready", ())
