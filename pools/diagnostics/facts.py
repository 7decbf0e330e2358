"""The facts that the doctor's checks judge: plain values, gathered before; `Unknown` for a part that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snakepit.pools.broker.status import BrokerStatus


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part that could not be read, and why."""

    reason: str
    silent: bool = False  # it runs, but did not answer in time


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFacts:
    problems: tuple[str, ...]  # of the dict SNAKEPIT
    debug: bool
    allowed_hosts: tuple[str, ...]
    secret_key_length: int
    secret_key_variety: int  # different characters in it
    secret_key_insecure: bool  # Django's prefix of keys for development
    release: str
    sweep_interval: float  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file or directory; `mode` -1: it does not exist."""

    path: str
    mode: int = -1
    owner: int = -1
    kind: str = ""  # directory, socket, file or other

    @property
    def exists(self) -> bool:
        return self.mode >= 0


LEAST_FREE = 200 * 2**20  # bytes
LEAST_INODES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """A file system, in bytes and inodes."""

    path: str
    free: int
    total: int
    inodes_free: int
    inodes_total: int

    @property
    def is_full(self) -> bool:
        """Whether a database on it can hardly grow. A small file system, such as /run, is not full for its size."""
        few = bool(self.inodes_total) and self.inodes_free < min(LEAST_INODES, self.inodes_total / 10)
        return few or self.free < min(LEAST_FREE, self.total / 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """The broker's directory."""

    user: int
    directory: FileFacts
    socket: FileFacts
    token: FileFacts
    longest_socket: int  # bytes of the longest path in it
    rooms: tuple[DiskFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """Limits of the broker's process where it runs, else of this one. None: no limit, or not known."""

    of: str  # whose limits: "the broker" or "this process"
    cores: int
    open_files: int | None
    processes: int | None  # limit of the user's processes and threads
    processes_now: int
    memory_total_mb: float
    memory_available_mb: float
    cgroup_memory_mb: float | None = None
    cgroup_memory_used_mb: float = 0.0
    cgroup_oom_kills: int = 0
    cgroup_processes: int | None = None
    cgroup_processes_now: int = 0
    cgroup_cores: float | None = None
    cgroup_throttled: float = 0.0  # share of the periods in which it was throttled
    orphans: tuple[int, ...] = ()  # workers of brokers that are gone
    greenlets: tuple[tuple[int, str, str], ...] = ()  # processes of this project: pid, gevent or eventlet, command


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRowFacts:
    """A broker as the database shows it."""

    name: str
    address: str
    pid: int
    stopped: bool
    silent: float  # seconds since it was seen
    labels: tuple[str, ...] = ()  # key=value


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyFacts:
    name: str
    days_left: float | None  # None: it never ends


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    vendor: str
    name: str
    version: str
    unapplied: tuple[str, ...]
    drift: float | None  # seconds that its clock is ahead of this machine's; None: it has no clock of its own
    journal: str = ""  # SQLite
    immediate: bool = False
    timeout: float = 0.0
    connections: int = 0  # PostgreSQL
    most_connections: int = 0
    nodes: tuple[NodeRowFacts, ...] = ()
    keys: tuple[ApiKeyFacts, ...] = ()
    has_jobs: bool = True  # one was submitted
    jobs_overdue: int = 0  # due, but not claimed
    jobs_oldest: float = 0.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportFacts:
    """The message transport of Celery. `workers` maps each Celery worker that answered to its queues."""

    url: str  # without its password
    scheme: str
    error: str = ""  # why it cannot be reached
    drift: float | None = None
    evicts: str = ""  # Redis' policy, where it may throw messages away
    persistent: bool | None = None  # Redis: whether it would keep them over a restart
    workers: Mapping[str, frozenset[str]] | Unknown = field(default_factory=dict)
    worker_pools: Mapping[str, str] = field(default_factory=dict)  # threads, prefork, solo, ... of each Celery worker


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryFacts:
    """The project's Celery app."""

    app: str
    argument: str = ""  # what `celery -A` takes to find it; empty: not known
    missing: tuple[str, ...] = ()  # tasks of ours that no entry of beat runs
    line: str = ""  # that adds them


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPathFacts:
    """The self-check of the fast path for HTTP/2 frames, with the versions installed here."""

    versions: str
    switched_on: bool
    problem: str = ""  # what failed in the self-check; empty: it passed


@dataclass(frozen=True, slots=True, kw_only=True)
class InterpreterFacts:
    """The interpreter of a pool's workers; `error` if none can run them, with what to do."""

    path: str
    about: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFacts:
    """The result of importing an adapter in a process of its own."""

    path: str
    thread_safe: bool = False
    commands: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """A pool as its definition describes it."""

    name: str
    profile: str
    size: int
    slots: int  # of one worker
    queue: str  # of its jobs
    enabled: bool
    interpreter: InterpreterFacts | Unknown
    adapter: AdapterFacts | Unknown
    problem: str = ""  # why its definition is refused
    nodes: tuple[str, ...] = ()  # where it lives; empty: everywhere
    here: bool = True  # it lives on this node


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """A certificate in a file of this host."""

    path: str
    issued: float = 0.0  # from when on it is valid, seconds since the epoch
    expires: float = 0.0
    trouble: str = ""  # why it cannot be read; empty: it can


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    settings: SettingsFacts
    runtime: RuntimeFacts | Unknown
    machine: MachineFacts | Unknown
    broker: BrokerStatus | Unknown
    address: str
    database: DatabaseFacts | Unknown
    transport: TransportFacts | Unknown
    celery: CeleryFacts | Unknown = field(default_factory=lambda: Unknown("was not asked"))
    fast_path: FastPathFacts | Unknown
    pools: tuple[PoolFacts, ...] | Unknown
    client_certificate: CertificateFacts | Unknown | None = None  # None: the settings name none
    now: float = 0.0  # seconds since the epoch
