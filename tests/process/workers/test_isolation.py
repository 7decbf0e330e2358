"""One call does not change what the next one sees: context variables, and processes that a command forked."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.process.workers import harness
from tests.process.workers.harness import value_of


@pytest.fixture
def tenants(workers, profile):
    return workers.user_of("tenants", profile)


@pytest.mark.parametrize("command", ["plain", "coroutine"])
def test_a_context_variable_that_a_command_sets_is_gone_in_the_next_call(tenants, command):
    async def twice(link):
        return [await link.result(command, {"name": "acme"}) for _ in range(3)]

    assert tenants(twice) == [["from setup", 9]] * 3


@pytest.mark.parametrize("command", ["stream", "astream"])
@pytest.mark.parametrize("credit", [0, 4])
def test_a_stream_keeps_its_context_from_chunk_to_chunk_and_leaves_none_behind(tenants, command, credit):
    async def chunks(link):
        if not credit:
            return await link.result(command, {"name": "acme"})
        await link.assign(command, {"name": "acme"}, credit=credit)
        found = [value_of((await link.next("chunk")).chunk.value) for _ in range(2)]
        await link.next("result")
        return found

    for _ in range(3):
        assert tenants(chunks) == [["from setup", 9], ["acme", 3]]


@pytest.fixture
def forks(workers, profile):
    return workers.user_of("forks", profile)


@pytest.mark.skipif(sys.platform != "linux", reason="forking a process with threads is safe enough on Linux alone")
@pytest.mark.parametrize(
    ("command", "code"),
    [("returns", 0), ("raises", 1), ("leaves", 7), ("streams", 0), ("awaits", 0), ("astreams", 0)],
)
def test_a_process_that_a_command_forked_ends_where_it_returns_and_reports_nothing(forks, command, code):
    async def call(link):
        parent = await link.result("pid")
        answer = await link.result(command)
        await link.probe()  # its answer comes after everything that was sent before it
        return parent, answer, await link.result("pid")

    parent, answer, after = forks(call)
    wanted = [parent, code]
    assert answer == (["before", wanted] if "streams" in command else wanted)
    assert after == parent


@pytest.mark.skipif(sys.platform != "linux", reason="forking a process with threads is safe enough on Linux alone")
def test_processes_that_setup_and_teardown_forked_end_where_they_return():
    async def live():
        async with harness.worker("forks") as link:
            parent = await link.result("pid")
            setup = await link.result("ended")
            await link.drain()
            return parent, setup, await link.goodbye(link.process), link.process.output()

    parent, setup, code, output = asyncio.run(live())
    assert parent == setup[0]
    assert setup[1] == code == 0
    assert output.decode().splitlines() == [str([parent, 0])]


@pytest.mark.skipif(sys.platform != "linux", reason="forking a process with threads is safe enough on Linux alone")
@pytest.mark.parametrize("command", ["streams", "astreams"])
def test_a_forked_process_sends_no_chunks(forks, command):
    async def call(link):
        parent = await link.result("pid")
        await link.assign(command, credit=9)
        found = [value_of((await link.next("chunk")).chunk.value) for _ in range(2)]
        await link.next("result")
        return parent, found

    parent, found = forks(call)
    assert found == ["before", [parent, 0]]
