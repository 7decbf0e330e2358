"""The bounds of numbers and names in the OpenAPI description. `query` refuses longer values of query parameters."""

from __future__ import annotations

from typing import Any

from snakepit.pools.broker.spec import FIELDS

PAGE: dict[str, Any] = {"minimum": 1, "maximum": 1000}
SIZE: dict[str, Any] = {"minimum": FIELDS["size"].metadata["low"], "maximum": FIELDS["size"].metadata["high"]}
# Characters of names in paths and queries.
NAMES = {"pool": 48, "worker": 100, "node": 200, "command": 200, "job_id": 36, "workflow_id": 36, "advice": 100,
         "cursor": 500, "owner": 150, "tag": 50, "state": 16, "kind": 48, "actor": 200, "action": 48, "target": 200,
         "outcome": 48, "name": 40}  # fmt: skip
