"""Jobs with real processes: broker, Celery workers and beat, a message transport, a database; and kill -9 for them.

The recent is a file beside the database: each run of a command that is not idempotent leaves a line there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.brokers import ROOT, RunningBroker, broker

KEPT_RUNS = 100  # of a schedule (models/periodic.py)
PATIENCE = 240.0  # a bound, never a wait: 60 jobs on two cores that twenty processes want took more than 25 s
SETTINGS = "tests.jobs_settings"
DRIVER = Path(__file__).with_name("jobs_driver.py")


class Stand:
    """Everything that jobs need, each in a process that a test may kill."""

    def __init__(self, node: RunningBroker, home: Path, url: str, database: str) -> None:
        self.node = node
        self.home = home
        self.recent = home / "recent"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "SNAKEPIT_STATE_DIR": str(home / "state"),
            "SNAKEPIT_RUNTIME_DIR": str(node.runtime),
            "SNAKEPIT_CELERY_URL": url,
            "SNAKEPIT_DATABASE_URL": database,
            "PYTHONPATH": str(ROOT),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self._driver: subprocess.Popen[str] | None = None

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.home / name).open("ab") as log:
            command = [sys.executable, "-m", "celery", "-A", "snakepit.site", *words, "--loglevel=INFO"]
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def worker(self, name: str = "w1", threads: int = 4, pool: str = "threads") -> subprocess.Popen[bytes]:
        words = ("worker", f"--pool={pool}", f"--concurrency={threads}", "-n", f"{name}@test", "--without-mingle")
        return self.start(name, *words)

    def beat(self) -> subprocess.Popen[bytes]:
        return self.start("beat", "beat", "--pidfile=", "--schedule", str(self.home / "schedule"))

    def database_beat(self) -> subprocess.Popen[bytes]:
        """The beat of django-celery-beat, whose entries are in the database."""
        return self.start(
            "dbeat", "beat", "--pidfile=", "--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"
        )

    def ask(self, what: str, **facts: Any) -> Any:
        """Have the driver, which is a Django process of this stand, do something."""
        if self._driver is None:
            self._driver = subprocess.Popen(
                [sys.executable, str(DRIVER)], cwd=ROOT, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(json.dumps({"what": what, **facts}) + "\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline())
        assert "error" not in answer, answer
        return answer["value"]

    def submit(self, command: str, arguments: dict[str, Any], count: int = 1, **options: Any) -> list[str]:
        ids: list[str] = self.ask("submit", command=command, arguments=arguments, count=count, options=options)
        return ids

    def until(self, question: Callable[[], Any], what: str) -> Any:
        """Ask again and again, within bounds: rows and files of other processes give no other sign."""
        end = time.monotonic() + PATIENCE
        while not (answer := question()):
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-3000:] for path in self.home.glob("w[12]"))
                raise AssertionError(f"waited in vain for {what}: {self.ask('jobs')}\n{logs}")
            time.sleep(0.1)
        return answer

    def ended(self, ids: list[str]) -> list[dict[str, Any]]:
        """The jobs, when all have ended."""
        rows: list[dict[str, Any]] = self.until(lambda: self.ask("ended", ids=ids), f"the end of {len(ids)} jobs")
        return rows

    def released(self, pipe: Path, ids: list[str]) -> list[dict[str, Any]]:
        """The jobs, when all have ended. Until then the pipe is opened again: a call that holds may not read it yet."""

        def let_go() -> list[dict[str, Any]] | None:
            with suppress(OSError):  # no call waits at this moment
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            ended: list[dict[str, Any]] | None = self.ask("ended", ids=ids)
            return ended

        rows: list[dict[str, Any]] = self.until(let_go, f"the end of {len(ids)} jobs")
        return rows

    def lines(self, word: str = "") -> list[str]:
        text = self.recent.read_text() if self.recent.exists() else ""
        return [line for line in text.splitlines() if line.startswith(word)]

    def holding(self, count: int = 1) -> list[str]:
        """Wait until so many runs of `hold` have begun."""
        found: list[str] = self.until(
            lambda: lines if len(lines := self.lines("holding")) >= count else None, f"{count} runs that hold"
        )
        return found

    def stop(self) -> None:
        if self._driver:
            self._driver.communicate(timeout=PATIENCE)
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(PATIENCE)


@contextmanager
def stand(home: Path, url: str, database: str = "") -> Iterator[Stand]:
    recent = {"args": {"recent": str(home / "recent")}}
    with broker({"pool": {"size": 2, **recent}}) as node:
        made = Stand(node, home, url, database or f"sqlite:///{home / 'db.sqlite3'}")
        try:
            made.ask("migrate")
            node.ready("pool", 2)
            yield made
        finally:
            made.stop()


def letting_go(path: Path) -> None:
    """Open the pipe that commands hold, for those who wait now."""
    with path.open("wb"):
        pass


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture(params=["sqlite+valkey", "sqlite+files", pytest.param("postgresql+valkey", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(message transport, database)."""
    database, _, transport = request.param.partition("+")
    url = "filesystem://" if transport == "files" else request.getfixturevalue("valkey_url")
    return url, request.getfixturevalue("postgres_url") if database == "postgresql" else ""


@pytest.mark.slow
def test_every_job_runs_once_also_when_its_message_comes_three_times_or_two_schedulers_make_it(
    place: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # django-celery-beat holds Django below 6.1, so it is installed on the oldest Python alone.
    scheduled = bool(place[1]) and sys.version_info < (3, 12)
    if scheduled:
        monkeypatch.setenv("SNAKEPIT_TEST_CELERY_BEAT", "1")
    with stand(tmp_path, *place) as here:
        ids = here.submit("once", {"mark": "x"}, 60)
        for _ in range(2):
            here.ask("send", ids=ids)
        here.worker()
        beat = here.beat()
        rows = here.ended(ids)
        assert Counter(row["state"] for row in rows) == {"succeeded": 60}
        assert {row["attempts"] for row in rows} == {1}
        assert len(here.lines("once")) == 60
        if scheduled:
            check_schedule(here, beat, ids)


def made_once(here: Stand, others: set[str]) -> list[str] | None:
    """The jobs of the schedule, once each has run, and each time has one. Of many times the newest are kept.

    A tick that had begun may still make one when its schedule is stopped.
    """
    runs, jobs = here.ask("runs"), {row["id"] for row in here.ask("jobs")} - others
    times, made = {run["nominal"] for run in runs}, {run["job"] for run in runs}
    kept = len(runs) == len(jobs) or len(runs) >= KEPT_RUNS
    once = kept and len(times) == len(runs) == len(made & jobs) and len(here.lines("once tick")) == len(jobs)
    return sorted(jobs) if once else None


def check_schedule(here: Stand, beat: subprocess.Popen[bytes], others: list[str]) -> None:
    """A schedule of each second has one job a time beside two beats, on each surface; a snoozed job comes back."""
    here.ask("schedule", name="each-second", command="once", arguments={"mark": "tick"}, interval=1)
    snoozed = here.submit("puts_off_once", {"path": str(here.home / "seen")})
    beats = [beat, here.database_beat()]
    here.until(lambda: "snakepit.reconcile" in here.ask("ticks"), "the entries of django-celery-beat")
    before = len(here.lines("once tick"))
    here.until(lambda: len(here.lines("once tick")) >= before + 3, "runs of the schedule")
    shown = here.ask("periodic surfaces", name="each-second")
    here.ask("stop schedules")
    for one in beats:
        one.terminate()
    assert [one.wait(PATIENCE) for one in beats] == [0, 0]
    assert here.ask("ticks")["snakepit.reconcile"] > 0  # it stores its counts when it ends
    rows = here.ended(here.until(lambda: made_once(here, {*others, *snoozed}), "one job for each time"))
    assert {(row["state"], row["attempts"]) for row in rows} == {("succeeded", 1)}
    assert [name for name, text in shown.items() if "each-second" not in text] == []
    (row,) = here.ended(snoozed)
    assert (row["state"], row["result"], row["outcomes"]) == ("succeeded", "done", ["snoozed", "succeeded"])
    assert len(here.lines("puts off")) == 2


@pytest.mark.slow
@pytest.mark.chaos
def test_a_job_whose_celery_worker_is_killed_is_run_by_another(valkey_url: str, tmp_path: Path, pipe: Path) -> None:
    with stand(tmp_path, valkey_url) as here:
        first = here.worker()
        ids = here.submit("hold_again", {"path": str(pipe)})
        here.holding()
        first.kill()
        here.worker("w2")
        here.beat()
        here.until(lambda: here.ask("jobs")[0]["attempts"] == 2, "a second attempt")
        here.holding(2)
        (row,) = here.released(pipe, ids)
        assert (row["state"], row["attempts"]) == ("succeeded", 2)
        assert row["outcomes"] == ["lease_expired", "succeeded"]


@pytest.mark.slow
@pytest.mark.chaos
def test_a_dead_celery_workers_job_is_freed_while_every_thread_of_the_other_is_busy(
    valkey_url: str, tmp_path: Path, pipe: Path
) -> None:
    with stand(tmp_path, valkey_url) as here:
        here.beat()
        first = here.worker(threads=1)
        ids = here.submit("hold_again", {"path": str(pipe)})
        here.holding()
        ids += here.submit("hold_again", {"path": str(pipe)})
        here.worker("w2", threads=1)
        here.holding(2)  # from here on the ticks of beat wait behind the second job
        first.kill()
        freed = here.until(lambda: [one for one in here.ask("jobs") if one["outcomes"]], "a job that is freed")
        assert [(one["id"], one["state"], one["outcomes"]) for one in freed] == [(ids[0], "queued", ["lease_expired"])]
        letting_go(pipe)
        here.holding(3)
        assert [row["state"] for row in here.released(pipe, ids)] == ["succeeded"] * 2


@pytest.mark.slow
@pytest.mark.chaos
def test_a_worker_that_is_killed_under_a_job_costs_an_attempt(valkey_url: str, tmp_path: Path, pipe: Path) -> None:
    with stand(tmp_path, valkey_url) as here:
        here.worker()
        here.beat()
        ids = here.submit("hold", {"path": str(pipe)})
        os.kill(int(here.holding()[0].split()[-1]), signal.SIGKILL)
        here.holding(2)
        (row,) = here.released(pipe, ids)
        assert (row["state"], row["outcomes"]) == ("succeeded", ["worker_lost", "succeeded"])


@pytest.mark.slow
@pytest.mark.chaos
def test_a_job_outlives_its_broker(valkey_url: str, tmp_path: Path, pipe: Path) -> None:
    with stand(tmp_path, valkey_url) as here:
        here.worker()
        here.beat()
        ids = here.submit("hold", {"path": str(pipe)})
        here.holding()
        here.node.stop(signal.SIGKILL)
        successor = RunningBroker(
            {"pool": {"size": 2, "args": {"recent": str(here.recent)}}}, here.node.runtime.parent, 60
        )
        try:
            here.holding(2)
            (row,) = here.released(pipe, ids)
            assert (row["state"], row["outcomes"]) == ("succeeded", ["succeeded"])
            assert row["unreached"] >= 1
        finally:
            successor.stop()


@pytest.mark.slow
@pytest.mark.chaos
def test_a_job_that_keeps_killing_workers_is_quarantined_and_the_pool_lives(valkey_url: str, tmp_path: Path) -> None:
    with stand(tmp_path, valkey_url) as here:
        here.worker()
        here.beat()
        (row,) = here.ended(here.submit("crashes", {}))
        assert (row["state"], row["attempts"], row["outcomes"]) == ("quarantined", 2, ["worker_lost"] * 2)
        assert "Extension modules" in json.dumps(row["evidence"])  # the end of what faulthandler printed
        (well,) = here.ended(here.submit("echo", {"value": 1}))
        assert well["state"] == "succeeded"


@pytest.mark.slow
@pytest.mark.chaos
def test_jobs_survive_a_valkey_that_comes_back_empty(tmp_path: Path) -> None:
    with ExitStack() as held:
        url = held.enter_context(services.valkey())
        here = held.enter_context(stand(tmp_path, url))
        ids = here.submit("once", {"mark": "x"}, 20)
        here.ask("forget")  # what a Valkey that was killed knows afterwards
        here.worker()
        here.beat()
        rows = here.ended(ids)
        assert Counter(row["state"] for row in rows) == {"succeeded": 20}
        assert len(here.lines("once")) == 20


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize(
    "place", ["sqlite+valkey", pytest.param("postgresql+valkey", marks=pytest.mark.postgres)], indirect=True
)
def test_a_frozen_attempt_that_wakes_up_neither_overwrites_the_newer_nor_adds_to_what_it_said(
    place: tuple[str, str], tmp_path: Path, pipe: Path
) -> None:
    with stand(tmp_path, *place) as here:
        frozen = here.worker()
        ids = here.submit("says_around", {"path": str(pipe)})
        here.holding()
        here.until(lambda: here.ask("jobs")[0]["chunks"], "the first chunk")
        frozen.send_signal(signal.SIGSTOP)
        here.worker("w2")
        here.beat()
        here.until(lambda: here.ask("jobs")[0]["attempts"] == 2, "a second attempt")
        here.holding(2)
        (row,) = here.released(pipe, ids)  # of both calls: two results are there to be written
        frozen.send_signal(signal.SIGCONT)
        here.until(lambda: "is dropped" in (tmp_path / "w1").read_text(), "w1")
        (after,) = here.ended(ids)
        assert after == row
        assert (row["attempts"], row["state"], row["outcomes"]) == (2, "succeeded", ["lease_expired", "succeeded"])
        assert row["chunks"] == [[1, "before"], [2, "before"], [2, "after"]]


@pytest.mark.slow
def test_a_running_job_is_cancelled_and_its_command_is_asked_to_stop(valkey_url: str, tmp_path: Path) -> None:
    with stand(tmp_path, valkey_url) as here:
        here.worker()
        ids = here.submit("obedient", {})
        here.until(lambda: here.lines("obedient"), "the command's start")
        here.ask("cancel", ids=ids)
        (row,) = here.ended(ids)
        assert row["state"] == "cancelled"
        here.until(lambda: here.lines("asked to stop"), "the command's end")


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_celery_worker_that_has_to_stop_requeues_its_job(
    valkey_url: str, tmp_path: Path, pipe: Path, pool: str
) -> None:
    with stand(tmp_path, valkey_url) as here:
        first = here.worker(pool=pool, threads=2)
        ids = here.submit("hold_again", {"path": str(pipe)})
        here.holding()
        first.terminate()
        first.wait(PATIENCE)
        (row,) = here.ask("jobs")
        assert (row["state"], row["outcomes"]) == ("queued", ["requeued"])
        here.worker("w2")
        here.beat()
        here.holding(2)
        (row,) = here.released(pipe, ids)
        assert row["outcomes"] == ["requeued", "succeeded"]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("option", ["maxmemory", "min-replicas-to-write"])
@pytest.mark.usefixtures("valkey_url")  # skips where there is none
def test_a_celery_worker_recovers_from_a_transport_that_refused_commands(
    tmp_path: Path, pipe: Path, option: str
) -> None:
    with ExitStack() as held:
        server = held.enter_context(services.restartable_valkey())
        here = held.enter_context(stand(tmp_path, server.url))
        worker = here.worker(threads=2)
        here.beat()
        holding = here.submit("hold", {"path": str(pipe)}, 2)
        here.holding(2)
        ids = here.submit("once", {"mark": "waits"}, 10)
        server.configure(option, 1)
        here.released(pipe, holding)
        refused = ("Connection to broker lost", "command not allowed when used memory")
        log = tmp_path / "w1"
        here.until(lambda: any(text in log.read_text() for text in refused), "a command that is refused")
        ids += here.submit("once", {"mark": "meanwhile"}, 5)
        server.configure(option, 0)
        ids += here.submit("once", {"mark": "after"}, 5)
        rows = here.ended(holding + ids)
        assert {(row["state"], row["attempts"]) for row in rows} == {("succeeded", 1)}
        assert len(here.lines("once")) == 20
        assert len(here.lines("holding")) == 2
        assert worker.poll() is None


@pytest.mark.slow
@pytest.mark.chaos
def test_a_job_that_may_not_be_repeated_is_lost_when_its_celery_worker_is_told_to_stop(
    valkey_url: str, tmp_path: Path, pipe: Path
) -> None:
    with stand(tmp_path, valkey_url) as here:
        first = here.worker()
        ids = here.submit("hold", {"path": str(pipe)}, retry="never")
        here.holding()
        first.terminate()
        first.wait(PATIENCE)
        here.worker("w2")
        here.beat()
        well = here.ended(here.submit("echo", {"value": 1}))
        (row,) = here.ended(ids)
        assert (row["state"], row["attempts"], row["outcomes"]) == ("lost", 1, ["shutting_down"])
        assert row["error"]["code"] == "shutting_down"
        assert len(here.lines("holding")) == 1
        assert well[0]["state"] == "succeeded"


@pytest.mark.slow
@pytest.mark.chaos
def test_a_frozen_broker_costs_no_attempt(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEPIT_TEST_KEEPALIVE", "6")  # longer than a machine stops
    with stand(tmp_path, valkey_url) as here:
        here.worker()
        here.beat()
        here.ended(here.submit("echo", {"value": 1}))  # the Celery worker is connected
        here.node.process.send_signal(signal.SIGSTOP)
        try:
            ids = here.submit("once", {"mark": "x"}, 3, max_attempts=1, retry="lost")

            def given_up() -> bool:
                return all(one["unreached"] >= 2 for one in here.ask("jobs", ids=ids))

            here.until(given_up, "two attempts that the broker did not answer")
        finally:
            here.node.process.send_signal(signal.SIGCONT)
        assert {row["state"] for row in here.ended(ids)} == {"succeeded"}


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.usefixtures("valkey_url")  # skips where there is none
def test_jobs_that_were_submitted_while_the_transport_was_frozen_run_once_afterwards(tmp_path: Path) -> None:
    with ExitStack() as held:
        server = held.enter_context(services.restartable_valkey())
        here = held.enter_context(stand(tmp_path, server.url))
        worker = here.worker()
        here.beat()
        ids = here.submit("once", {"mark": "before"}, 5)
        here.ended(ids)
        server.freeze()
        ids += here.submit("once", {"mark": "meanwhile"}, 5)  # returns, although nothing is sent
        server.thaw()
        ids += here.submit("once", {"mark": "after"}, 5)
        rows = here.ended(ids)
        assert {(row["state"], row["attempts"]) for row in rows} == {("succeeded", 1)}
        assert len(here.lines("once")) == 15
        assert worker.poll() is None


@pytest.mark.slow
def test_an_eager_job_needs_a_broker_and_neither_celery_nor_a_transport(tmp_path: Path) -> None:
    with stand(tmp_path, "redis+socket:///nowhere") as here:
        here.ask("eager")
        ids: list[str] = []
        for _ in range(5):
            ids += here.submit("once", {"mark": "x"}, 3)
            rows = here.ask("jobs", ids=ids)
            ran = [row for row in rows if row["state"] == "succeeded"]
            assert {row["attempts"] for row in ran} <= {1}
            assert len(here.lines("once")) == len(ran)
            # One whose call the broker did not accept within a second stays queued.
            left = [row for row in rows if row["state"] != "succeeded"]
            assert {(row["state"], *row["outcomes"]) for row in left} <= {("queued",)}
            if len(ran) >= 3:
                return
        raise AssertionError(f"the broker took no call: {rows}")
