"""The doctor's checks of the site and its services: each is a pure function from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from snakepit.pools.broker.status import NOT_READ
from snakepit.pools.diagnostics.facts import SystemFacts, Unknown
from snakepit.pools.diagnostics.finding import Finding, FindingStatus
from snakepit.pools.greenlets import NAMES as GREENLETS

Check = Callable[[SystemFacts], Iterator[Finding]]

SHORT_KEY = 50  # characters of a secret key; Django's own check asks for as many
LITTLE_VARIETY = 5  # different characters
KEY_WARNING = 14.0  # days before an API key expires
MISSED_SWEEPS = 3
DRIFT = (1.0, 10.0)  # seconds between two clocks: a warning, a problem
SHORT_TIMEOUT = 5.0  # seconds that a SQLite writer waits for the lock
CONNECTIONS_USED = 0.8  # share of PostgreSQL's connections
START = "Start it: snakepit broker (or: python manage.py snakepit broker)."
FROZEN = "Look at its process: ps -o stat= -p PID. If that is T, it is stopped: kill -CONT PID. Else look at the load."
FRESH = 10.0  # seconds in which a living broker is seen
SILENT = 60.0  # seconds after which a broker without a clean shutdown counts as lost
OVERDUE = 60.0  # seconds that a job may be due and unclaimed


def ok(check: str, evidence: str, pool: str = "") -> Finding:
    return Finding(check, FindingStatus.OK, evidence, "", pool)


def warning(check: str, evidence: str, fix: str, pool: str = "") -> Finding:
    return Finding(check, FindingStatus.WARNING, evidence, fix, pool)


def problem(check: str, evidence: str, fix: str, pool: str = "") -> Finding:
    return Finding(check, FindingStatus.PROBLEM, evidence, fix, pool)


def skipped(check: str, reason: str, pool: str = "") -> Finding:
    return Finding(check, FindingStatus.SKIPPED, reason, "", pool)


def settings(facts: SystemFacts) -> Iterator[Finding]:
    """The dict SNAKEPIT can be read."""
    for text in facts.settings.problems:
        yield problem(
            "settings", text, "Correct the settings; docs/reference/settings.md has every key with its range."
        )
    if not facts.settings.problems:
        yield ok("settings", "SNAKEPIT is valid")


def production(facts: SystemFacts) -> Iterator[Finding]:
    """DEBUG, SECRET_KEY and ALLOWED_HOSTS are fit for production."""
    known = facts.settings
    if known.debug:
        yield warning(
            "production",
            "DEBUG is on: error pages show settings and code to every visitor",
            "In production: DEBUG = False (SNAKEPIT_DEBUG=0 with this project's own site).",
        )
        return
    weak = known.secret_key_length < SHORT_KEY or known.secret_key_variety < LITTLE_VARIETY
    if weak or known.secret_key_insecure:
        yield problem(
            "production",
            f"SECRET_KEY has {known.secret_key_length} characters, {known.secret_key_variety} different ones"
            + (", and was made for development" if known.secret_key_insecure else ""),
            'Make one: python -c "import secrets; print(secrets.token_urlsafe(50))"',
        )
    if not known.allowed_hosts:
        yield problem("production", "ALLOWED_HOSTS is empty: every request is refused", "List the site's hosts.")
    elif "*" in known.allowed_hosts:
        yield warning("production", "ALLOWED_HOSTS is *: any Host header is accepted", "List the site's hosts.")
    elif not weak and not known.secret_key_insecure:
        yield ok("production", f"DEBUG is off, hosts are {', '.join(known.allowed_hosts)}")


def broker(facts: SystemFacts) -> Iterator[Finding]:
    """The broker answers, runs this release, and reports no problem."""
    known = facts.broker
    if isinstance(known, Unknown):
        yield problem("broker", known.reason, FROZEN if known.silent else START)
        return
    node = known.node
    for text in node.problems:
        fix = "Correct the pool's definition, in the settings or in the admin."
        if text.startswith(NOT_READ):
            fix = "Start the database: the broker reads the definitions again by itself."
        yield problem("broker", text, fix)
    if node.drain_since:
        by, why = node.drain_actor or "an operator", node.drain_reason or "no reason given"
        yield warning("broker", f"it is drained by {by} ({why}) and takes no calls", "snakepit resume --node")
    elif node.draining:
        yield warning("broker", "it is shutting down and takes no calls", "Wait until it stops, then start it again.")
    if node.version not in ("", facts.settings.release):
        yield warning(
            "broker",
            f"it runs release {node.version}, and {facts.settings.release} is installed",
            "Restart the broker: until then, workers of the old release keep running.",
        )
    if node.loop_lag > 0.25:
        yield warning(
            "broker",
            f"its event loop is {node.loop_lag * 1000:.0f} ms late",
            "The machine is overloaded, or something blocks the broker: look at its CPU time.",
        )
    if not node.problems:
        yield ok("broker", f"{node.name} answers at {facts.address}, pid {node.pid}, up {node.uptime:.0f} s")


def duplicates(facts: SystemFacts) -> Iterator[Finding]:
    """No second broker uses this node's name."""
    if isinstance(facts.broker, Unknown) or isinstance(facts.database, Unknown):
        yield skipped("duplicate brokers", "needs the broker and the database")
        return
    node = facts.broker.node
    for row in facts.database.nodes:
        live = not row.stopped and row.silent < FRESH
        if row.name == node.name and live and (row.address != node.address or row.pid != node.pid):
            yield problem(
                "duplicate brokers",
                f"two brokers call themselves {row.name}: pid {node.pid} at {node.address}, "
                f"and pid {row.pid} at {row.address}, seen {row.silent:.0f} s ago",
                'Stop one, or give each a SNAKEPIT["NODE_NAME"] of its own.',
            )
            return
    for row in facts.database.nodes:
        if row.stopped or row.silent <= SILENT:
            continue
        if row.name == node.name and row.pid == node.pid:
            yield warning(
                "duplicate brokers",
                f"the broker of {row.name} answers, but has written nothing to the database for {row.silent:.0f} s",
                "See `disk` and `database`: it keeps its events in memory until it can write them.",
            )
        else:
            yield warning(
                "duplicate brokers",
                f"the broker of {row.name} stopped reporting {row.silent:.0f} s ago without a clean shutdown",
                "Start it again, or delete its row in the admin if the node will not return.",
            )
    yield ok("duplicate brokers", f"one broker uses the name {node.name}")


def beat(facts: SystemFacts) -> Iterator[Finding]:
    """Celery beat sends the sweeps that judge age, memory and health."""
    if isinstance(facts.broker, Unknown):
        yield skipped("beat", "the broker does not answer, so its sweeps are not known")
        return
    node = facts.broker.node
    interval = facts.settings.sweep_interval
    start = f"Start one: {_celery(facts)} beat, and a Celery worker that runs its ticks."
    if node.clock == "beat":
        yield ok("beat", f"sweeps come, every {interval:g} s")
    elif node.clock == "waiting" and node.uptime < MISSED_SWEEPS * interval:
        yield skipped("beat", f"no sweep yet, and the broker is only {node.uptime:.0f} s old")
    elif isinstance(facts.transport, Unknown):
        yield ok("beat", "no Celery app is known: the broker sweeps by itself. Only jobs need one.")
    elif not isinstance(facts.database, Unknown) and not facts.database.has_jobs:
        yield ok("beat", "no sweep comes: the broker sweeps by itself. No job was ever submitted; jobs need beat.")
    else:
        yield problem("beat", f"{node.clock}: no sweep comes, the broker sweeps by itself", start)


def _celery(facts: SystemFacts) -> str:
    """The start of a command line of the project's Celery app."""
    known = "" if isinstance(facts.celery, Unknown) else facts.celery.argument
    return f"celery -A {known or 'your_project'}"


def beat_entries(facts: SystemFacts) -> Iterator[Finding]:
    """Beat runs each task of ours."""
    known = facts.celery
    if isinstance(known, Unknown):
        yield skipped("beat entries", known.reason)
    elif known.missing:
        evidence = f"the schedule of the Celery app {known.app} lacks {', '.join(known.missing)}"
        yield problem("beat entries", evidence, f"Add to the module of the app: {known.line}")
    else:
        yield ok("beat entries", f"all entries of Snakepit are scheduled in {known.app}")


def transport(facts: SystemFacts) -> Iterator[Finding]:
    """The message transport of Celery answers and keeps its messages."""
    known = facts.transport
    if isinstance(known, Unknown):
        yield skipped("message transport", known.reason)
        return
    if known.error:
        yield problem(
            "message transport",
            f"{known.url} cannot be reached: {known.error}",
            "Start the server, or correct the URL (SNAKEPIT_REDIS_URL, SNAKEPIT_CELERY_URL).",
        )
        return
    if known.scheme == "filesystem":
        yield warning(
            "message transport",
            f"{known.url}: messages are files; one is lost when its Celery worker is killed",
            "Use Redis or Valkey: set SNAKEPIT_REDIS_URL.",
        )
    if known.evicts:
        yield warning(
            "message transport",
            f"{known.url} evicts keys when its memory is full (maxmemory-policy {known.evicts})",
            "Set maxmemory-policy noeviction in its configuration.",
        )
    if known.persistent is False:
        yield warning(
            "message transport",
            f"{known.url} loses its data at a restart; jobs are sent again from their rows, some seconds late",
            "Turn appendonly on.",
        )
    if known.scheme != "filesystem" and not known.evicts:
        yield ok("message transport", f"{known.url} answers")


def consumers(facts: SystemFacts) -> Iterator[Finding]:
    """A Celery worker reads the job queue of each pool."""
    known = facts.transport
    if isinstance(known, Unknown) or known.error:
        yield skipped("consumers", "the message transport does not answer")
        return
    if isinstance(known.workers, Unknown):
        yield skipped("consumers", known.workers.reason)
        return
    if not known.workers:
        yield problem(
            "consumers",
            "no Celery worker answers a ping: jobs wait, and beat's tasks do not run",
            f"Start one: {_celery(facts)} worker --pool threads",
        )
        return
    read = frozenset[str]().union(*known.workers.values())
    names = ", ".join(sorted(known.workers))
    pools = () if isinstance(facts.pools, Unknown) else facts.pools
    for pool in pools:
        if pool.enabled and pool.queue not in read:
            yield problem(
                "consumers",
                f"no Celery worker reads {pool.queue}; {names} answered",
                f"Start a worker without -Q, or with -Q {pool.queue}.",
                pool.name,
            )
    if all(pool.queue in read for pool in pools if pool.enabled):
        yield ok("consumers", f"{names} read {', '.join(sorted(read)) or 'no queue'}")


def consumer_pools(facts: SystemFacts) -> Iterator[Finding]:
    """Jobs run in Celery workers with threads, because a job only waits for the broker."""
    known = facts.transport
    if isinstance(known, Unknown) or isinstance(known.workers, Unknown):
        return
    for name, kind in sorted(known.worker_pools.items()):
        queues = known.workers.get(name, frozenset())
        jobs = [queue for queue in queues if queue.startswith("snakepit.")]
        others = sorted(queues.difference(jobs))
        if kind in GREENLETS:
            yield warning(
                "consumers",
                f"{name} runs on {kind}: it takes no job of a pool, and the ticks that it takes reach no broker",
                "Start it with --pool threads. Keep tasks that need it in queues of their own, with -Q.",
            )
        elif jobs and kind != "threads":
            yield warning(
                "consumers",
                f"{name} has the pool {kind} and reads job queues: each job holds one of its processes while it waits",
                f"Start it with -Q {','.join(others) or 'and its own queues'}, and start another Celery worker with "
                "--pool threads for jobs.",
            )


def overdue(facts: SystemFacts) -> Iterator[Finding]:
    """No job is overdue."""
    known = facts.database
    if isinstance(known, Unknown):
        yield skipped("jobs", known.reason)
    elif known.jobs_overdue and known.jobs_oldest > OVERDUE:
        yield warning(
            "jobs",
            f"{known.jobs_overdue} jobs are due and unclaimed, the oldest for {known.jobs_oldest:.0f} s",
            "See `consumers`; otherwise add Celery threads, or workers to the pool.",
        )
    else:
        yield ok("jobs", "none is overdue")


def database(facts: SystemFacts) -> Iterator[Finding]:
    """The database answers, and allows several writers."""
    known = facts.database
    if isinstance(known, Unknown):
        yield problem("database", known.reason, "Start it, or correct DATABASES (SNAKEPIT_DATABASE_URL).")
        return
    fine = True
    if known.vendor == "sqlite":
        wanted = (known.journal == "wal", known.immediate, known.timeout >= SHORT_TIMEOUT)
        if not all(wanted):
            fine = False
            yield warning(
                "database",
                f"SQLite with journal {known.journal}, {'immediate' if known.immediate else 'deferred'} transactions, "
                f"timeout {known.timeout:g} s: web, broker and Celery would get `database is locked`",
                'OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": '
                '"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}',
            )
    elif known.most_connections and known.connections > CONNECTIONS_USED * known.most_connections:
        fine = False
        yield warning(
            "database",
            f"{known.connections} of {known.most_connections} connections are used",
            "Raise max_connections, or use a connection pooler.",
        )
    if fine:
        more = f", {known.connections} of {known.most_connections} connections" if known.most_connections else ""
        yield ok("database", f"{known.vendor} {known.version}, {known.name}{more}")


def migrations(facts: SystemFacts) -> Iterator[Finding]:
    """All migrations are applied."""
    known = facts.database
    if isinstance(known, Unknown):
        yield skipped("migrations", known.reason)
    elif known.unapplied:
        yield problem("migrations", f"not applied: {', '.join(known.unapplied)}", "python manage.py migrate")
    else:
        yield ok("migrations", "all are applied")


def clocks(facts: SystemFacts) -> Iterator[Finding]:
    """The clocks of machine, database and message transport agree: leases and expiry depend on it."""
    for name, known in (("database", facts.database), ("message transport", facts.transport)):
        if isinstance(known, Unknown):
            yield skipped("clock", f"{name}: {known.reason}")
        elif known.drift is None:
            yield skipped("clock", f"{name}: it has no clock of its own, or does not report it")
        elif abs(known.drift) < DRIFT[0]:
            yield ok("clock", f"{name}: {abs(known.drift) * 1000:.0f} ms from this machine's")
        else:
            evidence = f"{name}: {abs(known.drift):.1f} s {'ahead of' if known.drift > 0 else 'behind'} this machine"
            make = problem if abs(known.drift) >= DRIFT[1] else warning
            yield make("clock", evidence, "Run an NTP client on both machines.")


def api_keys(facts: SystemFacts) -> Iterator[Finding]:
    """No API key expires soon."""
    known = facts.database
    if isinstance(known, Unknown):
        yield skipped("API keys", known.reason)
        return
    soon = [key for key in known.keys if key.days_left is not None and key.days_left < KEY_WARNING]
    for key in soon:
        yield warning(
            "API keys",
            f"{key.name} expires in {key.days_left:.1f} days",
            "Create a new key, then revoke this one.",
        )
    if not soon:
        valid = "1 is" if len(known.keys) == 1 else f"{len(known.keys)} are"
        yield ok("API keys", f"{valid} valid, none expires within {KEY_WARNING:.0f} days")
