"""Every setting of Snakepit: its key in the dict `SNAKEPIT`, its type, default, range and help.

    settings.SNAKEPIT ──▶ current()     the plain keys, validated once, frozen; discarded on `setting_changed`
                     └──▶ pool_specs()  POOLS, or the single-pool form, as PoolSpecs
                     └──▶ adapters()    the closed registry: key -> dotted path

Nothing is read at import. An unknown key is an error that suggests the nearest existing key.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from snakepit.pools import listening, proxies, setting_checks
from snakepit.pools.broker.caller import KEY_DEFAULTS, OWNER_DEFAULTS, Limits
from snakepit.pools.broker.placement import find_labels_problem, find_name_problem, parse_labels
from snakepit.pools.broker.spec import AUTO, FIELDS, PYTHON_VERSION, InvalidSpec, PoolSpec, spec_from
from snakepit.pools.broker.worker_env import find_refused
from snakepit.pools.cgroups import usable_cores
from snakepit.pools.network_settings import LISTEN_VARIABLE, NETWORK_FIELDS, NetworkConfiguration
from snakepit.pools.pool_size import LARGEST_POOL, bounded
from snakepit.pools.setting_checks import number, setting

TESTING = "snakepit.testing.switch"
LABELS = "SNAKEPIT_NODE_LABELS"  # environment variable
NAME = "SNAKEPIT_NODE_NAME"  # the same
TUPLES = ("worker_path", "worker_env", "worker_env_allowed", "trusted_proxies", "venvs", "listen", "advertise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration(NetworkConfiguration):
    """The plain keys of `SNAKEPIT`, in lower case. Times in seconds, sizes in bytes."""

    adapters: Mapping[str, str] = setting(
        dict,
        check=setting_checks.registry,
        help="Registry of allowed adapters: key to dotted path. Rows store only the key.",
    )
    pools: Mapping[str, Mapping[str, Any]] = setting(
        dict, check=setting_checks.pools, help="Pools defined by the settings: name to the fields of the pool."
    )
    pythons: Mapping[str, str] = setting(
        dict,
        check=setting_checks.interpreters,
        help="Registry of allowed interpreters: key to absolute path. Rows store only the key.",
    )
    venvs: tuple[str, ...] = setting(
        tuple,
        check=setting_checks.paths,
        help="Virtual environments to search for a pool's `python` given as a version or auto.",
    )
    node_name: str = setting(
        "",
        check=lambda value: setting_checks.text(value) or (find_name_problem(value) if value else None),
        help="Name of this node in rows and events; empty: SNAKEPIT_NODE_NAME of the environment, else the host name.",
    )
    node_labels: Mapping[str, str] = setting(
        dict,
        check=find_labels_problem,
        help="Labels of this node, such as {'gpu': 'a100'}; SNAKEPIT_NODE_LABELS=gpu=a100,zone=b adds to them.",
    )
    runtime_dir: str = setting(
        "",
        check=setting_checks.text,
        help="Directory of the broker's sockets and token; empty: a private directory of this user.",
    )
    worker_path: tuple[str, ...] = setting(
        tuple, check=setting_checks.paths, help="Entries to add to the workers' sys.path; empty: BASE_DIR."
    )
    worker_env: tuple[str, ...] = setting(
        tuple,
        check=setting_checks.variables,
        help="Additional environment variables that workers inherit; PREFIX_* matches many.",
    )
    worker_user: str = setting(
        "", check=setting_checks.account, help="User that workers run as, by name or number; empty: the broker's user."
    )
    worker_groups: tuple[str, ...] = setting(
        tuple,
        check=setting_checks.accounts,
        help="Supplementary groups of workers with WORKER_USER, by name or number.",
    )
    worker_env_allowed: tuple[str, ...] = setting(
        tuple,
        check=setting_checks.variables,
        help="Variables that the `env` of a pool may set besides the safe ones below; PREFIX_* matches many.",
    )
    trusted_proxies: tuple[str, ...] = setting(
        tuple, check=proxies.find_problem, help="Addresses and networks of the proxies whose headers count."
    )
    test: bool = setting(
        False,
        check=setting_checks.flag,
        help="Run the pools and jobs in this process, without a broker; for tests (`snakepit.testing`).",
    )
    max_body: int = number(2**20, 1024, 2**30, unit="bytes", help="Largest request body of the REST API.")
    max_depth: int = number(64, 1, 500, help="Maximum nesting of a JSON body.")
    max_timeout: float = number(3600.0, 0.001, 86_400, unit="s", help="Largest `timeout` of a call through REST.")
    sweep_interval: float = number(15.0, 1, 3600, unit="s", help="Interval of the lifecycle clock's sweeps.")
    stop_grace: float = number(30.0, 0, 3600, unit="s", help="Grace period for running calls when the broker stops.")
    stream_heartbeat: float = number(15.0, 0.01, 300, unit="s", help="Interval of heartbeats on a silent SSE stream.")
    stream_lifetime: float = number(
        3600.0, 0.01, 86_400, unit="s", help="Time after which the event `close` ends an open stream of a job."
    )
    streams_limit: int = number(4096, 1, 10**6, help="Maximum number of open streams of a web process.")
    key_limits: Mapping[str, float] = setting(
        dict,
        check=setting_checks.limits,
        help="Limits of each API key; a key may have others. See [limits](limits.md#callers).",
    )
    owner_limits: Mapping[str, float] = setting(
        dict, check=setting_checks.limits, help="Limits of each user, over all keys and sessions of the user."
    )
    key_share: float = number(0.25, 0.001, 1, help="Largest share of a pool's queues that one API key may fill.")
    owner_share: float = number(0.5, 0.001, 1, help="Largest share of a pool's queues that one user may fill.")
    queue_objective: float = number(
        1.0, 0.001, 86_400, unit="s", help="Queue wait of a call above which the dashboard shows an alert."
    )
    max_pool_size: int = number(LARGEST_POOL, 1, 1000, help="Largest `size` of a pool; a larger one is refused.")
    page_limit: int = number(200, 1, 1000, help="Maximum number of rows on a page of the REST API.")
    events_kept: int = number(10_000, 100, 10**7, help="Number of event rows to keep; older ones are pruned.")
    workers_kept: int = number(1000, 10, 10**6, help="Number of rows of gone workers to keep; older ones are pruned.")
    audit_retention: int = number(31_536_000, 3600, 10**9, unit="s", help="Retention of the audit log.")
    celery_app: str = setting(
        "",
        check=setting_checks.text,
        help="Module of the Celery app that sends jobs; empty: `celery` beside the settings module.",
    )
    reconcile_interval: float = number(15.0, 0.1, 300, unit="s", help="Interval between two reconciles of jobs.")
    jobs_lease: float = number(30.0, 1, 3600, unit="s", help="Lease of an attempt; after it the job is freed.")
    jobs_resend: float = number(30.0, 0.1, 3600, unit="s", help="Time after which an unclaimed due job is sent again.")
    jobs_queued_limit: int = number(10_000, 1, 10**7, help="Maximum number of queued jobs of one pool.")
    jobs_queued_bytes: int = number(
        2**30, 1024, 2**40, unit="bytes", help="Maximum size of the arguments of a pool's queued jobs."
    )
    jobs_batch_rows: int = number(10_000, 1, 10**6, help="Maximum number of lines of one `POST /api/jobs/batch`.")
    jobs_max_attempts: int = number(3, 1, 100, help="Default maximum number of attempts of a job.")
    jobs_backoff: float = number(2.0, 0, 3600, unit="s", help="Pause before the second attempt; doubles each time.")
    jobs_quarantine_after: int = number(2, 1, 100, help="Worker deaths by one job after which it is quarantined.")
    jobs_snoozes: int = number(1000, 0, 10**6, help="Maximum number of times that a command may put its job off.")
    jobs_stop_grace: float = number(5.0, 0, 3600, unit="s", help="Grace period for jobs when a Celery worker stops.")
    jobs_retention: int = number(604_800, 0, 10**9, unit="s", help="Time until an ended job is deleted.")
    jobs_entries: int = number(1000, 1, 10**6, help="Maximum number of stored output entries of a job.")
    jobs_entry_bytes: int = number(2**20, 1024, 2**30, unit="bytes", help="Maximum size of a job's stored output.")


KEYS = {one.name.upper(): one for one in sorted(fields(Configuration), key=lambda one: one.name in NETWORK_FIELDS)}
# The single-pool form: any field of a pool at the top level, `size` as POOL_SIZE.
SINGLE = {("POOL_SIZE" if name == "size" else name.upper()): name for name in FIELDS if name != "name"}
_cached: Configuration | None = None


def current() -> Configuration:
    """The plain keys, validated. Raises ImproperlyConfigured with all problems together."""
    global _cached
    if _cached is None:
        problems = list(find_problems())
        if problems:
            raise ImproperlyConfigured("\n".join(problems))
        raw = _raw()
        given = {KEYS[key].name: raw[key] for key in KEYS if key in raw}
        for name in TUPLES:
            given[name] = tuple(os.fspath(one) for one in given.get(name, ()))
        given["worker_user"] = str(given.get("worker_user", ""))
        given["worker_groups"] = tuple(map(str, given.get("worker_groups", ())))
        for name in ("node_name", "runtime_dir", "celery_app", "broker_address"):
            given[name] = os.fspath(given.get(name, ""))
        _cached = Configuration(**given)
    return _cached


def find_problems() -> Iterator[str]:
    """The problems of the plain keys; each line names the key."""
    try:
        raw = _raw()
    except ImproperlyConfigured as error:
        yield str(error)
        return
    try:
        parse_labels(os.environ.get(LABELS, ""))
    except ValueError as error:
        yield f"{LABELS}: {error}"
    if (name := os.environ.get(NAME, "")) and (why := find_name_problem(name)):
        yield f"{NAME}: {why}"
    for key, value in raw.items():
        if key in KEYS:
            why = KEYS[key].metadata["check"](value)
            if why:
                yield f'SNAKEPIT["{key}"]: {why}'
        elif key not in SINGLE:
            near = get_close_matches(str(key).upper(), [*KEYS, *SINGLE], n=1)
            yield f'SNAKEPIT["{key}"] is not a setting' + (f"; did you mean {near[0]}?" if near else "")
    if why := listening.find_conflict_of(raw):
        yield f'SNAKEPIT["LISTEN"]: {why}'


def adapters() -> dict[str, str]:
    """The registry: key -> dotted path; a dotted path in the single-pool form is registered as `default`."""
    registry = dict(current().adapters)
    single = _raw().get("ADAPTER")
    if isinstance(single, str) and single not in registry and setting_checks.DOTTED_PATH.fullmatch(single):
        registry["default"] = single
    return registry


def key_limits() -> Limits:
    """The limits of an API key that has none of its own."""
    return Limits.of(current().key_limits, KEY_DEFAULTS)


def owner_limits() -> Limits:
    return Limits.of(current().owner_limits, OWNER_DEFAULTS)


def find_python_problem(python: str) -> str:
    """What is wrong with a pool's `python`. The broker checks whether the interpreter exists."""
    if not python or python == AUTO or python in current().pythons or PYTHON_VERSION.fullmatch(python):
        return ""
    known = ", ".join(sorted(current().pythons)) or "none"
    return f"{python!r} is not a key of SNAKEPIT['PYTHONS'] (keys: {known}), not auto, and not a version such as 3.14t"


def find_env_problem(pool: str, env: Mapping[str, str]) -> str:
    """Why a pool's row may not set one of these variables; empty if it may. What the settings set is trusted."""
    settings, raw = current(), _raw()
    given = raw.get("ENV") if pool == "default" and "default" not in settings.pools else None
    given = given or settings.pools.get(pool, {}).get("env")
    return find_refused(env, settings.worker_env_allowed, given if isinstance(given, Mapping) else None)


def pool_specs() -> tuple[PoolSpec, ...]:
    """The pools of the settings. Raises ImproperlyConfigured with all problems, each with its place."""
    specs, problems = _read_pools()
    if problems:
        raise ImproperlyConfigured("\n".join(problems))
    return tuple(specs)


def find_pool_problems() -> list[str]:
    return _read_pools()[1]


def _read_pools() -> tuple[list[PoolSpec], list[str]]:
    registry = adapters()
    specs: list[PoolSpec] = []
    problems: list[str] = []
    for place, name, values in _pool_entries(problems):
        if "name" in values:
            problems.append(f"{place('name')}: remove it; the pool's name is its key in POOLS")
            continue
        try:
            spec = bounded(spec_from({"size": default_size(), **values, "name": name}), current().max_pool_size)
        except InvalidSpec as error:
            problems += [f"{place(key)}: {why}" for key, why in error.problems.items()]
            continue
        if spec.adapter not in registry:
            near = get_close_matches(spec.adapter, registry, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f'{place("adapter")}: {spec.adapter!r} is not a key of SNAKEPIT["ADAPTERS"]{hint}')
        elif why := find_python_problem(spec.python):
            problems.append(f"{place('python')}: {why}")
        else:
            specs.append(spec)
    return specs, problems


def _pool_entries(problems: list[str]) -> Iterator[tuple[Callable[[str], str], str, Mapping[str, Any]]]:
    raw = _raw()
    single = {SINGLE[key]: raw[key] for key in SINGLE if key in raw}
    pools = current().pools
    for name, values in pools.items():
        yield partial('SNAKEPIT["POOLS"]["{}"]["{}"]'.format, name), name, values
    if not single:
        return
    if "adapter" not in single:
        given = ", ".join(key for key in SINGLE if key in raw)
        problems.append(f'SNAKEPIT["ADAPTER"] is missing: {given} define a single pool, which needs an adapter')
    elif "default" in pools:
        problems.append('SNAKEPIT["ADAPTER"]: SNAKEPIT["POOLS"] has a pool "default" too; remove one of them')
    else:
        if single["adapter"] not in current().adapters and "default" in adapters():
            single["adapter"] = "default"
        keys = {name: key for key, name in SINGLE.items()}
        yield (lambda key: f'SNAKEPIT["{keys.get(key, key)}"]'), "default", single


def _raw() -> Mapping[Any, Any]:
    from django.conf import settings

    raw = getattr(settings, "SNAKEPIT", {})
    if not isinstance(raw, Mapping):
        raise ImproperlyConfigured(f"SNAKEPIT must be a dict, not {type(raw).__name__}")
    if listen := os.environ.get(LISTEN_VARIABLE):
        return {**raw, "LISTEN": [one.strip() for one in listen.split(",") if one.strip()]}
    return raw


def base_dir() -> Path:
    from django.conf import settings

    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()).resolve()


def default_size() -> int:
    """Two workers per core that this process may use, within CPU affinity and cgroup limits."""
    return min(2 * usable_cores(), LARGEST_POOL)


def follow_test(*, setting: str = "SNAKEPIT", **_: Any) -> None:
    """Begin or end what SNAKEPIT["TEST"] asks for. Other problems of the settings are for the system check."""
    if setting != "SNAKEPIT":
        return
    from django.conf import settings

    raw = getattr(settings, "SNAKEPIT", None)
    on = isinstance(raw, Mapping) and raw.get("TEST") is True
    if on or TESTING in sys.modules:
        # By name: the package is above this one.
        importlib.import_module(TESTING).follow(on=on)


def node_name() -> str:
    """The name of this node. The environment is for one settings file on many nodes."""
    return current().node_name or os.environ.get(NAME) or socket.gethostname()


def node_labels() -> dict[str, str]:
    """The labels of this node: NODE_LABELS, with those of the environment, which win."""
    return {**current().node_labels, **parse_labels(os.environ.get(LABELS, ""))}


def advertised() -> tuple[str, ...]:
    """The addresses by which other hosts reach this node's broker; none: it has only a socket."""
    settings = current()
    return listening.advertised(settings.advertise, settings.listen, socket.gethostname())


def release() -> str:
    """The installed version of this distribution."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("django-snakepit")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unreleased"


def worker_path() -> list[str]:
    return list(current().worker_path) or [str(base_dir())]


def runtime_dir() -> Path:
    """The directory of the broker's socket and token. The broker creates it, with mode 0700."""
    chosen = current().runtime_dir
    if chosen:
        return Path(chosen).absolute()
    systemd = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if systemd:
        return Path(systemd)
    mark = hashlib.sha256(os.fsencode(base_dir())).hexdigest()[:8]
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and _owned(session):
        return Path(session) / f"snakepit-{mark}"
    return Path(tempfile.gettempdir()) / f"snakepit-{os.getuid()}-{mark}"


def broker_address() -> str:
    """The path of the broker's socket."""
    return str(runtime_dir() / "broker.sock")


def _owned(directory: str) -> bool:
    try:
        return os.stat(directory).st_uid == os.getuid()
    except OSError:
        return False


def forget(*, setting: str = "SNAKEPIT", **_: Any) -> None:
    """Discard the cached settings; the next use reads them again."""
    global _cached
    if setting == "SNAKEPIT":
        _cached = None


setting_changed.connect(forget, dispatch_uid="snakepit.conf")
