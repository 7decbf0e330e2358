"""The run: callers and jobs for a while, and the faults in turn."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cluster import servers
from benchmarks.cluster.caller import DEADLINES, Call, begun_of, over_of
from benchmarks.cluster.network import HOSTS, PATIENCE
from benchmarks.cluster.site import GPU, Site
from benchmarks.cluster.verdict import JobFacts, Moments, Names, judge
from benchmarks.faults.fault import Findings

PROCESSES = 3  # of callers
JOBS_END_WITHIN = 90.0  # seconds after the last fault
JOB_PAUSE = 0.3
NAMES = Names(tuple(host.name for host in HOSTS), HOSTS[0].name, HOSTS[1].name, HOSTS[2].name, GPU.name)
ENDS = ("succeeded", "failed", "cancelled", "lost", "quarantined")
# Counts each change of a job into or out of an end.
AUDIT = """
create table audit (job uuid, before text, after text);
create function note_end() returns trigger language plpgsql as $$ begin
  insert into audit values (new.id, old.state, new.state);
  return new;
end $$;
create trigger note_end after update on snakepit_job for each row
  when (new.state in ('succeeded', 'failed', 'cancelled', 'lost', 'quarantined')
        or old.state in ('succeeded', 'failed', 'cancelled', 'lost', 'quarantined'))
  execute function note_end();
"""


class Submitter:
    """Submits jobs to both pools until it is stopped."""

    def __init__(self) -> None:
        self.accepted: dict[str, int] = {}
        self.refused: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE)

    def _work(self) -> None:
        from snakepit.pools import jobs
        from snakepit.pools.broker.errors import BrokerError

        number = 0
        while not self._over.wait(JOB_PAUSE):
            number += 1
            pool = "gpu" if number % 4 == 0 else "work"
            try:
                job = jobs.submit(pool, "double", number=number, seconds=random.uniform(0.0, 1.0))
                self.accepted[str(job.id)] = number
            except BrokerError as error:
                self.refused[error.code] += 1
            except Exception as error:  # the find: a submission may expect typed errors alone
                self.refused[f"untyped: {type(error).__name__}: {error}"[:200]] += 1


def run(site: Site, callers: int, seconds: float) -> Findings:
    """Make all faults, and judge."""
    import psycopg

    with psycopg.connect(servers.DATABASE_URL, autocommit=True) as connection:
        connection.execute(AUDIT)
    files = [site.home / f"calls-{number}" for number in range(PROCESSES)]
    most = str(seconds + 4 * PATIENCE)
    processes = [site.call_from((str(callers // PROCESSES), most, str(file))) for file in files]
    await_callers(files)
    submitter = Submitter()
    moments = make_faults(site, seconds)
    for file in files:
        over_of(str(file)).touch()
    for process in processes:
        process.wait(3 * max(DEADLINES.values()) + PATIENCE)
    submitter.stop()
    calls = [Call(*json.loads(line)) for file in files for line in file.read_text().splitlines()]
    jobs = job_facts(submitter)
    return judge(calls, jobs, replace(moments, ready=ready_after(NAMES.killed, moments.killed[1])), NAMES)


def await_callers(files: Iterable[Path]) -> None:
    """Wait until the callers of each process call: the faults begin then, however slowly the programs start."""
    end = time.monotonic() + 4 * PATIENCE
    while absent := [file.name for file in files if not begun_of(str(file)).exists()]:
        if time.monotonic() > end:
            raise TimeoutError(f"no call ended in {', '.join(absent)}; see programs.log")
        time.sleep(0.1)


def ready_after(node: str, moment: float) -> float:
    """When a broker that was started had its first worker, by its own event; infinite: it had none."""
    from snakepit.pools.models import Event

    since = datetime.fromtimestamp(moment, UTC)
    found = Event.objects.filter(node=node, kind="worker.started", at__gte=since).order_by("at").first()
    return found.at.timestamp() if found else float("inf")


def make_faults(site: Site, seconds: float) -> Moments:
    """A broker is killed, a host loses its link, a node is drained: in turn, and each comes back."""
    from snakepit import connect
    from snakepit.pools.operations import node_drain
    from snakepit.pools.operations.orders import Order

    begin = time.time()

    def at(share: float) -> float:
        time.sleep(max(0.0, begin + share * seconds - time.time()))
        return time.time()

    quiet = (at(0.05), at(0.2))
    killed, lost, drained = HOSTS
    from_kill = time.time()
    site.kill_broker(killed)
    until_kill = at(0.32)
    site.start_broker(killed)
    from_lost = at(0.42)
    site.network.lose_packets(lost)
    until_lost = at(0.62)
    site.network.mend(lost)
    order, client = Order("benchmarks.cluster", "a fault", surface="shell"), connect()
    from_drain = at(0.72)
    node_drain.drain(client, drained.name, order)
    until_drain = at(0.82)
    node_drain.resume(client, drained.name, order)
    killed_at, lost_at, drained_at = (from_kill, until_kill), (from_lost, until_lost), (from_drain, until_drain)
    return Moments(quiet, killed_at, lost_at, drained_at, at(1.0))


def job_facts(submitter: Submitter) -> JobFacts:
    """Wait until the jobs have ended, and read them."""
    import psycopg

    from snakepit.pools.models import Job

    end = time.monotonic() + JOBS_END_WITHIN
    while Job.objects.exclude(state__in=ENDS).exists() and time.monotonic() < end:
        time.sleep(0.5)
    rows = {str(job.pk): job for job in Job.objects.all()}
    facts = JobFacts(len(submitter.accepted), submitter.refused)
    ends: Counter[str] = Counter()
    with psycopg.connect(servers.DATABASE_URL) as connection:
        for job, before, _ in connection.execute("select job::text, before, after from audit"):
            ends[job] += 1 + (before in ENDS)  # an end that was left again is no end
    wrong = 0
    for ident, number in submitter.accepted.items():
        job = rows.get(ident)
        facts.states[job.state if job else "gone"] += 1
        facts.ends[ends[ident]] += 1
        if job is not None and job.state == "succeeded":
            value, node = job.result or (None, "")
            wrong += value != 2 * number
            if job.pool == "gpu":
                facts.placed[node] += 1
    return JobFacts(facts.accepted, facts.refused, facts.states, facts.ends, facts.placed, wrong)
