"""The columns of a job that go with its state, by the database's clock, so that one clock decides for all hosts.

On SQLite, `Now()` is this host's clock.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from snakepit.pools import conf


def moment(seconds: float) -> Any:
    """The database's current time plus `seconds`, as an expression."""
    return Now() + timedelta(seconds=seconds)


def claimed(claimant: str) -> dict[str, Any]:
    """The columns of a job that an attempt has just claimed; `attempts` rises beside them."""
    return {
        "lease_until": moment(conf.current().jobs_lease),
        "claimed_by": claimant[:200],
        "started_at": Now(),
        "progress": None,
        "progress_message": "",
    }


def waiting(pause: float) -> dict[str, Any]:
    """The columns of a job that is queued for at least `pause` seconds."""
    due = moment(pause)
    return {"queued_at": Now(), "run_after": due, "sent_at": due, "sends": 1, "finished_at": None, "expires_at": None}


def ended(retention: int) -> dict[str, Any]:
    """The columns of a job that has ended."""
    return {"finished_at": Now(), "expires_at": moment(retention)}
