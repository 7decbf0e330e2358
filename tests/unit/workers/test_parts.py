"""The small parts: call and context, shared page, boot document, failures, vitals, parallelism, event loops."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import sys
import threading
import warnings

import pytest

from snakepit.workers import CallCancelled, Context, Snooze
from snakepit.workers.call import AssignedCall
from snakepit.workers.process import boot, parent_death, shared_page, vitals
from snakepit.workers.process.boot import Boot
from snakepit.workers.report import LogReport, ProgressReport, clean
from snakepit.workers.runtime import failure, parallelism
from snakepit.workers.runtime.async_commands import OwnLoop, SharedLoop

PATIENCE = 20.0


class Reports(list):
    put = list.append


# AssignedCall and context.


def test_a_call_without_a_budget_has_no_deadline():
    call = AssignedCall(1, "run")
    assert call.remaining == float("inf")
    assert not call.cancelled


def test_the_first_reason_to_end_stays():
    call = AssignedCall(1, "run", budget=60)
    call.cancel("deadline_exceeded")
    call.cancel("cancelled")
    assert (call.cancelled, call.reason) == (True, "deadline_exceeded")


def test_a_passed_deadline_is_a_reason_to_end():
    call = AssignedCall(1, "run", budget=1e-9)
    assert (call.cancelled, call.reason, call.remaining) == (True, "deadline_exceeded", 0.0)
    with pytest.raises(CallCancelled, match="deadline_exceeded"):
        Context(call, Reports()).raise_if_cancelled()


def test_a_wait_ends_when_its_time_is_over_or_the_deadline_passes():
    assert AssignedCall(1, "run").wait(0.001) is False
    assert AssignedCall(1, "run").wait(-1) is False
    assert AssignedCall(1, "run", budget=0.001).wait(PATIENCE) is True


def test_a_cancel_ends_a_wait():
    call, ended = AssignedCall(1, "run"), []
    waiting = threading.Thread(target=lambda: ended.append(call.wait(PATIENCE)))
    waiting.start()
    call.cancel("cancelled")
    waiting.join(PATIENCE)
    assert ended == [True]


def test_credit_ends_a_wait_for_it():
    call, ended = AssignedCall(1, "run", credit=1), []
    waiting = threading.Thread(target=lambda: ended.extend([call.take_credit(9), call.take_credit(9)]))
    waiting.start()
    call.add_credit(1)
    waiting.join(PATIENCE)
    assert ended == [True, True]
    assert not call.try_take_credit(9)
    call.cancel("cancelled")
    assert call.take_credit(9) is False


def test_chunks_wait_while_as_many_bytes_as_agreed_are_on_their_way():
    call = AssignedCall(1, "run", credit=9, credit_bytes=100)
    assert [call.try_take_credit(size) for size in (60, 39, 500, 1)] == [True, True, True, False]
    call.add_credit(2)  # for 60 and 39
    assert not call.try_take_credit(1)
    call.add_credit(1)  # for 500
    assert [call.try_take_credit(size) for size in (100, 1)] == [True, False]


def test_credit_beyond_what_is_on_its_way_counts_as_room_alone():
    call = AssignedCall(1, "run", credit=1, credit_bytes=10)
    assert call.try_take_credit(10)
    call.add_credit(3)
    assert [call.try_take_credit(5) for _ in range(3)] == [True, True, False]


def test_without_a_bound_on_bytes_credit_alone_counts():
    call = AssignedCall(1, "run", credit=3)
    assert [call.try_take_credit(2**30) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("given", "told"), [(0.5, 0.5), (-1, 0.0), (7, 1.0), (float("nan"), 0.0), (True, 1.0)])
def test_progress_is_kept_within_its_range(given, told):
    reports = Reports()
    Context(AssignedCall(1, "run"), reports).progress(given)
    assert reports == [ProgressReport(1, told, "")]


def test_an_ended_call_reports_nothing_more():
    call, reports = AssignedCall(1, "run"), Reports()
    context = Context(call, reports)
    context.log("a")
    call.ended = True
    context.log("b")
    assert reports == [LogReport(1, "a")]


def test_odd_and_long_text_is_made_fit_for_the_wire():
    assert clean("\ud800" + "x" * 20_000).encode()
    assert len(clean("x" * 20_000)) == 8 * 1024


# Black box.


def test_both_ends_of_a_shared_page_see_one_number():
    descriptor = shared_page.make()
    writer, reader = shared_page.SharedPage(descriptor), shared_page.SharedPage(descriptor)
    os.close(descriptor)  # the map stays
    assert reader.last_begun == 0
    writer.begin(2**63)
    assert reader.last_begun == 2**63
    writer.close()
    reader.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only memory files can be sealed")
def test_the_size_of_a_shared_page_is_fixed_so_that_its_reader_cannot_be_ended_by_it():
    descriptor = shared_page.make()
    for size in (0, shared_page.SIZE, 1 << 24):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


def test_text_behind_a_shared_page_is_read_as_written_and_forgotten():
    descriptor = shared_page.make()
    writer, reader = shared_page.SharedPage(descriptor), shared_page.SharedPage(descriptor)
    writer.begin(7)
    reader.forget_text()
    assert os.write(writer.descriptor, b"the stack of one thread") == 23
    assert reader.read_text(0, 1 << 16) == b"the stack of one thread"
    assert (reader.read_text(4, 5), reader.read_text(23, 9), reader.read_text(99, 9)) == (b"stack", b"", b"")
    reader.forget_text()
    assert reader.read_text(0, 1 << 16) == b""
    os.write(writer.descriptor, b"another")
    assert (reader.read_text(0, 1 << 16), reader.last_begun) == (b"another", 7)
    writer.close()
    reader.close()
    os.close(descriptor)


def test_a_shared_page_is_not_inherited_by_accident():
    descriptor = shared_page.make()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


# Boot document.

DOCUMENT = {"worker": "a-1", "pool": "a", "adapter": "x.Y", "parent": 1, "listen_fd": 5, "shared_page_fd": 6}


def test_a_boot_document_has_defaults():
    parsed = boot.parse(json.dumps(DOCUMENT).encode(), Boot)
    assert (parsed.slots, parsed.max_payload, dict(parsed.args)) == (0, 1 << 20, {})
    assert dataclasses.replace(parsed, profile="thread", threads=4).slots == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "is not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "lacks adapter"),
        (json.dumps({**DOCUMENT, "args": []}).encode(), "args: must be an object"),
        (json.dumps({**DOCUMENT, "profile": "thread", "threads": 0}).encode(), "needs at least 1"),
        (json.dumps({**DOCUMENT, "pool": 3}).encode(), "pool: 3 is not a string"),
        (json.dumps({**DOCUMENT, "parent": True}).encode(), "parent: True is not an integer"),
        (json.dumps({**DOCUMENT, "parallelism": True}).encode(), "parallelism: True is not a number"),
        (json.dumps({**DOCUMENT, "parallelism": -1}).encode(), "parallelism: -1 is not a number of at least 0"),
        (json.dumps({**DOCUMENT, "parallelism": float("nan")}).encode(), "parallelism: nan is not a number"),
    ],
)
def test_a_bad_boot_document_is_refused_by_field(text, why):
    with pytest.raises(boot.BootInvalid, match=why):
        boot.parse(text, Boot)


def test_a_closed_descriptor_is_a_bad_boot_document():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(boot.BootInvalid, match="cannot be read"):
        boot.read(reader, Boot)


# Failures.


def caught(raises) -> failure.Failure:
    try:
        raises()
    except BaseException as error:
        return failure.raised(AssignedCall(1, "run"), error)
    raise AssertionError("nothing was raised")


def test_a_huge_traceback_keeps_its_ends():
    def nest(levels: int) -> None:
        try:
            if levels:
                nest(levels - 1)
            raise IndexError("x" * 1500)
        except LookupError as error:
            raise KeyError("x" * 500, levels) from error

    told = caught(lambda: nest(40))
    assert len(told.traceback.encode()) <= 16 * 1024
    assert "[...]" in told.traceback
    assert told.traceback.rstrip().endswith(", 40)")


def test_the_message_of_an_exception_has_its_type():
    assert caught(lambda: {}["region"]).message == "KeyError: 'region'"
    assert len(caught(lambda: int("x" * 5000)).message) <= failure.MAX_MESSAGE


def test_an_error_without_a_message_is_named():
    assert caught(lambda: (_ for _ in ()).throw(StopAsyncIteration)).message == "StopAsyncIteration"


def test_a_group_of_errors_is_reported_whole():
    def fail() -> None:
        raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])

    assert "ValueError: one" in caught(fail).traceback


# VitalsReport.


def test_the_import_that_switches_the_gil_on_is_remembered():
    watch = vitals.GilWatch()
    message = (
        "The global interpreter lock (GIL) has been enabled to load module 'orjson.orjson', which has not declared "
        "that it can run safely without the GIL. To override this behavior ..."
    )
    watch.notice("something else")
    watch.notice(message)
    watch.notice(message.replace("orjson.orjson", "later"))
    assert watch.culprit == "orjson.orjson"


def test_the_watch_passes_every_warning_on(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *args: shown.append(str(args[0])))
    vitals.GilWatch().install()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning of another library", RuntimeWarning, stacklevel=1)
    assert shown == ["a warning of another library"]


def test_blas_threads_are_read_from_the_environment(monkeypatch):
    for name in vitals.BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert vitals.blas_threads() == 0
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    assert vitals.blas_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert vitals.blas_threads() == 2


def test_the_gil_is_on_where_it_cannot_be_off():
    assert vitals.is_gil_enabled() or vitals.is_free_threaded()


# Parallelism.


def test_one_slot_is_not_measured():
    assert parallelism.measure(1, cores=2, gil_enabled=True) == 1.0


def test_a_gil_runs_one_thread_at_a_time():
    if not vitals.is_gil_enabled():
        pytest.skip("the GIL is off here")
    assert 0.2 < parallelism.measure(8, cores=2, gil_enabled=True) <= 1.05


# Lifeline.


def test_another_parent_than_the_expected_one_is_refused():
    parent_death.require_parent(os.getppid())
    with pytest.raises(parent_death.Orphaned, match="not 0: it ended"):
        parent_death.require_parent(0)


# Event loops.


@pytest.fixture(params=[OwnLoop, SharedLoop])
def loop(request):
    made = request.param()
    yield made
    made.close()


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


def test_a_loop_runs_coroutines_and_keeps_its_state_between_them(loop):
    async def current():
        return asyncio.get_running_loop()

    assert loop.run(answer()) == 42
    assert loop.run(current()) is loop.run(current())


def test_closing_a_loop_ends_the_tasks_that_were_left_behind(loop):
    ended = []

    async def linger():
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append(True)

    async def leave_behind():
        leave_behind.task = asyncio.create_task(linger())
        await asyncio.sleep(0)

    loop.run(leave_behind())
    loop.close()
    assert ended == [True]
    loop.close()


def test_a_task_that_calls_exit_does_not_end_the_loop(loop, capsys):
    async def leave():
        sys.exit(3)

    async def outer():
        task = asyncio.create_task(leave())
        with pytest.raises(SystemExit):
            await task
        return "alive"

    assert loop.run(outer()) == "alive"
    assert loop.run(answer()) == 42
    assert "SystemExit: 3" in capsys.readouterr().err


def test_a_plain_command_may_use_asyncio_run_beside_the_own_loop():
    loop = OwnLoop()
    assert loop.run(answer()) == asyncio.run(answer()) == loop.run(answer())
    loop.close()
    gc.collect()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 31 * 86_400 + 1, "5", None, True])
def test_a_snooze_has_a_bounded_number_of_seconds(seconds: object) -> None:
    with pytest.raises(ValueError, match="seconds"):
        Snooze(seconds)  # type: ignore[arg-type]
    assert Snooze(0).seconds == 0.0
