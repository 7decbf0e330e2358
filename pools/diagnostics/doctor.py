"""Gathers the facts in parallel and runs the checks on them.

settings, runtime directory, machine ─┐
database, message transport ──────────┼─▶ SystemFacts ─▶ CHECKS ─▶ DoctorReport
broker, interpreters, adapters ───────┘
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from snakepit.pools import conf
from snakepit.pools.adapters.interpreters.known import Interpreters, define, interpreters_of_settings
from snakepit.pools.adapters.network.client_certificate import client_certificate
from snakepit.pools.broker.errors import BrokerError, is_silent
from snakepit.pools.broker.ports import Definition
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics import facts, interpreters, machine, services
from snakepit.pools.diagnostics.facts import SystemFacts, Unknown
from snakepit.pools.diagnostics.finding import DoctorReport, report_of
from snakepit.pools.diagnostics.local_checks import CHECKS
from snakepit.pools.jobs.messages import queue_of
from snakepit.pools.models.hosting import is_hosted

Known = TypeVar("Known")


def examine(status: Callable[[], BrokerStatus], address: str) -> DoctorReport:
    """The whole checklist. `status` asks the broker and may raise a BrokerError."""
    at, began = time.time(), time.monotonic()
    known = gather(status, address)
    findings = [finding for check in CHECKS for finding in check(known)]
    node = machine.node_name() if isinstance(known.broker, Unknown) else known.broker.node.name
    return report_of(at, time.monotonic() - began, findings, node)


def gather(status: Callable[[], BrokerStatus], address: str) -> SystemFacts:
    if problems := tuple(conf.find_problems()):
        return _nothing_but(problems, address)
    with ThreadPoolExecutor(max_workers=6, thread_name_prefix="doctor") as threads:
        broker = threads.submit(_broker, status)
        database = threads.submit(_guarded, services.database)
        transport = threads.submit(_guarded, services.transport)
        celery = threads.submit(_guarded, services.celery)
        local = threads.submit(_guarded, lambda: _machine(broker.result()))
        place = threads.submit(_guarded, lambda: machine.runtime(conf.runtime_dir(), data_directories()))
        fast_path = threads.submit(_guarded, machine.fast_path)
        pools = _pools(threads, database.result())
        return SystemFacts(
            settings=_settings(tuple(conf.find_pool_problems()), conf.current().sweep_interval),
            runtime=place.result(),
            machine=local.result(),
            broker=broker.result(),
            address=address,
            database=database.result(),
            transport=transport.result(),
            celery=celery.result(),
            fast_path=fast_path.result(),
            pools=pools,
            client_certificate=_guarded(_client_certificate),
            now=time.time(),
        )


def _client_certificate() -> facts.CertificateFacts | None:
    if (one := client_certificate()) is None:
        return None
    return facts.CertificateFacts(path=one.path, issued=one.issued, expires=one.expires, trouble=one.trouble)


def _nothing_but(problems: tuple[str, ...], address: str) -> SystemFacts:
    """Facts when the settings are wrong: everything else needs them."""
    unknown = Unknown("the settings are wrong")
    return SystemFacts(
        settings=_settings(problems, 0.0), runtime=unknown, machine=unknown, broker=unknown, address=address,
        database=unknown, transport=unknown, fast_path=unknown, pools=unknown,
    )  # fmt: skip


def _guarded(question: Callable[[], Known | Unknown]) -> Known | Unknown:
    """Ask for one part of the facts; an error makes this part Unknown and no other."""
    try:
        return question()
    except Exception as error:
        return Unknown(f"could not be read: {type(error).__name__}: {error}")


def _broker(status: Callable[[], BrokerStatus]) -> BrokerStatus | Unknown:
    try:
        return status()
    except BrokerError as error:
        return Unknown(error.message, is_silent(error))


def _machine(broker: BrokerStatus | Unknown) -> facts.MachineFacts:
    return machine.machine(0 if isinstance(broker, Unknown) else broker.node.pid)


def _settings(problems: tuple[str, ...], interval: float) -> facts.SettingsFacts:
    from django.conf import settings

    key = str(settings.SECRET_KEY)
    return facts.SettingsFacts(
        problems=problems,
        debug=bool(settings.DEBUG),
        allowed_hosts=tuple(map(str, settings.ALLOWED_HOSTS)),
        secret_key_length=len(key),
        secret_key_variety=len(set(key)),
        secret_key_insecure=key.startswith("django-insecure-"),
        release=conf.release(),
        sweep_interval=interval,
    )


def data_directories() -> list[Path]:
    """Where SQLite's files are."""
    from django.conf import settings

    names = [one["NAME"] for one in settings.DATABASES.values() if one.get("ENGINE", "").endswith("sqlite3")]
    return [
        Path(name).parent for name in names if str(name) not in ("", ":memory:") and not str(name).startswith("file:")
    ]


def _pools(
    threads: ThreadPoolExecutor, database: facts.DatabaseFacts | Unknown
) -> tuple[facts.PoolFacts, ...] | Unknown:
    """The defined pools: from their rows, or from the settings if the database cannot be read."""
    wanted: list[tuple[str, PoolSpec | str]]
    if isinstance(database, Unknown) or database.unapplied:
        wanted = [(spec.name, spec) for spec in conf.pool_specs()] if not conf.find_pool_problems() else []
    else:
        wanted = threads.submit(_rows).result()
    registry = conf.adapters()
    known = interpreters_of_settings()
    chosen = {spec.name: _define(spec, registry, known) for _, spec in wanted if isinstance(spec, PoolSpec)}
    asked: dict[tuple[Any, ...], Any] = {}
    place, more = tuple(conf.worker_path()), tuple(conf.current().worker_env)
    for one in chosen.values():
        if not isinstance(one, Definition) or one.unfit or not one.spec.enabled or not is_hosted(one.spec.nodes):
            continue
        if _question(one) not in asked:
            given = one.spec.python, one.adapter_path, place, dict(one.spec.env), more
            asked[_question(one)] = threads.submit(interpreters.adapter, *given)
    found = []
    for name, spec in wanted:
        if isinstance(spec, str):
            found.append(_refused(name, spec))
        else:
            found.append(_pool(spec, chosen[name], asked))
    return tuple(found)


def _define(spec: PoolSpec, registry: Mapping[str, str], known: Interpreters) -> Definition | str:
    """The definition with its interpreter, chosen as the broker does; or why it is refused."""
    path = registry.get(spec.adapter)
    if path is None:
        return f"adapter: {spec.adapter!r} is no key of SNAKEPIT['ADAPTERS'] on this node"
    if why := conf.find_python_problem(spec.python):
        return f"python: {why}"
    return define(spec, path, known)


def _question(one: Definition) -> tuple[Any, ...]:
    return one.spec.python, one.adapter_path, tuple(sorted(one.spec.env.items()))


def _pool(spec: PoolSpec, one: Definition | str, asked: Mapping[tuple[Any, ...], Any]) -> facts.PoolFacts:
    here = is_hosted(spec.nodes)
    refused = Unknown("the pool's definition is refused")
    interpreter: facts.InterpreterFacts | Unknown = refused
    adapter: facts.AdapterFacts | Unknown = refused
    if isinstance(one, Definition):
        path = one.spec.python or sys.executable
        interpreter = facts.InterpreterFacts(path=path, about=f"{one.interpreter}: {path}", error=one.unfit)
        adapter = Unknown("was not asked: no interpreter can run the pool's workers, or it is not enabled here")
        if future := asked.get(_question(one)):
            adapter = future.result()
    return facts.PoolFacts(
        name=spec.name,
        profile=str(spec.profile),
        size=spec.size,
        slots=spec.slots,
        queue=queue_of(spec.name),
        enabled=spec.enabled,
        interpreter=interpreter,
        adapter=adapter,
        problem=one if isinstance(one, str) and here else "",
        nodes=spec.nodes,
        here=here,
    )


def _refused(name: str, why: str) -> facts.PoolFacts:
    unknown = Unknown("the pool's definition is refused")
    return facts.PoolFacts(
        name=name, profile="", size=0, slots=0, queue=queue_of(name), enabled=True, interpreter=unknown,
        adapter=unknown, problem=why,
    )  # fmt: skip


def _rows() -> list[tuple[str, PoolSpec | str]]:
    from django.db import connections

    from snakepit.pools.models import Pool

    found: list[tuple[str, PoolSpec | str]] = []
    try:
        for row in Pool.objects.order_by("name"):
            try:
                found.append((row.name, row.to_spec()))
            except InvalidSpec as error:
                found.append((row.name, str(error)))
    finally:
        connections.close_all()
    return found
