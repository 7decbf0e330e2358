"""`snakepit doctor --security`: gathers the facts of the running service and runs the security checks on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from snakepit.pools import conf
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics import exposure, machine, protection
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.diagnostics.finding import DoctorReport, report_of
from snakepit.pools.diagnostics.security_checks import CHECKS
from snakepit.pools.diagnostics.security_facts import SecurityFacts

Known = TypeVar("Known")


def examine(status: Callable[[], BrokerStatus]) -> DoctorReport:
    """The whole checklist. `status` asks the broker and may raise a BrokerError."""
    at, began = time.time(), time.monotonic()
    names: list[str] = []

    def asked() -> BrokerStatus:
        found = status()
        names.append(found.node.name)
        return found

    known = gather(asked)
    findings = [finding for check in CHECKS for finding in check(known)]
    return report_of(at, time.monotonic() - began, findings, names[0] if names else machine.node_name())


def gather(status: Callable[[], BrokerStatus]) -> SecurityFacts:
    if problems := list(conf.find_problems()):
        unknown = Unknown(f"the settings are wrong: {problems[0]}")
        return SecurityFacts(
            deploy=unknown, runtime=unknown, user=os.geteuid(), broker=unknown, workers=unknown, reach=unknown,
            environment=unknown, keys=unknown, network=unknown, limits=unknown, services=unknown,
        )  # fmt: skip
    live = _guarded(status)
    workers = live if isinstance(live, Unknown) else protection.workers(live)
    return SecurityFacts(
        deploy=_guarded(protection.deploy),
        runtime=_guarded(protection.runtime),
        user=os.geteuid(),
        broker=live if isinstance(live, Unknown) else protection.broker_process(live),
        workers=workers,
        reach=workers if isinstance(workers, Unknown) else _guarded(lambda: protection.reach(workers)),
        environment=_guarded(protection.environment),
        keys=_guarded(exposure.api_keys),
        network=live if isinstance(live, Unknown) else _guarded(lambda: exposure.network(live)),
        limits=_guarded(exposure.limits),
        services=_guarded(protection.services),
    )


def _guarded(question: Callable[[], Known]) -> Known | Unknown:
    """Ask for one part of the facts; an error makes this part Unknown and no other."""
    try:
        return question()
    except BrokerError as error:
        return Unknown(error.message)
    except Exception as error:
        return Unknown(f"could not be read: {type(error).__name__}: {error}")
