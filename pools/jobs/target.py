"""Find the pool of a submission, and check arguments against its limit and its commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from snakepit.pools import conf
from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerError, PoolUnknown
from snakepit.pools.broker.job_limits import find_problem, key_of
from snakepit.pools.broker.spec import ON_FAILURE, PoolSpec
from snakepit.pools.broker.status import CommandInfo
from snakepit.pools.broker.unknown_names import no_command
from snakepit.pools.client import shared
from snakepit.pools.jobs import commands, in_process
from snakepit.pools.jobs.arguments import check_size
from snakepit.pools.jobs.schema_check import problems
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models import Pool
from snakepit.pools.models.strict_json import find_problem as find_wrong

NAME = re.compile(r"[^\W\d]\w{0,199}")


class JobTarget:
    """A command of a pool, for any number of jobs. Pool and commands are read once."""

    def __init__(self, pool: str, command: str) -> None:
        if not isinstance(pool, str) or find_wrong(pool):
            raise BadRequest("pool: must be the name of a pool")
        if not isinstance(command, str) or not NAME.fullmatch(command):
            raise BadRequest(f"command: {shown(command)} is not the name of a command")
        if command == ON_FAILURE:
            raise BadRequest("command: on_failure is a hook of the adapter, which runs after a job has failed")
        spec = definition(pool)
        if spec is None or not spec.enabled:
            raise PoolUnknown(f"No pool is named {shown(pool)}." if spec is None else f"The pool {pool!r} is disabled.")
        self._pool, self._command, self._largest = pool, command, spec.max_payload
        self._limits = () if find_problem(spec.job_limits) else spec.job_limits
        self._known: commands.Commands | None = None
        self._parsed: tuple[CommandInfo, Mapping[str, Any]] | None = None
        self._read = self._fresh = False

    def check(
        self,
        arguments: Mapping[str, Any],
        later: frozenset[str] = frozenset(),
        unique_by: frozenset[str] = frozenset(),
        size: int | None = None,
    ) -> None:
        """Refuse what the pool's workers would refuse. Without an answer of the broker, an attempt finds the error.

        A rollout may have changed the commands since they were read. Therefore a refusal needs a fresh answer.
        `later` names arguments whose values are not known yet, `unique_by` those that make the job unique.
        `size`: the characters of `json.dumps`, which are never fewer than the bytes that the limit counts.
        """
        if size is None or size > self._largest:
            check_size(self._pool, arguments, self._largest)
        self._ask()
        refusal = self._refusal(arguments, later, unique_by)
        if refusal and not self._fresh:
            self._fresh, self._known = True, commands.cache.find(shared.client(), self._pool, fresh=True)
            refusal = self._refusal(arguments, later, unique_by)
        if refusal:
            raise refusal

    def limit_key(self, arguments: Mapping[str, Any]) -> str:
        """The job's key for the pool's limit by an argument; empty if there is none."""
        return key_of(self._limits, arguments) if self._limits else ""

    @property
    def hooked(self) -> bool:
        """Whether the adapter has the hook `on_failure`."""
        self._ask()
        return bool(self._known) and ON_FAILURE in (self._known or {})

    def _ask(self) -> None:
        if not self._read:
            self._read, self._known = True, commands.cache.find(shared.client(), self._pool)

    def _refusal(
        self, arguments: Mapping[str, Any], later: frozenset[str], unique_by: frozenset[str]
    ) -> BrokerError | None:
        if not self._known:
            return None
        if self._command not in self._known:
            return no_command(self._pool, self._command, self._known)
        schema = self._schema_of(self._known[self._command])
        # An argument that comes later must exist, and is not missing. Its value is checked in the worker.
        known = set(schema.get("properties", {})) if later or unique_by else ()
        if later:
            required = [name for name in schema.get("required", ()) if name not in later]
            found = problems({**schema, "required": required}, {**dict.fromkeys(later.difference(known)), **arguments})
        else:
            found = problems(schema, arguments)
        if found:
            return BadArguments("; ".join(found.values()), details={"arguments": found})
        # A misspelt name would make all jobs of the command the same.
        misspelt = dict.fromkeys(sorted(unique_by.difference(known)), None)
        if misspelt and (found := problems({**schema, "required": []}, misspelt)):
            return BadRequest(f"unique: by: {'; '.join(found.values())}")
        return None

    def _schema_of(self, info: CommandInfo) -> Mapping[str, Any]:
        """The schema of the command's arguments, parsed once for all rows of a bulk submission."""
        if self._parsed is None or self._parsed[0] is not info:
            self._parsed = (info, info.arguments)
        return self._parsed[1]


def definition(pool: str) -> Pool | PoolSpec | None:
    """The pool's row, or what stands for it; None if there is no such pool."""
    if in_process.runner is not None and (spec := in_process.runner.spec(pool)):
        return spec
    row = Pool.objects.filter(name=pool).first()
    # A starting broker writes the settings' pools as rows. Jobs may be submitted before that.
    return next((one for one in conf.pool_specs() if one.name == pool), None) if row is None else row
