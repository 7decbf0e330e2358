"""Reads the facts about callers that the security checks judge: keys, their limits, network addresses, certificates."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from snakepit.pools import conf
from snakepit.pools.adapters.network.certificate_file import PEM_ENCODING
from snakepit.pools.adapters.network.revocation import read_lists
from snakepit.pools.broker.caller import find_limit_problem
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.diagnostics.security_facts import (
    KeyFacts,
    LimitFacts,
    ListenerFacts,
    NetworkFacts,
    RevocationFacts,
)
from snakepit.pools.listening import ListenAddress
from snakepit.pools.models import ApiKey
from snakepit.pools.models.moments import utc_now

DAY = 86_400.0  # seconds
# 0 switches these off. The others have a default of no limit, or a share of the pool's queues beside them.
BOUNDS = {
    "KEY_LIMITS": ("calls_per_second", "calls_in_flight", "streams"),
    "OWNER_LIMITS": ("calls_in_flight", "streams"),
}


def api_keys() -> tuple[KeyFacts, ...]:
    now = utc_now()
    rows = _usable()
    newest: dict[tuple[str, int], ApiKey] = {}
    for row in rows:  # newest first
        newest.setdefault((row.name, row.owner_id), row)
    return tuple(
        KeyFacts(
            name=str(row),
            days_left=None if row.expires_at is None else (row.expires_at - now).total_seconds() / DAY,
            unused_days=(now - (row.last_used_at or row.created_at)).total_seconds() / DAY,
            successor="" if (last := newest[row.name, row.owner_id]) is row else last.visible,
        )
        for row in rows
    )


def _usable() -> list[ApiKey]:
    rows = ApiKey.objects.select_related("owner").filter(revoked_at__isnull=True)
    return [key for key in rows if key.usable]


def limits() -> LimitFacts:
    known = conf.current()
    given = {"KEY_LIMITS": conf.key_limits(), "OWNER_LIMITS": conf.owner_limits()}
    own = [(key, key.limits) for key in _usable() if key.limits and not find_limit_problem(key.limits)]
    shares = [name for name in ("KEY_SHARE", "OWNER_SHARE") if getattr(known, name.lower()) >= 1]
    off = [f"{setting}[{name!r}] is 0" for setting, names in BOUNDS.items() for name in _off(given[setting], names)]
    return LimitFacts(
        settings=(*off, *(f"{name} is the whole queue" for name in shares)),
        keys=tuple(f"{key}: {name}" for key, values in own for name in BOUNDS["KEY_LIMITS"] if values.get(name) == 0),
        number=len(own),
    )


def _off(values: object, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(values, name) == 0]


def network(status: BrokerStatus) -> NetworkFacts:
    now = time.time()
    return NetworkFacts(
        listeners=tuple(
            ListenerFacts(
                address=one.address,
                loopback=ListenAddress.parse(one.address).is_loopback,
                tls=one.tls,
                days_left=(one.certificate_expires - now) / DAY,
                trouble=one.problem,
            )
            for one in status.node.listeners
        ),
        revocation=_revocation(conf.current().listen_tls.get("crl", ""), now),
    )


def _revocation(path: str, now: float) -> RevocationFacts | Unknown | None:
    if not path:
        return None
    try:
        found = read_lists(Path(path).read_text(PEM_ENCODING))
    except (OSError, ValueError, IndexError) as error:
        return Unknown(f"the revocation lists {path} cannot be read: {error}")
    days = (found.expires - now) / DAY if found.expires else None
    return RevocationFacts(path=path, revoked=len(found.revoked), days_left=days)
