"""What one call changes in its worker: the table of docs/explanation/containment.md, done row by row."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.workers import harness

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/explanation/containment.md"
ROWS = re.findall(r"^\| ([a-z][^|]+) \| (undone|contained|stays|ends the worker) \|$", PAGE.read_text(), re.M)
OF_THE_ADAPTER = ("changes an attribute of the adapter", "registers an exit handler", "leaves a child process behind")

OF_THE_LOOP = (
    "sets the task factory of the event loop",
    "sets the exception handler of the event loop",
    "switches the debug mode of the event loop on",
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the state is read from /proc")


@pytest.fixture
def meddler(workers: Any) -> Any:
    return workers.user_of("meddler", "process")


async def change(link: Any, what: str) -> Any:
    if what == "leaves an asyncio task behind":
        return await link.result("leave_a_task")
    if what in OF_THE_LOOP:
        return await link.result("change_loop", {"what": what})
    if what in OF_THE_ADAPTER:
        return await link.result("of_the_adapter", {"what": what})
    return await link.result("change", {"what": what})


async def state(link: Any, what: str) -> Any:
    if what in OF_THE_LOOP:
        return await link.result("loop_state")
    return await link.result("state")


def test_the_table_is_read() -> None:
    assert len(ROWS) == 59


@pytest.mark.parametrize("what", [what for what, outcome in ROWS if outcome in ("undone", "contained")])
def test_what_a_call_changes_is_not_seen_by_the_next_one(meddler: Any, what: str) -> None:
    if what == "sets the policy of event loops" and sys.version_info >= (3, 14):
        pytest.skip("policies of event loops are deprecated, and nothing but a warning shows them")

    async def around(link: Any) -> Any:
        pid, before = await link.result("pid"), await state(link, what)
        seen = await change(link, what)
        return seen, before, await state(link, what), pid, await link.result("pid")

    seen, before, after, pid, same = meddler(around)
    if what == "leaves an asyncio task behind":  # the adapter keeps the task to show that it was cancelled
        after = after.replace("[0, [True], ", "[0, [], ")
    elif what != "forks and returns in the child":
        assert seen, "the call itself did not see its change"
    assert after == before
    assert pid == same


@pytest.mark.parametrize("what", [what for what, outcome in ROWS if outcome == "stays"])
def test_what_stays_is_seen_by_the_next_call(what: str) -> None:
    async def around() -> Any:
        async with harness.worker("meddler") as link:
            before = await link.result("state")
            assert await change(link, what)
            after = await link.result("state")
            await link.drain()
            return before, after, await link.goodbye(link.process)

    before, after, code = asyncio.run(around())
    assert before != after
    assert code == 0


@pytest.mark.parametrize("what", [what for what, outcome in ROWS if outcome == "ends the worker"])
def test_what_cannot_be_undone_ends_the_worker_with_its_reason(what: str) -> None:
    async def around() -> Any:
        with harness.started("meddler") as process:
            async with harness.linked(process) as link:
                await link.assign("change", {"what": what})
                if what == "lowers a hard limit":
                    assert (await link.next("result")).result.value.json == b"true"
                    if await privileged(link, process):
                        return None, process.output()
                return await asyncio.to_thread(process.exit_code), process.output()

    code, output = asyncio.run(around())
    if code is None:
        pytest.skip("a privileged process may raise a hard limit, so that this is undone")
    assert code == 6
    assert b"the worker ends after a call of change: it " in output


@pytest.mark.parametrize(
    "what", [what for what, outcome in ROWS if outcome == "ends the worker" and "scriptors" in what]
)
def test_a_call_that_shares_a_check_ends_the_worker_with_its_reason(what: str) -> None:
    async def around() -> Any:
        with harness.started("meddler") as process:
            async with harness.linked(process) as link:
                await link.order(link.together("change_again", [{"what": what}]))
                return await asyncio.to_thread(process.exit_code), process.output()

    code, output = asyncio.run(around())
    assert code == 6, output
    assert b"the worker ends after a call of change_again: it closed descriptors" in output


def test_what_setup_sets_on_the_event_loop_stays() -> None:
    async def around() -> Any:
        async with harness.worker("meddler") as link:
            before = await link.result("loop_state")
            await link.result("change_loop", {"what": "switches the debug mode of the event loop on"})
            return before, await link.result("loop_state")

    before, after = asyncio.run(around())
    assert "0.125" in before
    assert after == before


def test_what_a_call_in_flight_changes_is_not_seen_by_those_behind_it() -> None:
    async def around() -> Any:
        async with harness.worker("meddler") as link:
            before = await link.result("visit", {"change": False})
            orders = []
            for _ in range(4):
                changes = [False, True, False, True, False, False, True, False]
                orders.append(link.together("visit", [{"change": change} for change in changes]))
            await link.order(*orders)
            seen = {}
            for _ in range(32):
                result = (await link.next("result")).result
                seen[result.sequence] = harness.value_of(result.value)
            return before, list(seen.values())

    before, seen = asyncio.run(around())
    assert seen == [before] * 32


@pytest.mark.parametrize("change", [False, True], ids=["after nothing", "after a change"])
def test_the_answers_before_a_long_call_do_not_wait_for_it(change: bool) -> None:
    async def around() -> Any:
        async with harness.worker("meddler") as link:
            before = await link.result("visit", {"change": False})
            if change:  # from now on, this command gets a check of its own
                await link.result("visit", {"change": True})
            linger = link.call("linger", budget=3600)
            await link.order(link.together("visit", [{"change": False}] * 8), linger)
            seen = [harness.value_of((await link.next("result")).result.value) for _ in range(8)]
            await link.cancel(linger.assign.sequence)
            await link.next("failure", "result")
            return before, seen

    before, seen = asyncio.run(around())
    assert seen == [before] * 8


def arrived(server: socket.socket) -> bytes:
    """What the connections that wait in a listener received until their end."""
    received = b""
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            with server.accept()[0] as taken:
                taken.settimeout(harness.PATIENCE)
                while data := taken.recv(65_536):
                    received += data
    return received


def test_a_worker_never_writes_to_a_file_that_took_the_number_of_its_link() -> None:
    async def around(port: int) -> Any:
        with harness.started("meddler") as process:
            async with harness.linked(process) as link:
                await link.assign("replace", {"port": port})
                return await asyncio.to_thread(process.exit_code), process.output()

    with socket.create_server(("127.0.0.1", 0)) as server:
        code, output = asyncio.run(around(server.getsockname()[1]))
        assert code, output
        assert arrived(server) == b""


async def privileged(link: Any, process: Any) -> bool:
    """Whether the worker serves another call, and its limit is as before."""
    try:
        await link.assign("pid")
        return await link.report() is not None
    except Exception:
        return False


def test_a_command_that_only_raises_leaves_nothing_behind(meddler: Any) -> None:
    async def around(link: Any) -> Any:
        counts = []
        for calls in (20, 200):  # the first ones fill caches, such as the source lines of a traceback
            for _ in range(calls):
                await link.assign("change", {"what": "nothing"})
                assert (await link.next("failure")).failure.type == "KeyError"
            counts.append(await link.result("objects"))
        return counts

    before, after = meddler(around)
    assert after - before < 100, "not one object for each call"


@pytest.mark.parametrize(
    "change",
    [
        "os.umask(0o027)", "os.chdir('/')", "os.mkdir('gone'), os.chdir('gone'), os.rmdir('../gone')",
        "signal.setitimer(signal.ITIMER_VIRTUAL, 900)",
    ],
)  # fmt: skip
def test_a_change_that_is_undone_counts_as_one(change: str, tmp_path: Path) -> None:
    """The answers that share a check may rest on it."""
    code = (
        "import os, signal\n"
        "from snakepit.workers.runtime.containment import Containment\n"
        "contained = Containment()\n"
        "before = os.getcwd()\n"
        "assert not contained.restore()\n"
        f"{change}\n"
        "assert contained.restore() and not contained.restore()\n"
        "assert os.getcwd() == before and os.umask(0o077) == 0o022"
    )
    check_in(tmp_path, code)


def test_a_worker_whose_directory_was_deleted_is_contained_too(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from snakepit.workers.runtime.containment import Containment\n"
        "contained = Containment()\n"
        "os.rmdir(os.getcwd())\n"
        "assert contained.restore() and not contained.restore()\n"
        "os.chdir('/')\n"
        "assert contained.restore() and not contained.restore()"
    )
    home = tmp_path / "release"
    home.mkdir()
    check_in(home, code)


def check_in(directory: Path, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        cwd=directory, umask=0o022, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_with_a_low_limit_of_open_files_is_contained_too() -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from snakepit.workers.runtime.containment import Containment\n"
        "contained = Containment()\n"
        "sys.stdout.reconfigure(encoding='ascii')\n"
        "assert contained.restore() and not contained.restore()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
