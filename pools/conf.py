"""Every setting of Snakepit: its key in the dict `SNAKEPIT`, its type, default, range and help.

    settings.SNAKEPIT ──▶ current()     the plain keys, checked once, frozen; thrown away on `setting_changed`
                     └──▶ pool_specs()  POOLS, or the single-pool form, as PoolSpecs
                     └──▶ adapters()    the closed registry: key -> dotted path

Nothing is read at import. A key that does not exist is refused with the one that was probably meant.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from snakepit.pools.broker.spec import AUTO, FIELDS, PYTHON_VERSION, InvalidSpec, PoolSpec, spec_from

DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")


def setting(
    default: Any,
    *,
    help: str,
    check: Callable[[Any], str | None],
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> Any:
    """One key: `check` says what is wrong with a value, or None."""
    metadata = {"help": help, "check": check, "low": low, "high": high, "unit": unit}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def number(default: float, low: float, high: float, *, help: str, unit: str = "") -> Any:
    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
            return f"{value!r} is not a {'whole ' if isinstance(default, int) else ''}number"
        return None if low <= value <= high else f"{value} is outside {low} to {high}"

    return setting(default, help=help, check=check, low=low, high=high, unit=unit)


def _text(value: Any) -> str | None:
    fits = isinstance(value, str | os.PathLike) and "\0" not in os.fspath(value)
    return None if fits else f"{value!r} is not a string"


def _registry(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of key: dotted path"
    for key, path in value.items():
        if not isinstance(key, str) or not key:
            return f"the key {key!r} is not a string"
        if not isinstance(path, str) or not DOTTED_PATH.fullmatch(path):
            return f"{path!r} of the key {key!r} is not a dotted path such as 'shop.workers.Prices'"
    return None


def _interpreters(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of key: path"
    for key, path in value.items():
        if not isinstance(key, str) or not key:
            return f"the key {key!r} is not a string"
        if _text(path) is not None or not os.path.isabs(path):
            return f"{path!r} of the key {key!r} is not an absolute path"
    return None


def _pools(value: Any) -> str | None:
    fits = isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in value.values())
    return None if fits else "is not a dict of pool name: dict of the pool's fields"


def _paths(value: Any) -> str | None:
    fits = isinstance(value, list | tuple) and all(_text(one) is None for one in value)
    return None if fits else f"{value!r} is not a list of directories"


def _variables(value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return f"{value!r} is not a list of names of environment variables"
    for name in value:
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            return f"{name!r} is not the name of an environment variable (a * may end it)"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The plain keys of `SNAKEPIT`, in lower case. Times in seconds, sizes in bytes."""

    adapters: Mapping[str, str] = setting(
        dict, check=_registry, help="The closed registry of adapters: key to dotted path. Rows store the key alone."
    )
    pools: Mapping[str, Mapping[str, Any]] = setting(
        dict, check=_pools, help="Pools that the settings own: name to the fields of the pool."
    )
    pythons: Mapping[str, str] = setting(
        dict,
        check=_interpreters,
        help="The closed registry of interpreters: key to absolute path. Rows store the key alone.",
    )
    venvs: tuple[str, ...] = setting(
        tuple, check=_paths, help="Virtual environments that a pool's `python` may be found in, by version or auto."
    )
    node_name: str = setting("", check=_text, help="Name of this node in rows and events; empty: the host's name.")
    runtime_dir: str = setting(
        "", check=_text, help="Directory of the broker's sockets and token; empty: one of this user's own."
    )
    worker_path: tuple[str, ...] = setting(
        tuple, check=_paths, help="Entries of sys.path for the workers; empty: BASE_DIR."
    )
    worker_env: tuple[str, ...] = setting(
        tuple, check=_variables, help="Further environment variables that workers inherit; PREFIX_* takes a family."
    )
    max_body: int = number(2**20, 1024, 2**30, unit="bytes", help="Largest request body of the REST API.")
    max_depth: int = number(64, 1, 500, help="Deepest nesting of a JSON body.")
    max_timeout: float = number(3600.0, 0.001, 86_400, unit="s", help="Longest `timeout` that a REST caller may ask.")
    sweep_interval: float = number(15.0, 1, 3600, unit="s", help="Pause between two ticks of the lifecycle clock.")
    stop_grace: float = number(30.0, 0, 3600, unit="s", help="What running calls get to finish when the broker stops.")
    stream_heartbeat: float = number(15.0, 0.01, 300, unit="s", help="Longest silence on an SSE answer.")
    queue_objective: float = number(
        1.0,
        0.001,
        86_400,
        unit="s",
        help="Seconds that a call may wait before the dashboard says that it needs somebody.",
    )
    page_limit: int = number(200, 1, 1000, help="Most rows on a page of the REST API.")
    events_kept: int = number(10_000, 100, 10**7, help="Event rows that are kept; older ones are pruned.")
    workers_kept: int = number(1000, 10, 10**6, help="Rows of workers that are gone; older ones are pruned.")
    audit_retention: int = number(31_536_000, 3600, 10**9, unit="s", help="How long the audit of orders is kept.")
    celery_app: str = setting(
        "", check=_text, help="Module of the Celery app that sends jobs; empty: `celery` beside the settings module."
    )
    reconcile_interval: float = number(15.0, 0.1, 300, unit="s", help="Pause between two looks after the jobs.")
    jobs_lease: float = number(30.0, 1, 3600, unit="s", help="How long a silent attempt is taken to be alive.")
    jobs_resend: float = number(30.0, 0.1, 3600, unit="s", help="A due job that nobody claimed is sent again after it.")
    jobs_queued_limit: int = number(10_000, 1, 10**7, help="Jobs of one pool that may wait; more are refused.")
    jobs_max_attempts: int = number(3, 1, 100, help="Attempts at a job, unless it says otherwise.")
    jobs_backoff: float = number(2.0, 0, 3600, unit="s", help="Pause before a second attempt; doubled for each more.")
    jobs_quarantine_after: int = number(2, 1, 100, help="Workers that may die of one job before it is quarantined.")
    jobs_stop_grace: float = number(5.0, 0, 3600, unit="s", help="What running jobs get when Celery's worker stops.")
    jobs_retention: int = number(604_800, 0, 10**9, unit="s", help="How long an ended job is kept.")
    jobs_entries: int = number(1000, 1, 10**6, help="Chunks, log lines and progress that are kept of a job.")
    jobs_entry_bytes: int = number(2**20, 1024, 2**30, unit="bytes", help="The same, as bytes of JSON.")


KEYS = {one.name.upper(): one for one in fields(Configuration)}
# The single-pool form: any field of a pool at the top level, `size` as POOL_SIZE.
SINGLE = {("POOL_SIZE" if name == "size" else name.upper()): name for name in FIELDS if name != "name"}
_cached: Configuration | None = None


def current() -> Configuration:
    """The plain keys, checked. Raises ImproperlyConfigured with every problem at once."""
    global _cached
    if _cached is None:
        problems = list(find_problems())
        if problems:
            raise ImproperlyConfigured("\n".join(problems))
        raw = _raw()
        given = {KEYS[key].name: raw[key] for key in KEYS if key in raw}
        for name in ("worker_path", "worker_env", "venvs"):
            given[name] = tuple(os.fspath(one) for one in given.get(name, ()))
        for name in ("node_name", "runtime_dir", "celery_app"):
            given[name] = os.fspath(given.get(name, ""))
        _cached = Configuration(**given)
    return _cached


def find_problems() -> Iterator[str]:
    """What is wrong with the plain keys; each line names its place."""
    try:
        raw = _raw()
    except ImproperlyConfigured as error:
        yield str(error)
        return
    for key, value in raw.items():
        if key in KEYS:
            why = KEYS[key].metadata["check"](value)
            if why:
                yield f'SNAKEPIT["{key}"]: {why}'
        elif key not in SINGLE:
            near = get_close_matches(str(key).upper(), [*KEYS, *SINGLE], n=1)
            yield f'SNAKEPIT["{key}"] is not a setting' + (f"; did you mean {near[0]}?" if near else "")


def adapters() -> dict[str, str]:
    """The registry: key -> dotted path; a dotted path in the single-pool form is registered as `default`."""
    registry = dict(current().adapters)
    single = _raw().get("ADAPTER")
    if isinstance(single, str) and single not in registry and DOTTED_PATH.fullmatch(single):
        registry["default"] = single
    return registry


def find_python_problem(python: str) -> str:
    """What is wrong with a pool's `python`; whether such an interpreter is there, its broker finds out."""
    if not python or python == AUTO or python in current().pythons or PYTHON_VERSION.fullmatch(python):
        return ""
    known = ", ".join(sorted(current().pythons)) or "none"
    return f"{python!r} is no key of SNAKEPIT['PYTHONS'] (there are: {known}), nor auto, nor a version such as 3.14t"


def pool_specs() -> tuple[PoolSpec, ...]:
    """The pools that the settings define. Raises ImproperlyConfigured with every problem, each with its place."""
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
            problems.append(f"{place('name')}: the pool's name is its key in POOLS; leave this out")
            continue
        try:
            spec = spec_from({"size": default_size(), **values, "name": name})
        except InvalidSpec as error:
            problems += [f"{place(key)}: {why}" for key, why in error.problems.items()]
            continue
        if spec.adapter not in registry:
            near = get_close_matches(spec.adapter, registry, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f'{place("adapter")}: {spec.adapter!r} is no key of SNAKEPIT["ADAPTERS"]{hint}')
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
        problems.append(f'SNAKEPIT["ADAPTER"] is missing: {given} define a single pool, which needs its adapter')
    elif "default" in pools:
        problems.append('SNAKEPIT["ADAPTER"]: POOLS has a pool "default" already; keep one of the two')
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
    return raw


def base_dir() -> Path:
    from django.conf import settings

    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()).resolve()


def default_size() -> int:
    """Two workers for each core that this process may use (affinity and cgroup limits count)."""
    from loky import cpu_count

    return 2 * int(cpu_count())


def node_name() -> str:
    return current().node_name or socket.gethostname()


def release() -> str:
    """The version of this distribution, as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("django-snakepit")
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "unreleased"


def worker_path() -> list[str]:
    return list(current().worker_path) or [str(base_dir())]


def runtime_dir() -> Path:
    """Where the broker's socket and token are. It is not created here: the broker does that, with mode 0700."""
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
    """Read the settings again at the next use."""
    global _cached
    if setting == "SNAKEPIT":
        _cached = None


setting_changed.connect(forget, dispatch_uid="snakepit.conf")
