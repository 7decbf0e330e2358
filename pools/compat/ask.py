"""Reports about what is really there: a pool's interpreter with what its workers saw, or any interpreter by its key."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.db import Error

from snakepit.pools import conf
from snakepit.pools.adapters.interpreters.known import InterpreterUnfit, interpreters_of_settings
from snakepit.pools.broker.errors import BadRequest, BrokerError, PoolUnknown
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec, Profile
from snakepit.pools.compat.report import PACKAGES, Report, packages_of, report
from snakepit.pools.compat.verdict import Setting
from snakepit.pools.diagnostics.interpreters import NoAnswer, ask
from snakepit.pools.models import Pool


def of_pool(name: str, status: Callable[[str], Mapping[str, Any]]) -> Report:
    """`status` asks the broker for a pool's snapshot. Raises PoolUnknown, BadRequest."""
    spec = _spec(name)
    path = _choose(spec.python, str(spec.profile))
    culprits, races, note = _seen(name, status)
    found = _report(f"pool {name}", path, spec.profile == Profile.THREAD, culprits, note)
    return replace(found, races=races)


def of_python(key: str) -> Report:
    """Any interpreter that a pool could name, judged for threads. Raises BadRequest."""
    return _report(f"interpreter {key or 'of this process'}", _choose(key, str(Profile.THREAD)), True, (), "")


def _report(title: str, path: str, threads: bool, culprits: tuple[str, ...], note: str) -> Report:
    try:
        answer = ask(path, PACKAGES, (), place=tuple(conf.worker_path()))
    except NoAnswer as why:
        raise BadRequest(f"{path} does not say what is installed: {why}") from None
    free = bool(answer["free_threaded"])
    abi = "cp{}{}t".format(*str(answer["version"]).split(".")) if free else ""
    setting = Setting(title, threads, free, culprits, abi)
    return report(setting, f"Python {answer['version']} at {path}", packages_of(answer), note)


def _spec(name: str) -> PoolSpec:
    try:
        row = Pool.objects.filter(name=name).first() if "\0" not in name else None
        if row is not None:
            return row.to_spec()
    except Error:
        row = None  # a database that is away or not migrated: the settings may define the pool all the same
    except InvalidSpec as error:
        raise BadRequest(f"{name}: {error}") from None
    found = {spec.name: spec for spec in conf.pool_specs()} if not conf.find_pool_problems() else {}
    if name not in found:
        raise PoolUnknown(f"No pool is named {name!r}.", details={"pool": name})
    return found[name]


def _choose(python: str, profile: str) -> str:
    if why := conf.find_python_problem(python):
        raise BadRequest(f"python: {why}")
    try:
        return interpreters_of_settings().choose(python, profile).path or sys.executable
    except InterpreterUnfit as why:
        raise BadRequest(str(why)) from None


def _seen(name: str, status: Callable[[str], Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Modules that switched the GIL on, state with a race (thread_checks), and what is not known."""
    try:
        snapshot = status(name)
    except BrokerError as error:
        return (), (), f"What workers saw is not known: {error.message}"
    workers = snapshot["workers"]
    races = tuple(str(race) for pool in snapshot["pools"] if pool["name"] == name for race in pool.get("races", ()))
    culprits = {str(one.get("gil_culprit", "")) for one in workers if one.get("pool") == name}
    return tuple(sorted(culprits - {""})), races, "" if workers else "No worker has started yet: nothing was seen."
