"""Examples of the bodies of requests, for the page `/api/docs`, which fills its forms with them.

They use the pools of the demo, so most of them work there as they are.
"""

from __future__ import annotations

from typing import Any

JOB_ID = "0199d3a0-0000-7000-8000-000000000000"
REASON = {"reason": "planned maintenance"}

# By operation; a text stands for lines of NDJSON.
EXAMPLES: dict[str, Any] = {
    "call": {"below": 1_000_000},
    "submit_job": {
        "pool": "primes", "command": "count", "arguments": {"below": 1_000_000}, "max_attempts": 3, "tags": ["report"],
    },
    "submit_jobs": '{"below": 1000}\n{"below": 2000}\n',
    "create_stream_token": {"job": JOB_ID},
    "cancel_jobs": {"pool": "primes", "state": "queued", "dry_run": True},
    "retry_jobs": {"pool": "primes", "state": "failed", "dry_run": True},
    "delete_jobs": {"pool": "primes", "state": "succeeded", "dry_run": True},
    "add_periodic": {
        "name": "nightly-count", "pool": "primes", "command": "count", "arguments": {"below": 1_000_000},
        "cron": "30 2 * * *", "time_zone": "Europe/Berlin",
    },
    "change_periodic": {"misfire": "once", "priority": -5},
    "run_periodic": REASON, "pause_periodic": REASON, "resume_periodic": REASON,
    "add_pool": {"name": "primes2", "adapter": "primes", "profile": "thread", "threads": 4, "size": 1, "enabled": True},
    "change_pool": {"size": 2, "queue_limit": 500},
    "delete_pool": REASON,
    "recycle": REASON,
    "scale": {"size": 2, "reason": "more load"},
    "pause": REASON, "resume": REASON, "pause_queue": REASON, "resume_queue": REASON,
    "kill": {"reason": "hangs"},
    "dump": {"reason": "hangs"},
    "apply_recommendation": {"reason": "as advised"},
    "drain_node": REASON, "resume_node": REASON,
    "submit_workflow": {
        "name": "two counts",
        "jobs": [
            {"id": "first", "pool": "primes", "command": "count", "arguments": {"below": 1000}},
            {"pool": "primes", "command": "count", "arguments": {"below": 2000}, "after": ["first"]},
        ],
    },
}  # fmt: skip


def add_example(operation: dict[str, Any]) -> None:
    """Put the example of an operation's body beside its schema: of JSON, or of its only type."""
    content = operation.get("requestBody", {}).get("content", {})
    if content and (example := EXAMPLES.get(operation["operationId"])) is not None:
        content["application/json" if "application/json" in content else next(iter(content))]["example"] = example
