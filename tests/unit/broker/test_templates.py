"""Templates in a broker with fakes for ports: what is prepared, forked from, given up and ended, and what is told."""

from __future__ import annotations

from snakepit.pools.broker.ports import Exit
from tests.fakes import SILENT, WITH_PRELOAD
from tests.unit.broker.test_runner import Stage, pool, scene

FORKED = {"path": WITH_PRELOAD, "preload": "auto"}


@scene(pool(size=3, **FORKED))
async def test_workers_are_forked_from_the_template_and_the_status_names_it(stage: Stage) -> None:
    await stage.ready()
    (template,) = stage.launcher.templates
    row = stage.row().template
    assert (row.state, row.id, row.pid, row.generation) == ("ready", "p-ab12-t1", template.pid, 1)
    assert (row.load_seconds, row.memory_mb) == (1.0, -1.0)
    assert {worker.template for worker in stage.workers()} == {"p-ab12-t1"}
    stage.broker.sweep("beat", 15.0)
    await stage.turn()
    assert stage.row().template.memory_mb == 100.0
    assert stage.row().memory_mb == 250.0, "three workers of 50 MiB, and the template"


@scene(pool(size=1, path=SILENT, preload="on"))
async def test_a_pool_reports_that_it_waits_for_its_template(stage: Stage) -> None:
    await stage.turn()
    assert (stage.row().state, stage.row().reason) == ("starting", "its template loads")
    assert stage.row().template.state == "loading"
    assert stage.processes == []


@scene(pool(path="tests.everything.ThreadInPreload", preload="auto"))
async def test_an_unsafe_template_is_a_warning_and_its_workers_are_spawned(stage: Stage) -> None:
    await stage.ready()
    row = stage.row()
    assert (row.template.state, row.template.reason) == ("refused", "unsafe")
    (warning,) = row.warnings
    assert "'ticker'" in warning
    assert [worker.template for worker in stage.workers()] == [""]
    assert stage.launcher.templates[0].ended == Exit(code=3)


@scene(pool(preload="auto"))
async def test_an_adapter_without_preload_is_no_warning(stage: Stage) -> None:
    await stage.ready()
    assert stage.row().template.reason == "no_preload"
    assert stage.row().warnings == ()


@scene(pool(preload="auto", python="/no/such/python"))
async def test_a_template_that_cannot_be_started_is_refused_with_the_reason(stage: Stage) -> None:
    await stage.turn()
    row = stage.row().template
    assert (row.state, row.reason) == ("refused", "load_failed")
    assert "/no/such/python" in row.why


@scene(pool(size=2, **FORKED))
async def test_a_worker_that_does_not_come_out_is_started_again_from_another_template(stage: Stage) -> None:
    await stage.ready()
    stage.launcher.templates[0].barren = "it ended as it was born"
    stage.processes[0].die(Exit(signal=9))
    await stage.turn()
    await stage.turn()
    assert len(stage.launcher.templates) == 2
    assert stage.launcher.templates[0].ended
    assert stage.row().ready == 2
    assert stage.row().died == 1, "the one that was killed, and not the one that never was"


@scene(pool(size=2, **FORKED))
async def test_a_recycled_pool_ends_its_template_and_makes_another(stage: Stage) -> None:
    await stage.ready()
    stage.broker.recycle("p", "", "ada", "new code")
    for _ in range(10):
        await stage.turn()
    assert [bool(template.ended) for template in stage.launcher.templates] == [True, False]
    assert {worker.template for worker in stage.workers()} == {"p-ab12-t2"}


@scene(pool(size=1, **FORKED))
async def test_a_broker_in_haste_kills_its_templates(stage: Stage) -> None:
    await stage.ready()
    stage.broker.kill_all()
    await stage.turn()
    assert stage.launcher.templates[0].ended == Exit(signal=9)
