"""Compatibility reports of real interpreters: a pool's, with its workers' observations, or any one by its key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from django.db import Error

from snakepit.pools import conf
from snakepit.pools.adapters.interpreters.known import InterpreterUnfit, interpreters_of_settings
from snakepit.pools.broker.errors import BadRequest, BrokerError, PoolUnknown
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec, Profile
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.compat.assessment import AssessmentTarget
from snakepit.pools.compat.report import PACKAGES, Report, packages_of, report
from snakepit.pools.diagnostics.interpreters import NoAnswer, ask
from snakepit.pools.models import Pool


def of_pool(name: str, status: Callable[[str], BrokerStatus]) -> Report:
    """The report of a pool's interpreter. `status` gets a pool's snapshot. Raises PoolUnknown, BadRequest."""
    spec = _spec(name)
    path = _choose(spec.python, str(spec.profile))
    culprits, races, note = _seen(name, status)
    found = _report(f"pool {name}", path, spec.profile == Profile.THREAD, culprits, note)
    return replace(found, races=races)


def of_python(key: str) -> Report:
    """The report of any allowed interpreter, for the thread profile. Raises BadRequest."""
    return _report(f"interpreter {key or 'of this process'}", _choose(key, str(Profile.THREAD)), True, (), "")


def _report(title: str, path: str, threads: bool, culprits: tuple[str, ...], note: str) -> Report:
    try:
        answer = ask(path, PACKAGES, (), place=tuple(conf.worker_path()))
    except NoAnswer as why:
        raise BadRequest(f"cannot read the installed packages of {path}: {why}") from None
    free = bool(answer["free_threaded"])
    abi = "cp{}{}t".format(*str(answer["version"]).split(".")) if free else ""
    target = AssessmentTarget(title, threads, free, culprits, abi)
    return report(target, f"Python {answer['version']} at {path}", packages_of(answer), note)


def _spec(name: str) -> PoolSpec:
    try:
        row = Pool.objects.filter(name=name).first() if "\0" not in name else None
        if row is not None:
            return row.to_spec()
    except Error:
        row = None  # the database is unavailable or not migrated, but the settings may define the pool
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


def _seen(name: str, status: Callable[[str], BrokerStatus]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Modules that enabled the GIL, attributes with a data race (thread_checks), and a note about missing data."""
    try:
        found = status(name)
    except BrokerError as error:
        return (), (), f"The workers' observations are unavailable: {error.message}"
    workers, pool = found.workers_of(name), found.pool(name)
    races = pool.races if pool else ()
    culprits = {worker.gil_culprit for worker in workers}
    note = "" if workers else "No worker has started yet: there are no observations."
    return tuple(sorted(culprits - {""})), races, note
