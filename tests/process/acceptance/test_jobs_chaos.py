"""300 jobs while everything that carries them is killed in turn: each ends once, and what it did is recorded once.

Some wait for others, some are unique, all are bound by a limit of their owner, and a schedule adds more.

Four witnesses that share nothing: the rows, a recent file that the command writes, triggers of PostgreSQL that note
every UPDATE from or to a terminal state and how many jobs an owner runs, and the ids that the callers were given.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import WorkerStatus
from snakepit.pools.client import connect
from snakepit.pools.models.periodic import KEPT_RUNS
from snakepit.pools.models.states import SHOWN_STATES
from tests import services
from tests.brokers import ROOT, assert_nothing_left
from tests.ports import free_port
from tests.process.acceptance.test_jobs import DRIVER, SETTINGS

PATIENCE = 240.0  # the bound of every wait in which nothing moves
RECOVERY = 150.0  # seconds, where a site starts in USUAL: ten times what a recovery takes there
USUAL = 10.0  # seconds in which five processes that import Django start at once, on a machine that does nothing else
START = 400.0  # a bound: five processes that import Django at once on a busy machine took more than 45 s
MIX = {"once": 120, "echo": 80, "sleep": 60, "count": 40}
JOBS = sum(MIX.values())
WINDOW = 60  # jobs that may be unfinished before the next is submitted, so that submitting lasts through the faults
LIMIT = 3  # running jobs of one owner
LIMITS = [{"by": "owner", "running": LIMIT, "per_minute": 100_000}]
OWN = "tags = ''"  # the jobs of the callers; those of the schedule have a tag
TERMINAL = {"succeeded", "failed", "cancelled", "lost", "quarantined"}
AUDIT = """
create table audit (id serial, job uuid, before text, after text, attempts int);
create function note_end() returns trigger language plpgsql as $$ begin
  insert into audit (job, before, after, attempts) values (new.id, old.state, new.state, new.attempts);
  return new;
end $$;
create trigger note_end after update on snakepit_job for each row
  when (old.state not in ('blocked', 'queued', 'running') or new.state not in ('blocked', 'queued', 'running'))
  execute function note_end();
create table running (owner text, jobs int);
create function note_running() returns trigger language plpgsql as $$ begin
  if exists (select from changed where state = 'running') then
    insert into running select owner, count(*) from snakepit_job where state = 'running' group by owner;
  end if;
  return null;
end $$;
create trigger note_running after update on snakepit_job referencing new table as changed for each statement
  execute function note_running();
"""


class Service:
    """A process that comes back when it ends, as under a service manager."""

    def __init__(self, name: str, home: Path, environment: dict[str, str], *words: str) -> None:
        self.name = name
        self._log = home / f"{name}.log"
        self._environment = environment
        self._words = words
        self._stopped = threading.Event()
        self.ends = 0
        self.codes: list[int] = []
        self.process = self._start()
        self._restarter = threading.Thread(target=self._keep, name=f"keep-{name}")
        self._restarter.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *self._words], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    def _keep(self) -> None:
        while True:
            self.process.wait()
            if self._stopped.wait(0.1):  # the pause of a service manager between two starts
                return
            self.codes.append(self.process.returncode)
            self.ends += 1
            self.process = self._start()

    def stop(self) -> None:
        self._stopped.set()
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._restarter.join(PATIENCE)

    def tail(self, size: int = 3000) -> str:
        return f"--- {self.name}\n{self._log.read_text()[-size:]}"


class Site:
    """Database, transport, broker, two Celery workers, beat and web."""

    def __init__(self, home: Path, database: services.Postgres, transport: services.Valkey, seed: int) -> None:
        self.home = home
        self.database = database
        self.transport = transport
        self.random = random.Random(seed)
        self.recent = home / "recent"
        self.mark = {"SNAKEPIT_STATE_DIR": str(home / "state")}
        self.environment = {
            **os.environ,
            **self.mark,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "SNAKEPIT_RUNTIME_DIR": str(home / "run"),
            "SNAKEPIT_CELERY_URL": transport.url,
            "SNAKEPIT_DATABASE_URL": database.url,
            "SNAKEPIT_TEST_RECENT": str(self.recent),
            "SNAKEPIT_TEST_LIMITS": json.dumps(LIMITS),
            "SNAKEPIT_TEST_LEASE": "10",  # the recovery below is counted with it
            "PYTHONPATH": str(ROOT),
        }
        self.port = free_port()
        self.services: dict[str, Service] = {}
        self.instances: set[str] = set()
        self.replies: Counter[int | str] = Counter()
        self.given: dict[str, str] = {}  # mark -> id that the caller was told
        self.hits: list[float] = []  # the moments of the faults
        self._ended = 0
        self.slow = 1.0  # how much slower than usual the machine is
        # Both are kept from question to question: made anew each time, they would be the most of this test's load.
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._asking = threading.Lock()
        self._client = connect(str(home / "run" / "broker.sock"))
        self.driver = subprocess.Popen(
            [sys.executable, str(DRIVER)], cwd=ROOT, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def start(self) -> None:
        self.ask("migrate")
        self.key = self.ask("key")
        self.rows(AUDIT)
        self.ask("schedule", name="always", command="echo", arguments={"value": "periodic"}, interval=2)
        celery, began = ("celery", "-A", "snakepit.site"), time.monotonic()
        worker = (*celery, "worker", "--pool=threads", "--concurrency=4", "--without-mingle", "--loglevel=INFO", "-n")
        for name, words in {
            "broker": ("snakepit.pools.cli", "broker"),
            "w1": (*worker, "w1@chaos"),
            "w2": (*worker, "w2@chaos"),
            "beat": (*celery, "beat", "--pidfile=", "--schedule", str(self.home / "schedule")),
            "web": ("uvicorn", "snakepit.site.asgi:application", "--port", str(self.port), "--no-access-log"),
        }.items():
            self.services[name] = Service(name, self.home, self.environment, *words)
        self.until(self.workers, "the pool's workers", patience=START)
        for name in ("w1", "w2"):
            self.until(
                lambda name=name: "ready." in self.services[name].tail(), f"the Celery worker {name}", patience=START
            )
        self.slow = max(1.0, (time.monotonic() - began) / USUAL)

    def stop(self) -> None:
        self._client.close()
        for service in self.services.values():
            service.stop()
        self.driver.communicate(timeout=START)
        if self._connection:
            self._connection.close()

    # Questions

    def ask(self, what: str, **facts: Any) -> Any:
        assert self.driver.stdin
        assert self.driver.stdout
        self.driver.stdin.write(json.dumps({"what": what, **facts}) + "\n")
        self.driver.stdin.flush()
        answer = json.loads(self.driver.stdout.readline())
        if "error" in answer:
            raise ConnectionError(answer["error"])
        return answer["value"]

    def rows(self, query: str) -> list[dict[str, Any]]:
        with self._asking:
            try:
                return self._ask_rows(query)
            except psycopg.OperationalError:  # the connection is that of the server before a restart
                return self._ask_rows(query)

    def _ask_rows(self, query: str) -> list[dict[str, Any]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.database.url, row_factory=dict_row, autocommit=True)
        cursor = self._connection.execute(query)
        return cursor.fetchall() if cursor.description else []

    def one(self, query: str) -> int:
        (row,) = self.rows(f"select ({query}) as n")
        return int(row["n"])

    def finished(self) -> int:
        return self.one(f"select count(*) from snakepit_job where finished_at is not null and {OWN}")

    def ended(self) -> int:
        """The same for who asks while the database may be away: then the last answer."""
        with suppress(psycopg.OperationalError):
            self._ended = self.finished()
        return self._ended

    def workers(self) -> list[WorkerStatus]:
        """The pool's workers, when the broker can tell; and which broker tells is noted."""
        try:
            status = self._client.status("pool")
            self.instances.add(json.loads((self.home / "run" / "instance").read_text())["instance"])
        except (BrokerError, OSError):
            return []
        return [worker for worker in status.workers if worker.pid and worker.state == "ready"]

    def until(
        self,
        question: Callable[[], Any],
        what: str,
        moving: Callable[[], Any] | None = None,
        patience: float = PATIENCE,
    ) -> Any:
        """Ask again and again, within bounds: rows of other processes give no other sign.

        What takes long because there is much to do, and the machine slow, is not recovery: as long as `moving` has new
        answers, the wait begins anew.
        """
        end, seen = time.monotonic() + patience, None
        while not (answer := question()):
            if moving and (now := moving()) != seen:
                end, seen = time.monotonic() + patience, now
            if time.monotonic() > end:
                logs = "\n".join(service.tail() for service in self.services.values())
                open_ = self.rows("select * from snakepit_job where finished_at is null limit 5")
                raise AssertionError(f"waited in vain for {what}: {open_}\n{logs}")
            time.sleep(0.05)
        return answer

    # Callers

    def jobs(self, marks: range) -> list[tuple[str, str, dict[str, Any]]]:
        """(mark, command, arguments), the commands well mixed."""
        commands = [name for name, count in MIX.items() for _ in range(count)]
        random.Random(0).shuffle(commands)
        arguments: dict[str, Callable[[str], dict[str, Any]]] = {
            "once": lambda mark: {"mark": mark},
            "echo": lambda mark: {"value": mark},
            "sleep": lambda _: {"seconds": 0.4},
            "count": lambda _: {"to": 12},
        }
        return [(f"m{n}", commands[n], arguments[commands[n]](f"m{n}")) for n in marks]

    def wait_for_room(self, client_side: int) -> None:
        def room() -> bool:
            try:
                return len(self.given) - self.finished() < WINDOW
            except psycopg.OperationalError:
                return True  # the database is away: just then a submission is worth trying

        self.until(room, f"room for {client_side}", self.ended)

    def submit_over_rest(self, marks: range) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE, headers=headers) as client:
            for number, (mark, command, arguments) in enumerate(self.jobs(marks)):
                self.wait_for_room(number)
                body = {"pool": "pool", "command": command, "arguments": arguments, "backoff": 0.2}
                body |= self.after(marks, number)
                self.given[mark] = self.post(client, mark, body)
                if number % 5 == 0:  # a caller who heard the answer and asks again all the same
                    assert self.post(client, mark, body) == self.given[mark]

    def after(self, marks: range, number: int) -> dict[str, Any]:
        """The options of every fourth job: it waits for the three before it, however they end."""
        if number % 4 != 3:
            return {}
        return {"depends_on": [self.given[f"m{marks[number - back]}"] for back in (3, 2, 1)], "on_failure": "run"}

    def post(self, client: httpx.Client, mark: str, body: dict[str, Any]) -> str:
        def attempt() -> str | None:
            try:
                reply = client.post("/api/jobs", json=body, headers={"Idempotency-Key": mark})
            except httpx.TransportError as error:
                self.replies[type(error).__name__] += 1
                return None
            self.replies[reply.status_code] += 1
            assert reply.status_code in (200, 201) or reply.status_code >= 500, reply.text
            return str(reply.json()["id"]) if reply.status_code < 300 else None

        return str(self.until(attempt, f"an answer for {mark}", self.ended))

    def submit_in_python(self, marks: range) -> None:
        for number, (mark, command, arguments) in enumerate(self.jobs(marks)):
            self.wait_for_room(number)

            options = {"backoff": 0.2, "owner": ("", "bob")[number % 2], **self.after(marks, number)}
            # A unique job has no key: what it is finds it.
            unique = command == "echo" and number % 3 == 0
            options |= {"unique_states": SHOWN_STATES} if unique else {"idempotency_key": mark}

            def attempt(command: str = command, arguments: Any = arguments, options: Any = options) -> str | None:
                try:
                    found = self.ask("submit", command=command, arguments=arguments, count=1, options=options)
                except ConnectionError as error:
                    if "OperationalError" in str(error) or "InterfaceError" in str(error):
                        return None  # the database is away
                    raise
                return str(found[0])

            self.given[mark] = str(self.until(attempt, f"an id for {mark}", self.ended))
            if unique:
                assert self.until(attempt, f"the same id for {mark}", self.ended) == self.given[mark]

    # Faults

    def hit(self) -> None:
        self.hits.append(time.time())  # PostgreSQL's clock is this machine's, too

    def kill(self, name: str) -> None:
        service = self.services[name]
        before = service.ends
        self.hit()
        service.process.kill()
        self.until(lambda: service.ends > before, f"the successor of {name}")

    def kill_pool_worker(self) -> None:
        def killed() -> bool:
            busy = [one for one in self.workers() if "'sleep'" in str(one.calls)]
            if not busy:
                return False
            self.hit()
            with suppress(ProcessLookupError):  # replaced meanwhile
                os.kill(self.random.choice(busy).pid, 9)
                return True
            return False

        self.until(killed, "a busy worker")

    def kill_celery_worker(self) -> None:
        """The one that holds a job."""
        query = "select claimed_by from snakepit_job where state = 'running'"
        held = self.until(lambda: self.rows(query), "a running job")
        pids = {row["claimed_by"].split(":")[1] for row in held}
        names = [name for name in ("w1", "w2") if str(self.services[name].process.pid) in pids]
        self.kill(self.random.choice(names or ["w1", "w2"]))

    def kill_broker(self) -> None:
        before = self.until(lambda: {one.pid for one in self.workers()}, "the pool's workers")
        self.kill("broker")
        self.until(lambda: {one.pid for one in self.workers()} - before, "workers of the new broker")

    def restart_database(self) -> None:
        self.hit()
        self.database.restart()

    def empty_transport(self) -> None:
        self.hit()
        self.transport.kill()
        self.transport.start_empty()


@contextmanager
def site(seed: int) -> Iterator[Site]:
    with ExitStack() as held:
        database = held.enter_context(services.restartable_postgres())
        transport = held.enter_context(services.restartable_valkey())
        home = held.enter_context(tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp"))
        made = Site(Path(home), database, transport, seed)
        try:
            made.start()
            yield made
        finally:
            made.stop()
        for instance in made.instances:
            assert_nothing_left(instance)
        assert processes_with(made.mark) == []


def processes_with(mark: dict[str, str]) -> list[str]:
    """Processes whose environment carries a variable of this test."""
    ((name, value),) = mark.items()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{name}={value}".encode() in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


class Submitter(threading.Thread):
    """A caller with a thread of its own, whose failure is the test's."""

    def __init__(self, work: Callable[[range], None], marks: range) -> None:
        super().__init__()
        self._work, self._marks = work, marks
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._work(self._marks)
        except BaseException as error:
            self.failure = error

    def done(self) -> bool:
        if self.failure:
            raise self.failure
        return not self.is_alive()


def check_rows(here: Site) -> None:
    """Every job is there once, has ended, and its attempts tell one story."""
    jobs = {str(row["id"]): row for row in here.rows("select * from snakepit_job")}
    assert sorted(here.given.values()) == sorted(key for key, job in jobs.items() if not job["tags"])
    assert len(here.given) == JOBS
    tries: dict[str, list[dict[str, Any]]] = {key: [] for key in jobs}
    for row in here.rows("select * from snakepit_jobattempt order by number"):
        tries[str(row["job_id"])].append(row)
    print("outcomes", Counter(one["outcome"] for found in tries.values() for one in found))
    for key, job in jobs.items():
        outcomes = [one["outcome"] for one in tries[key]]
        story = f"{job} {outcomes}"
        assert job["state"] in TERMINAL, story
        assert [one["number"] for one in tries[key]] == list(range(1, job["attempts"] + 1)), story
        assert all(one["outcome"] and one["finished_at"] for one in tries[key]), story
        assert outcomes.count("succeeded") == (job["state"] == "succeeded"), story
        assert job["failures"] + (job["state"] == "succeeded") <= 3, story
        if job["state"] == "succeeded":
            assert outcomes[-1] == "succeeded", story
        elif job["state"] == "quarantined":
            assert outcomes.count("worker_lost") == 2, story
        else:
            assert (job["state"], job["failures"]) == ("lost", 3), story


def check_recovery(here: Site) -> None:
    """What a fault met under way ended in time, counted from the last fault that could meet it."""
    took: list[tuple[float, str]] = []
    for row in here.rows(
        "select j.id, extract(epoch from j.finished_at)::float as ended,"
        " (select extract(epoch from min(started_at))::float from snakepit_jobattempt where job_id = j.id) as began"
        " from snakepit_job j"
    ):
        if met := [hit for hit in here.hits if row["began"] <= hit <= row["ended"]]:
            took.append((row["ended"] - max(met), str(row["id"])))
    slowest, job = max(took)
    print(f"{len(took)} jobs were met under way; the slowest ended {slowest:.1f} s after the fault")
    assert slowest <= here.slow * RECOVERY, job


def check_ends(here: Site) -> None:
    """PostgreSQL saw one UPDATE to a terminal state a job, from running, and none afterwards."""
    ends = here.rows("select a.*, j.state, j.attempts as last from audit a join snakepit_job j on j.id = a.job")
    assert Counter(Counter(row["job"] for row in ends).values()) == {1: here.one("select count(*) from snakepit_job")}
    for row in ends:
        assert (row["before"], row["after"], row["attempts"]) == ("running", row["state"], row["last"]), row


def check_recent(here: Site) -> None:
    """What ran is what the rows tell: one run an attempt at most, and the result is that of one of them."""
    runs: dict[str, list[int]] = {}
    for line in here.recent.read_text().splitlines():
        if line.startswith("once "):
            _, mark, pid = line.split()
            runs.setdefault(mark, []).append(int(pid))
    rows = here.rows("select * from snakepit_job where command = 'once'")
    assert len(rows) == MIX["once"]
    for row in rows:
        pids = runs.pop(row["idempotency_key"], [])
        assert len(pids) <= row["attempts"], f"{row} ran {pids}"
        if row["state"] == "succeeded":
            assert row["result"] in pids, f"{row} ran {pids}"
    assert runs == {}
    values = here.rows("select result, arguments from snakepit_job where command = 'echo' and state = 'succeeded'")
    assert all(row["result"] == row["arguments"]["value"] for row in values)


def check_entries(here: Site) -> None:
    """The chunks of the attempt that succeeded are there, in order and whole."""
    chunks: dict[str, list[Any]] = {}
    for row in here.rows(
        "select e.job_id, e.data from snakepit_jobentry e join snakepit_job j on j.id = e.job_id"
        " and j.attempts = e.attempt where e.kind = 'chunk' and j.state = 'succeeded' order by e.seq"
    ):
        chunks.setdefault(str(row["job_id"]), []).append(row["data"])
    streams = here.one("select count(*) from snakepit_job where command = 'count' and state = 'succeeded'")
    assert list(chunks.values()) == [list(range(12))] * streams


def check_order(here: Site) -> None:
    """No job began before the end of one that it waits for, and none is left that waits."""
    edges = here.rows(
        "select p.finished_at as ended, (select min(started_at) from snakepit_jobattempt where job_id = e.job_id)"
        " as began from snakepit_jobedge e join snakepit_job p on p.id = e.needs_id"
    )
    assert len(edges) == 3 * 2 * (JOBS // 2 // 4)
    assert all(row["ended"] <= row["began"] for row in edges)


def check_limits(here: Site) -> None:
    """At no claim an owner had more running jobs than its limit; what was counted is free afterwards."""
    most = {row["owner"]: row["most"] for row in here.rows("select owner, max(jobs) as most from running group by 1")}
    print("most running jobs by owner", most)
    assert most.keys() == {"", "bob", "chaos"}
    assert max(most.values()) <= LIMIT
    assert here.one("select count(*) from snakepit_job where state = 'running'") == 0
    starts = here.one("select coalesce(sum(count), 0) from snakepit_jobstart")
    assert 0 < starts <= here.one("select count(*) from snakepit_jobattempt")
    here.until(lambda: all(not worker.calls for worker in here.workers()), "free slots")


def check_schedule(here: Site) -> None:
    """Each time of the schedule has one job, whatever was killed."""
    runs = here.rows("select job from snakepit_periodicrun where job is not null")
    jobs = here.rows("select id from snakepit_job where tags = ',periodic:always,'")
    print(f"{len(jobs)} jobs of the schedule")
    assert len(runs) == len({row["job"] for row in runs}) > 0
    assert {row["job"] for row in runs} <= {row["id"] for row in jobs}
    times = here.one("select count(distinct nominal) from snakepit_periodicrun")
    assert times == here.one("select count(*) from snakepit_periodicrun")
    assert len(jobs) == len(runs) or len(runs) >= KEPT_RUNS


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.postgres
@pytest.mark.timeout(1800)  # against hanging: each wait has a bound of its own, and says what it waited for
def test_300_jobs_end_once_while_all_that_carries_them_is_killed_in_turn(postgres_url: str, valkey_url: str) -> None:
    # The fixtures decide about skipping; the servers that are killed here are this test's own.
    seed = int(os.environ.get("SNAKEPIT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SNAKEPIT_TEST_SEED={seed}")
    with site(seed) as here:
        faults: list[tuple[str, Callable[[], None]]] = [
            ("pool worker", here.kill_pool_worker),
            ("broker", here.kill_broker),
            ("celery worker", here.kill_celery_worker),
            ("web", lambda: here.kill("web")),
            ("valkey", here.empty_transport),
            ("postgresql", here.restart_database),
            ("pool worker again", here.kill_pool_worker),
        ]
        here.random.shuffle(faults)
        callers = [
            Submitter(here.submit_over_rest, range(0, JOBS, 2)),
            Submitter(here.submit_in_python, range(1, JOBS, 2)),
        ]
        began = time.monotonic()
        for caller in callers:
            caller.start()
        try:
            for number, (name, fault) in enumerate(faults, 1):
                due = number * 30
                # A caller that has failed submits no more: `done` raises its error here.
                here.until(
                    lambda due=due: [caller.done() for caller in callers] and here.finished() >= due,
                    f"{due} ended jobs",
                    here.finished,
                )
                told = f"{time.monotonic() - began:5.1f} s {name}, {here.finished()} jobs had ended"
                fault()
                print(f"{told}; done at {time.monotonic() - began:5.1f} s")
            last = time.monotonic()
            here.until(lambda: all(caller.done() for caller in callers), "the callers", here.finished)
            here.until(lambda: here.finished() == JOBS, "the end of all jobs", here.finished)
            here.rows("update snakepit_periodicjob set enabled = false")
            left = "select count(*) from snakepit_job where finished_at is null"
            here.until(lambda: here.one(left) == 0, "the end of the jobs of the schedule", here.finished)
            print(f"all had ended {time.monotonic() - last:.1f} s after the last fault; replies {here.replies}")
        finally:
            for caller in callers:
                caller.join(PATIENCE)
        assert {here.services[name].ends for name in ("broker", "web")} == {1}
        celery = [here.services[name] for name in ("w1", "w2")]
        # One was killed; none ended by itself, whatever it lost.
        codes = [code for one in celery for code in one.codes]
        assert codes == [-9], "\n".join(one.tail(20_000) for one in celery)
        check_rows(here)
        check_recovery(here)
        check_ends(here)
        check_recent(here)
        check_entries(here)
        check_order(here)
        check_limits(here)
        check_schedule(here)
