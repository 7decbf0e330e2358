# ruff: noqa: RUF009  (`setting` makes a dataclass field; it is not a default value)
"""The definition of a pool: one frozen value that validates itself.

Fields, defaults, ranges, units and help texts are defined here alone. The Django model, the settings, the admin and the
documentation read them.

>>> PoolSpec(name="digits", adapter="digits", size=2).slots
1
>>> PoolSpec(name="digits", adapter="digits", profile="thread", threads=4).slots
4
>>> PoolSpec(name="digits", adapter="digits", size=0)
Traceback (most recent call last):
    ...
snakepit.pools.broker.spec.InvalidSpec: size: 0 is outside 1 to 1000
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from snakepit.pools.broker.job_limits import find_problem as find_limits_problem
from snakepit.pools.broker.placement import find_nodes_problem
from snakepit.pools.broker.sandbox import find_problem as find_sandbox_problem
from snakepit.pools.broker.sandbox import plain as plain_sandbox

NAME = re.compile(r"[a-z][a-z0-9_-]{0,47}")
ON_FAILURE = "on_failure"  # an adapter's hook: a command that runs only after a job has failed
AUTO = "auto"  # a value of a pool's `python`: the best interpreter for its profile
OWN = "the broker's own interpreter"
PYTHON_VERSION = re.compile(r"3\.\d{1,2}(\.\d{1,2})?t?")  # 3.12, 3.13.5, 3.14t


# The broker sets these itself: it finds and ends its processes by them, and workers find this package by them. Which
# other variables are allowed is a matter of the settings (worker_env.py).
RESERVED = ("SNAKEPIT_", "PYTHONPATH")


class Profile(StrEnum):
    PROCESS = "process"  # one call at a time, on the worker's main thread
    THREAD = "thread"  # `threads` calls at a time


class Preload(StrEnum):
    """Whether workers are forked from a template."""

    AUTO = "auto"  # if the adapter has a preload()
    ON = "on"  # also without one: the imports alone are shared
    OFF = "off"


class InvalidSpec(ValueError):
    """A pool definition is not valid. `problems` maps each wrong field to the reason."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in self.problems.items()))


def setting(default: Any, low: float | None = None, high: float | None = None, *, unit: str = "", help: str) -> Any:
    """A field with its range and its help; the default None means "off"."""
    return field(default=default, metadata={"low": low, "high": high, "unit": unit, "help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """One pool's definition. Times in seconds, memory in MiB."""

    name: str = setting("", help="Lower-case letters, digits, - and _; starts with a letter.")
    adapter: str = setting("", help="Key of the adapter in SNAKEPIT['ADAPTERS'].")
    args: Mapping[str, Any] = field(default_factory=dict, metadata={"help": "The adapter's keyword arguments."})
    env: Mapping[str, str] = field(default_factory=dict, metadata={"help": "Environment variables for the workers."})
    profile: Profile = setting(
        Profile.PROCESS, help="process: one call at a time in a worker; thread: `threads` calls at a time."
    )
    size: int = setting(2, 1, 1000, help="Number of workers. Raise it when calls wait while cores are idle.")
    nodes: tuple[str, ...] = setting(
        (), help="Where it lives: names of nodes, or labels such as gpu=a100; empty: every node. `size` is per node."
    )
    threads: int = setting(10, 1, 256, help="Slots of a worker with the thread profile.")
    python: str = setting(
        "",
        help="Interpreter: a key of SNAKEPIT['PYTHONS'], a version (3.12, 3.14t) or auto; empty: that of the broker.",
    )
    preload: Preload = setting(
        Preload.AUTO, help="Fork workers from a template: auto (if the adapter has a preload()), on, off."
    )
    sandbox: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "What the kernel keeps from its workers (docs/explanation/trust.md), such as "
            '{"network": "none", "paths": ["/srv/models", "/srv/results:rw"]}; empty: nothing.'
        },
    )
    queue_limit: int = setting(1000, 0, 1_000_000, unit="calls", help="Maximum of waiting calls; more are refused.")
    queue_bytes: int = setting(
        64 * 2**20,
        0,
        2**40,
        unit="bytes",
        help="Maximum size of the arguments of waiting calls. Parts in shared memory count apart, up to the larger of "
        "this and max_buffer.",
    )
    queue_timeout: float = setting(5.0, 0.001, 86_400, unit="s", help="Maximum wait for a slot.")
    call_timeout: float = setting(60.0, 0.001, 86_400, unit="s", help="Timeout of a call that has none of its own.")
    stream_timeout: float = setting(
        300.0, 0.001, 86_400, unit="s", help="Timeout of a streaming call that has none of its own."
    )
    cancel_grace: float = setting(
        2.0, 0.0, 3600, unit="s", help="Time from the request to stop a call until its process is killed."
    )
    startup_timeout: float = setting(
        60.0, 0.1, 86_400, unit="s", help="Time to load the adapter. Raise it for models that take minutes."
    )
    startup_batch: int = setting(8, 1, 1000, help="Workers that start at the same time.")
    startup_delay: float = setting(0.75, 0.0, 3600, unit="s", help="Pause between two batches of starts.")
    ttl: float | None = setting(None, 1, 10 * 365 * 86_400, unit="s", help="Age at which a worker is replaced.")
    max_requests: int | None = setting(None, 1, 10**12, help="Number of calls after which a worker is replaced.")
    jitter: float = setting(
        0.1, 0.0, 1.0, help="Random share added to ttl and max_requests, so that workers are not replaced together."
    )
    min_lifetime: float = setting(
        10.0,
        0.0,
        86_400,
        unit="s",
        help="Age before which no worker is replaced for its age, calls or soft memory limit.",
    )
    memory_soft_mb: float | None = setting(
        None, 1, 2**30, unit="MiB", help="Soft memory limit: a worker above it finishes its calls and is replaced."
    )
    memory_hard_mb: float | None = setting(
        None, 1, 2**30, unit="MiB", help="Hard memory limit: a worker above it is killed."
    )
    memory_samples: int = setting(2, 1, 1000, help="Samples in a row above the soft limit before a worker is replaced.")
    max_surge: int = setting(1, 0, 1000, help="Extra workers above `size` during a replacement.")
    max_unavailable: int = setting(0, 0, 1000, help="Workers that may be missing during a replacement.")
    drain_timeout: float = setting(
        30.0, 0.0, 86_400, unit="s", help="Time that a draining worker has to finish its calls."
    )
    max_payload: int = setting(
        2**20, 1024, 2**28, unit="bytes", help="Maximum size of one call's arguments, and of its result."
    )
    max_buffer: int = setting(
        2**28,
        0,
        2**36,
        unit="bytes",
        help="Maximum size of the parts of one call's arguments, and of its result, that travel in shared memory "
        "between a Python caller and a worker on one machine. 0: none.",
    )
    boot_budget: int = setting(5, 1, 1000, help="Failed starts within 60 s before the pool is marked failed.")
    death_budget: int | None = setting(
        None, 1, 100_000, help="Worker crashes within 60 s before the pool is marked failed (default: 10 x size)."
    )
    retry_budget: float = setting(0.1, 0.0, 1.0, help="Maximum share of calls that are retried after a worker's death.")
    job_limits: tuple[Mapping[str, Any], ...] = setting(
        (),
        help="Limits of its jobs by pool, owner or one argument, over all nodes: a list such as "
        '[{"by": "owner", "running": 4, "per_minute": 60}]; empty: none.',
    )
    thread_checks: bool = setting(
        False,
        help="On: report writes to shared state by two threads without a lock. For staging (docs/howto/threads.md).",
    )
    enabled: bool = setting(True, help="Off: no workers; calls fail with pool_unknown.")
    paused: bool = setting(False, help="On: calls are refused; workers stay warm.")

    def __post_init__(self) -> None:
        for name in ("nodes", "job_limits"):
            if isinstance(value := getattr(self, name), list):  # of a row, or of JSON
                object.__setattr__(self, name, tuple(value))
        problems = dict(find_problems(self))
        if problems:
            raise InvalidSpec(problems)

    @property
    def slots(self) -> int:
        """Calls that one worker runs together."""
        return self.threads if self.profile == Profile.THREAD else 1

    @property
    def queue_buffer_bytes(self) -> int:
        """Bytes in shared memory that waiting calls may have: at least those of the largest call."""
        return max(self.queue_bytes, self.max_buffer)

    @property
    def deaths_allowed(self) -> int:
        return self.death_budget if self.death_budget is not None else 10 * self.size

    @property
    def has_memory_limit(self) -> bool:
        return self.memory_soft_mb is not None or self.memory_hard_mb is not None

    def needs_new_workers(self, other: PoolSpec) -> bool:
        """Whether workers made by `other` cannot serve this definition."""
        return any(getattr(self, name) != getattr(other, name) for name in WORKER_FIELDS)


# What is fixed when a worker starts: a change of any of these replaces the workers.
WORKER_FIELDS = ("adapter", "args", "env", "profile", "threads", "python", "preload", "thread_checks", "sandbox")
FIELDS = {f.name: f for f in fields(PoolSpec)}


def find_problems(spec: PoolSpec) -> list[tuple[str, str]]:
    """Return every wrong field, with its value and the allowed range."""
    problems = [(name, why) for name in FIELDS if (why := _wrong(name, getattr(spec, name)))]
    if problems:
        return problems
    if spec.max_surge == 0 and spec.max_unavailable == 0:
        problems.append(
            ("max_surge", "0 with max_unavailable 0 leaves no way to replace a worker; set one of them to 1")
        )
    if spec.max_unavailable > spec.size:
        problems.append(("max_unavailable", f"{spec.max_unavailable} is more than size {spec.size}"))
    if spec.memory_soft_mb and spec.memory_hard_mb and spec.memory_soft_mb >= spec.memory_hard_mb:
        problems.append(("memory_soft_mb", f"{spec.memory_soft_mb} is not below memory_hard_mb {spec.memory_hard_mb}"))
    if spec.preload == Preload.ON and spec.profile == Profile.THREAD:
        problems.append(("preload", "'on' is for the process profile: the threads of a worker share its memory anyway"))
    if spec.thread_checks and spec.profile != Profile.THREAD:
        problems.append(("thread_checks", "one thread has nothing to check; set profile to thread, or turn this off"))
    return problems


# Fields whose rules stand in modules of their own.
OF_OTHERS: dict[str, Callable[[Any], str | None]] = {
    "nodes": find_nodes_problem,
    "job_limits": find_limits_problem,
    "sandbox": find_sandbox_problem,
}


def _wrong(name: str, value: Any) -> str | None:
    if name == "name":
        fits = isinstance(value, str) and bool(NAME.fullmatch(value))
        rule = "use a-z, 0-9, - and _, a letter first, at most 48 characters"
        return None if fits else f"{value!r} is not a pool name: {rule}"
    if name == "adapter":
        return (
            None if isinstance(value, str) and value else "a pool needs the key of an adapter in SNAKEPIT['ADAPTERS']"
        )
    if name == "profile":
        return None if value in tuple(Profile) else f"{value!r} is not one of {', '.join(Profile)}"
    if name == "preload":
        return None if value in tuple(Preload) else f"{value!r} is not one of {', '.join(Preload)}"
    if name == "python":
        return None if isinstance(value, str) and "\0" not in value else f"{value!r} is not a path"
    if find := OF_OTHERS.get(name):
        return find(value)
    if name == "args":
        fits = isinstance(value, Mapping) and all(isinstance(key, str) and key.isidentifier() for key in value)
        return None if fits else "must be an object whose keys are argument names"
    if name == "env":
        return _wrong_env(value)
    return _wrong_number(name, value)


def _wrong_env(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "must be an object of strings"
    for key, text in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            return f"{key!r} is not the name of an environment variable"
        if key.startswith(RESERVED):
            return f"{key} is set by the broker itself; remove it"
        if not isinstance(text, str) or "\0" in text:
            return f"the value of {key} must be a string"
    return None


def _wrong_number(name: str, value: Any) -> str | None:
    definition = FIELDS[name]
    kind = str(definition.type)
    if value is None:
        return None if "None" in kind else "must have a value"
    if kind == "bool":
        return None if isinstance(value, bool) else f"{value!r} is not true or false"
    # isfinite converts to float, and a whole number may be too large for that.
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
        return f"{value!r} is not a number"
    if kind.startswith("int") and not isinstance(value, int):
        return f"{value!r} is not a whole number"
    low, high = definition.metadata["low"], definition.metadata["high"]
    return None if low <= value <= high else f"{value} is outside {low} to {high}"


def spec_from(values: Mapping[str, Any]) -> PoolSpec:
    """Make a spec from untrusted keys and values (settings, a row, a request); an unknown key is refused."""
    unknown = {}
    for key in values:
        if key not in FIELDS:
            near = get_close_matches(str(key), FIELDS, n=1)
            unknown[str(key)] = "is not a field of a pool" + (f"; did you mean {near[0]}?" if near else "")
    if unknown:
        raise InvalidSpec(unknown)
    return PoolSpec(**values)


def spec_values(spec: PoolSpec) -> dict[str, Any]:
    """Return the spec as plain values for JSON."""
    return {**asdict(spec), "profile": str(spec.profile), "preload": str(spec.preload), "nodes": list(spec.nodes),
            "job_limits": [dict(one) for one in spec.job_limits], "sandbox": plain_sandbox(spec.sandbox)}  # fmt: skip
