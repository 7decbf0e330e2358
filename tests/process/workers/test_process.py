"""Real workers in real processes, over their socket."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from snakepit.workers.process import vitals
from snakepit.workers.transport import SWITCHES
from snakepit.workers.wire import worker_pb2 as pb
from tests.process.workers import harness
from tests.process.workers.harness import linked, started, value_of, worker

# What a worker is.


def test_the_hello_describes_the_worker(echo, profile):
    async def look(link):
        return link.hello, link.process.pid

    hello, pid = echo(look)
    assert hello.protocol == 1
    assert hello.pid == pid
    assert hello.python == ".".join(map(str, sys.version_info[:3]))
    assert hello.implementation == "CPython"
    assert hello.executable == sys.executable
    assert hello.free_threaded == vitals.is_free_threaded()
    assert hello.load_seconds > 0
    assert hello.slots == (1 if profile == "process" else 2)
    assert hello.blas_threads == 1


def test_a_free_threaded_worker_keeps_its_gil_off(echo):
    async def look(link):
        return link.hello, await link.probe()

    hello, probed = echo(look)
    assert hello.gil_enabled == probed.gil_enabled == (not vitals.is_free_threaded())
    assert hello.gil_culprit == probed.gil_culprit == ""


def test_the_thread_profile_measures_its_parallelism(echo, profile):
    async def look(link):
        return link.hello.parallelism

    factor = echo(look)
    if profile == "process":
        assert factor == 0
    elif vitals.is_free_threaded():
        assert factor > 0.3  # the machine may be busy; what it can be is shown by `make bench`
    else:
        assert 0.3 < factor <= 1.05


def test_without_a_gil_a_worker_reports_the_parallelism_that_it_was_given():
    async def look():
        async with worker(profile="thread", threads=2, parallelism=7.5) as link:
            factor = link.hello.parallelism
            await link.drain()
            assert await link.goodbye(link.process) == 0
            return factor

    factor = asyncio.run(look())
    assert factor == 7.5 if vitals.is_free_threaded() else 0 < factor <= 1.05


def test_the_hello_describes_the_commands_with_their_schemas(echo):
    async def look(link):
        return {command.name: command for command in link.hello.commands}

    commands = echo(look)
    assert sorted(commands) == ["add", "athread", "echo", "reverse", "thread", "weigh"]
    command = commands["echo"]
    assert (command.idempotent, command.timeout, command.streams) == (True, 5, False)
    assert command.summary == "Give the value back."
    assert command.description == "Give the value back.\n\nWhatever JSON holds."
    assert json.loads(commands["add"].schema)["required"] == ["a"]


def test_the_hello_marks_the_commands_that_stream(busy):
    async def look(link):
        return {command.name for command in link.hello.commands if command.streams}

    assert busy(look) == {"stream", "astream", "blobs"}


def test_the_pools_args_reach_preload_and_the_instance():
    async def look():
        async with worker("configured", args={"model": "iris", "size": 3}) as link:
            return await link.result("look")

    assert asyncio.run(look()) == ["iris", "iris", 3]


def test_a_probe_is_answered_with_vitals_while_a_command_runs(busy):
    async def probe(link):
        sequence = await link.assign("hold")
        await link.next("log")
        answer = await link.probe(nonce=99)
        await link.cancel(sequence)
        await link.next("failure")
        return answer

    answer = busy(probe)
    assert (answer.nonce, answer.load) == (99, 1)


# Calls.


def test_a_command_answers_with_its_result(echo):
    value = {"text": "ä ☃", "numbers": [1, 2.5, None, True]}
    assert echo(lambda link: link.result("echo", {"value": value})) == value


def test_bytes_travel_as_bytes_both_ways(echo):
    data = bytes(range(256))
    assert echo(lambda link: link.result("reverse", attachments={"data": data})) == data[::-1]


def test_bytes_may_come_as_base64(echo):
    assert echo(lambda link: link.result("weigh", {"data": "AAEC"})) == 3


def test_a_result_has_the_run_time_of_its_command(echo):
    async def call(link):
        await link.assign("echo", {"value": 1})
        return (await link.next("result")).result

    assert 0 < echo(call).seconds < harness.PATIENCE


def test_many_calls_in_one_message_are_all_answered(echo):
    async def call(link):
        orders = [link.call("echo", {"value": number}) for number in range(200)]
        await link.order(*orders)
        answers = [(await link.next("result")).result for _ in orders]
        return sorted(value_of(answer.value) for answer in answers)

    assert echo(call) == list(range(200))


def test_calls_that_come_in_one_order_are_calls_of_their_own(echo):
    async def call(link):
        order = link.together("echo", [{"value": number} for number in range(100)])
        first = order.assigns.first
        await link.order(order, link.call("nothing_of_the_kind"), link.together("echo", [{"value": "last"}]))
        answers = [await link.next("result", "failure") for _ in range(102)]
        told = {
            answer.result.sequence: value_of(answer.result.value) for answer in answers if answer.HasField("result")
        }
        return first, told, [answer.failure.sequence for answer in answers if answer.HasField("failure")]

    first, told, failed = echo(call)
    assert told == {**{first + number: number for number in range(100)}, first + 101: "last"}
    assert failed == [first + 100]


def test_one_of_the_calls_that_came_in_one_order_is_cancelled_alone():
    async def cancel():
        async with worker("busy") as link:
            order = link.together("hold", [{}, {}, {}])
            await link.order(order, *(pb.Order(cancel=pb.Cancel(sequence=n, reason="cancelled")) for n in (2, 1, 3)))
            return [(await link.next("failure")).failure.sequence for _ in range(3)]

    assert sorted(asyncio.run(cancel())) == [1, 2, 3]


def test_an_order_whose_lists_do_not_fit_ends_the_link():
    async def order():
        with started("busy") as process:
            async with linked(process) as link:
                await link.order(pb.Order(assigns=pb.Assigns(first=1, command="hold", calls=["a", "b"])))
                assert await asyncio.to_thread(process.exit_code) != 0
            return process.output()

    assert b"the link is closed" in asyncio.run(order())


def test_the_process_profile_runs_commands_on_the_main_thread(echo, profile):
    ran = echo(lambda link: link.result("thread"))
    assert ran["main"] == (profile == "process")
    assert ran["name"].startswith("slot-") == (profile == "thread")


def test_async_commands_share_one_event_loop(echo, profile):
    name = "MainThread" if profile == "process" else "async"
    assert echo(lambda link: link.result("athread")) == name
    assert echo(lambda link: link.result("athread")) == name


def test_two_calls_of_a_thread_profile_worker_run_at_once():
    async def meet():
        async with worker("busy", profile="thread", threads=2) as link:
            await link.order(link.call("meet"), link.call("meet"))
            return sorted([value_of((await link.next("result")).result.value) for _ in range(2)])

    assert asyncio.run(meet()) == [0, 1]


def test_a_worker_never_runs_more_calls_than_it_has_slots():
    async def count():
        async with worker("busy", profile="thread", threads=2, args={"parties": 2}) as link:
            await link.order(*[link.call("count") for _ in range(8)])
            return max([value_of((await link.next("result")).result.value) for _ in range(8)])

    assert asyncio.run(count()) == 2


# Streams.


@pytest.mark.parametrize("command", ["stream", "astream"])
def test_no_more_chunks_than_credit_are_sent(busy, command):
    async def stream(link):
        sequence = await link.assign(command, {"count": 5}, credit=2)
        got = [value_of((await link.next("chunk")).chunk.value) for _ in range(2)]
        # The answer to the probe shows that nothing else was on its way.
        await link.probe()
        await link.credit(sequence, 2)
        got += [value_of((await link.next("chunk")).chunk.value) for _ in range(2)]
        await link.probe()
        await link.credit(sequence, 10)
        got += [value_of((await link.next("chunk")).chunk.value)]
        end = await link.next("result")
        return got, end.result.HasField("value")

    assert busy(stream) == ([0, 1, 2, 3, 4], False)


@pytest.mark.parametrize("command", ["stream", "astream"])
def test_a_stream_ends_without_credit_to_spare(busy, command):
    async def stream(link):
        await link.assign(command, {"count": 2}, credit=2)
        return [(await link.next("chunk", "result")).WhichOneof("report") for _ in range(3)]

    assert busy(stream) == ["chunk", "chunk", "result"]


@pytest.mark.parametrize("command", ["stream", "astream"])
def test_a_call_without_a_stream_gets_the_chunks_as_a_list(busy, command):
    assert busy(lambda link: link.result(command, {"count": 4})) == [0, 1, 2, 3]


def test_a_collected_stream_may_not_outgrow_the_result_limit(busy):
    failure = busy(lambda link: link.failure("stream", max_result=1000))
    assert failure.code == "result_too_large"


def test_chunks_of_bytes_arrive_as_bytes(busy):
    async def stream(link):
        await link.assign("blobs", {"count": 3, "size": 300_000}, credit=3)
        sizes = [len((await link.next("chunk")).chunk.value.raw) for _ in range(3)]
        await link.next("result")
        return sizes

    assert busy(stream) == [300_000] * 3


@pytest.mark.parametrize("command", ["stream", "astream"])
@pytest.mark.parametrize("credit", [1, 0])
def test_cancelling_a_stream_runs_its_finally(command, credit, profile, tmp_path):
    async def cancel():
        async with worker("busy", profile=profile, threads=2, args={"folder": str(tmp_path)}) as link:
            sequence = await link.assign(command, credit=credit, max_result=1 << 30)
            while not (tmp_path / "opened").exists():
                await link.probe("chunk")
            await link.cancel(sequence)
            failure = (await link.next("failure", "chunk")).failure
            if not failure.code:
                failure = (await link.next("failure")).failure
            return failure.code, (tmp_path / "closed").exists()

    assert asyncio.run(cancel()) == ("cancelled", True)


def test_a_stream_that_raises_fails_after_its_chunks(broken):
    async def stream(link):
        await link.assign("half", credit=5)
        await link.next("chunk")
        return (await link.next("failure")).failure

    failure = broken(stream)
    assert (failure.code, failure.type, failure.message) == (
        "adapter_error",
        "RuntimeError",
        "RuntimeError: in the middle",
    )


# Context.


def test_progress_and_log_lines_arrive_before_the_result(busy):
    async def report_progress(link):
        await link.assign("report_progress", {"steps": 3}, call="abc")
        reports = []
        while not reports or reports[-1].WhichOneof("report") != "result":
            reports.append(await link.next("progress", "log", "result"))
        return reports

    reports = busy(report_progress)
    progress = [report.progress for report in reports if report.HasField("progress")]
    assert (progress[-1].fraction, progress[-1].message) == (1.0, "step 3")
    assert [report.log.message for report in reports if report.HasField("log")] == ["line 1", "line 2", "line 3"]
    assert value_of(reports[-1].result.value) == "abc"


def test_the_context_has_the_remaining_time(busy):
    assert 0 < busy(lambda link: link.result("left", budget=25.0)) <= 25.0


@pytest.mark.parametrize("command", ["hold", "ahold"])
@pytest.mark.parametrize("reason", ["cancelled", "deadline_exceeded"])
def test_a_cancelled_command_ends_with_the_reason(busy, command, reason):
    async def cancel(link):
        sequence = await link.assign(command)
        await link.next("log")
        await link.cancel(sequence, reason)
        return (await link.next("failure")).failure

    assert busy(cancel).code == reason


@pytest.mark.parametrize("command", ["hold", "ahold"])
def test_a_command_sees_its_deadline_without_a_cancel(busy, command):
    async def wait(link):
        for budget in (0.05, 1.0, 20.0):  # on a busy machine it may pass before the command begins
            await link.assign(command, budget=budget)
            if (await link.next("log", "failure")).HasField("log"):
                return (await link.next("failure")).failure
        raise AssertionError("the command never began")

    assert busy(wait).code == "deadline_exceeded"


def test_a_command_that_finishes_after_its_cancel_gives_its_result(busy):
    async def cancel(link):
        sequence = await link.assign("insist")
        await link.next("log")
        await link.cancel(sequence)
        return value_of((await link.next("result")).result.value)

    assert busy(cancel) == "finished"


def test_a_waiting_call_that_is_cancelled_never_runs():
    async def cancel():
        async with worker("busy") as link:
            running = await link.assign("hold")
            await link.next("log")
            waiting = await link.assign("hold")
            await link.cancel(waiting)
            failure = (await link.next("failure")).failure
            await link.cancel(running)
            ended = (await link.next("failure")).failure.sequence
            return failure, waiting, running, ended, link.process.page.last_begun

    failure, waiting, running, ended, begun = asyncio.run(cancel())
    assert (failure.sequence, failure.code) == (waiting, "cancelled")
    assert json.loads(failure.details) == {"outcome": "not_started"}
    assert ended == begun == running


def test_a_cancel_of_an_ended_or_unknown_call_is_ignored(echo):
    async def cancel(link):
        sequence = await link.assign("echo", {"value": 1})
        await link.next("result")
        await link.cancel(sequence)
        await link.cancel(10**6)
        await link.credit(10**6, 1)
        return await link.result("echo", {"value": 2})

    assert echo(cancel) == 2


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"a": "1"}, {"a": "a must be a number, not a string"}),
        ({"b": 1}, {"a": "a is missing"}),
        ({"a": 1, "c": 2}, {"c": "c is unknown"}),
        (b"[]", {"$": "the arguments must be one JSON object, keyed by argument name"}),
        (b'{"a": NaN}', {"$": "the arguments are not JSON: NaN is not JSON"}),
        (b'{"a": 1e999}', {"$": "the arguments are not JSON: 1e999 is too large for a float"}),
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", {"$": "the arguments nest deeper than 64 levels"}),
    ],
)
def test_bad_arguments_are_refused_by_name(echo, arguments, problems):
    failure = echo(lambda link: link.failure("add", arguments))
    assert failure.code == "bad_arguments"
    assert json.loads(failure.details) == {"arguments": problems}
    assert echo(lambda link: link.result("add", {"a": 1})) == 1.0


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"{'a': 1}"])
def test_arguments_that_are_not_json_are_refused(echo, text):
    async def call(link):
        order = link.call("add")
        order.assign.arguments = text
        await link.order(order)
        return (await link.next("failure")).failure

    failure = echo(call)
    assert failure.code == "bad_arguments"
    assert "not JSON in UTF-8" in failure.message


def test_an_unknown_command_is_refused_with_a_suggestion(echo):
    failure = echo(lambda link: link.failure("ecko"))
    assert (failure.code, failure.message) == ("command_unknown", "no command 'ecko' (did you mean 'echo'?)")
    assert "add" in json.loads(failure.details)["commands"]


@pytest.mark.parametrize("command", ["setup", "teardown", "local", "__init__", "_describe", "preload", "lock"])
def test_only_commands_can_be_called(echo, command):
    assert echo(lambda link: link.failure(command)).code == "command_unknown"


# Adapters that misbehave.


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        ("fail", "ValueError", "ValueError: out of paper"),
        ("leave", "SystemExit", "the command called sys.exit(3)"),
        ("aleave", "SystemExit", "the command called sys.exit(4)"),
        ("aleave_in_task", "SystemExit", "the command called sys.exit(5)"),
        ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("give_up", "snakepit.workers.context.CallCancelled", "CallCancelled: of its own accord"),
        ("hostile", "adapters.Broken.hostile.<locals>.Hostile", "Hostile: <Hostile that cannot be shown>"),
        ("nameless", "Hostile", "Hostile"),
        ("secretive", "", "Hostile: <Hostile that cannot be shown>"),
    ],
)
def test_what_a_command_raises_is_reported_and_the_worker_lives(broken, command, kind, message):
    failure = broken(lambda link: link.failure(command))
    assert (failure.code, failure.type, failure.message) == ("adapter_error", kind, message)
    assert broken(lambda link: link.result("large", {"size": 1})) == "x"


def test_a_traceback_shows_the_adapters_frames_only(broken):
    failure = broken(lambda link: link.failure("fail"))
    assert "adapters.py" in failure.traceback
    assert "execution.py" not in failure.traceback


def test_messages_and_tracebacks_are_bounded(broken):
    failure = broken(lambda link: link.failure("fail", {"message": "x" * 100_000}))
    assert len(failure.message.encode()) <= 2052
    assert len(failure.traceback.encode()) <= 16 * 1024


def test_endless_recursion_is_an_error_of_its_command(broken):
    failure = broken(lambda link: link.failure("deep"))
    assert (failure.code, failure.type) == ("adapter_error", "RecursionError")


def test_printing_binary_harms_nothing(broken):
    assert broken(lambda link: link.result("spill")) == "spilled"


def test_a_result_that_json_cannot_carry_names_what_was_there(broken):
    assert broken(lambda link: link.result("odd")) == {
        "object": {"$unserializable": "builtins.object"},
        "nan": {"$float": "nan"},
        "bytes": {"$bytes": "AAE="},
        "set": [1, 2],
    }


def test_a_lone_surrogate_survives_the_wire(broken):
    assert broken(lambda link: link.result("surrogate")) == "\ud800"


def test_a_result_over_the_limit_is_refused_with_its_size(broken):
    failure = broken(lambda link: link.failure("large", {"size": 2 << 20}))
    assert failure.code == "result_too_large"
    # What a value has at least is counted before its text is made: here the characters without their quotes.
    assert json.loads(failure.details) == {"size": 2 << 20, "limit": 1 << 20}


# Start and end.


def boot_failure_of(adapter: str, **fields: object) -> tuple[pb.BootFailure, int]:
    async def boot():
        with started(adapter, **fields) as process:
            async with linked(process, greet=False) as link:
                told = (await link.next("boot_failure")).boot_failure
                return told, await link.goodbye(process)

    return asyncio.run(boot())


@pytest.mark.parametrize(
    ("adapter", "fields", "kind", "message"),
    [
        ("no_such_module.Adapter", {}, "snakepit.workers.schema.commands.ModuleMissing", "no module 'no_such_module'"),
        ("adapters.Echoo", {}, "snakepit.workers.schema.commands.ClassMissing", "did you mean 'Echo'?"),
        ("pathlib.Path", {}, "snakepit.workers.schema.commands.NotAnAdapter", "not a subclass of snakepit.Adapter"),
        (
            "process_only",
            {"profile": "thread"},
            "snakepit.workers.schema.commands.NotThreadSafe",
            "set `thread_safe = True`",
        ),
        (
            "configured",
            {"args": {"modle": "x"}},
            "snakepit.workers.schema.commands.ArgumentsRefused",
            "did you mean 'model'?",
        ),
        ("failing_setup", {}, "OSError", "no GPU here"),
        ("exiting_setup", {}, "SystemExit", "sys.exit(9)"),
        ("failing_import.Late", {}, "ModuleNotFoundError", "No module named 'no_such_dependency'"),
    ],
)
def test_an_adapter_that_does_not_load_is_reported_before_the_worker_exits(adapter, fields, kind, message):
    told, code = boot_failure_of(adapter, **fields)
    assert told.type == kind
    assert message in told.message
    assert code == 3


def test_a_drained_worker_finishes_what_it_holds_and_tears_down(tmp_path, profile):
    async def drain():
        async with worker("busy", profile=profile, threads=2, args={"folder": str(tmp_path)}) as link:
            first = await link.assign("insist")
            await link.next("log")
            if profile == "thread":
                await link.assign("insist")  # keeps the second slot busy
                await link.next("log")
            await link.assign("left")
            await link.drain()
            refused = await link.failure("left")
            await link.cancel(first)
            if profile == "thread":
                await link.cancel(first + 1)
            kinds = []
            while (report := await link.report()) is not None:
                kinds.append(report.WhichOneof("report"))
            link.channel.close()
            return refused, kinds, await asyncio.to_thread(link.process.exit_code), link.process.output()

    refused, kinds, code, output = asyncio.run(drain())
    assert refused.code == "shutting_down"
    assert kinds == ["result"] * (2 if profile == "process" else 3)
    assert (code, output) == (0, b"")
    assert (tmp_path / "setup").exists()
    assert (tmp_path / "teardown").exists()


@pytest.mark.parametrize("command", [None, "hold", "spin"])
def test_a_worker_whose_broker_disconnects_exits(tmp_path, command):
    async def leave():
        with started("busy", args={"folder": str(tmp_path)}) as process:
            async with linked(process) as link:
                if command:
                    await link.assign(command)
                    await link.next("log")
            return await asyncio.to_thread(process.exit_code)

    left = {name for name, does in {"teardown": command != "spin", "let go": command == "hold"}.items() if does}
    for _ in range(5):  # it has a second, which a machine that stands still may take away
        assert asyncio.run(leave()) == 4
        found = {name for name in ("teardown", "let go") if (tmp_path / name).exists()}
        assert found <= left
        if found == left:
            return
    pytest.fail(f"the worker never left {left}")


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_worker_answers_without_each_mechanism_of_the_transport(monkeypatch, switch):
    monkeypatch.setenv(switch, "0")

    async def several():
        async with worker() as link:
            return [await link.result("echo", {"value": number}) for number in range(20)]

    assert asyncio.run(several()) == list(range(20))


def test_a_second_stream_is_refused():
    async def twice():
        async with worker() as link:
            async with linked(link.process, greet=False) as second:
                assert await second.report() is None
                await second.stream.recv_trailing_metadata()
            return await link.result("echo", {"value": 1})

    with pytest.raises(Exception, match="has a broker already"):
        asyncio.run(twice())


def test_a_message_beyond_all_bounds_ends_the_link_before_it_is_gathered():
    async def flood():
        with started(max_payload=1024) as process:
            async with linked(process) as link:
                # Only the header of a message: its length alone must be enough.
                await link.stream._stream.send_data(b"\0" + (1 << 30).to_bytes(4, "big"))
                code = await asyncio.to_thread(process.exit_code)
            return code, process.output()

    code, output = asyncio.run(flood())
    assert code == 4
    assert b"MessageTooLarge" in output


def test_the_shared_page_has_the_last_begun_call_after_a_kill():
    async def kill():
        async with worker("busy") as link:
            sequences = [await link.assign(command) for command in ("left", "hold", "left", "left")]
            await link.next("result")
            await link.next("log")
            os.kill(link.process.pid, signal.SIGKILL)
            code = await asyncio.to_thread(link.process.exit_code)
            return sequences, code, link.process.page.last_begun

    sequences, code, begun = asyncio.run(kill())
    assert code == -signal.SIGKILL
    assert begun == sequences[1]


def test_a_worker_that_segfaults_leaves_its_python_stack():
    async def crash():
        async with worker("broken") as link:
            await link.assign("segfault")
            return await asyncio.to_thread(link.process.exit_code), link.process.output()

    code, output = asyncio.run(crash())
    assert code == -signal.SIGSEGV
    assert b"in segfault" in output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux's")
def test_a_worker_dies_with_its_parent(tmp_path):
    # Here the parent is a small process between us and the worker: the boot document names it, and the test kills it.
    intermediate = pathlib.Path(__file__).with_name("intermediate.py")

    async def orphan():
        with started("busy", command=[sys.executable, str(intermediate)], parent=-1) as process:
            async with linked(process) as link:
                await link.assign("spin")
                await link.next("log")
                worker_fd = os.pidfd_open(link.hello.pid)
                os.kill(process.pid, signal.SIGKILL)
                gone = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().add_reader(worker_fd, lambda: gone.done() or gone.set_result(True))
                try:
                    return await asyncio.wait_for(gone, harness.PATIENCE)
                finally:
                    asyncio.get_running_loop().remove_reader(worker_fd)
                    os.close(worker_fd)

    assert asyncio.run(orphan())


def test_a_worker_of_another_parent_exits_immediately():
    with started(parent=1) as process:
        assert process.exit_code() == 5
        assert b"the parent is process" in process.output()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": 9}, b"protocol: the broker uses version 9"),
        ({"profile": "fibre"}, b"profile: 'fibre' is not one of process, thread"),
        ({"threads": "4"}, b"threads: '4' is not an integer of at least 0"),
        ({"colour": "red"}, b"unknown fields: colour"),
    ],
)
def test_a_boot_document_that_is_not_understood_is_refused(fields, message):
    with started(**fields) as process:
        assert process.exit_code() == 2
        assert message in process.output()


# The command line.


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=harness.ROOT,
        env=harness.environment(),
        capture_output=True,
        text=True,
        timeout=harness.PATIENCE,
        check=False,
    )


def test_describe_prints_the_commands_and_their_schemas():
    done = run("snakepit.workers", "--describe", "adapters.Echo", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    described = json.loads(done.stdout)
    assert described["thread_safe"] is True
    assert {command["name"]: command["schema"]["required"] for command in described["commands"]}["add"] == ["a"]
    assert "Give the value back." in run("snakepit.workers", "--describe", "adapters.Echo").stdout


def test_describe_of_what_does_not_load_prints_the_reason():
    done = run("snakepit.workers", "--describe", "failing_import.Late")
    assert (done.returncode, done.stdout) == (3, "")
    assert "No module named 'no_such_dependency'" in done.stderr


def test_the_help_loads_neither_grpc_nor_django():
    script = (
        "import sys, runpy; sys.argv = ['snakepit.workers', '--help']\n"
        "try: runpy.run_module('snakepit.workers', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpclib', 'google', 'django'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=harness.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_start_loads_no_module_that_only_some_pools_need():
    script = (
        "import sys, asyncio, grpclib.server, h2.connection, google.protobuf.descriptor_pool\n"
        "theirs = set(sys.modules)\n"
        "import snakepit.workers.process.worker\n"
        "print(sorted(set(sys.modules) - theirs))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=harness.ROOT, capture_output=True, text=True, check=True)
    unneeded = "importlib.metadata", "tempfile", "snakepit.workers.process.sandbox", "snakepit.workers.runtime.races"
    assert [name for name in unneeded if repr(name) in done.stdout] == []


def test_a_worker_is_not_started_by_hand():
    done = run("snakepit.workers")
    assert done.returncode == 2
    assert "--describe" in done.stderr


def test_parent_death_becomes_its_command():
    program = (sys.executable, "-c", "import os; print(os.getppid())")
    done = run("snakepit.workers.process.parent_death", str(os.getpid()), "--", *program)
    assert done.stdout.strip() == str(os.getpid())


def test_parent_death_refuses_another_parent():
    assert run("snakepit.workers.process.parent_death", "1", "--", "true").returncode == 5
    assert run("snakepit.workers.process.parent_death", "true").returncode == 2


def test_the_socket_stays_the_workers_own(echo):
    async def look(link):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(link.process.path)
        return await link.result("echo", {"value": "still here"})

    assert echo(look) == "still here"
