"""What `snakepit up --demo` adds: a user, a key, a login link, and commands to copy."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

KEY = "snakepit up --demo"
POOL, COMMAND, ARGUMENTS = "primes", "count", {"below": 100000}


@dataclass(frozen=True, slots=True)
class Demo:
    """The secrets of one run; each run makes new ones. The token is of one login."""

    key: str
    login_token: str


def prepare() -> Demo:
    """Create the superuser, without a password, and a new key; the key of the last run is deleted."""
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from snakepit.pools.dashboard.demo import USER, login_token
    from snakepit.pools.models import ApiKey, schema
    from snakepit.pools.permissions import SCOPES

    with transaction.atomic(using=schema.alias()):
        user, fresh = get_user_model().objects.get_or_create(
            username=USER, defaults={"is_staff": True, "is_superuser": True}
        )
        if fresh:
            user.set_unusable_password()
            user.save()
        ApiKey.objects.filter(name=KEY, owner=user).delete()
        _, key = ApiKey.create(name=KEY, owner=user, scopes=tuple(SCOPES))
    return Demo(key, login_token(user))


def lines(demo: Demo, root: str, address: str) -> list[str]:
    """Commands to try next; each works as copied. `root` is empty without a web server."""
    body = json.dumps(ARGUMENTS)
    arguments = ", ".join(f"{name}={value!r}" for name, value in ARGUMENTS.items())
    found = []
    if root:
        found.append(
            f"curl -s {root}/api/pools/{POOL}/commands/{COMMAND} -H 'Authorization: Bearer {demo.key}' "
            f"-H 'Content-Type: application/json' -d '{body}'"
        )
    found.append(f"{cli(address)} call {POOL} {COMMAND} '{body}'")
    found.append(f"{cli(address)} status")
    call = f'connect("{address}").call("{POOL}", "{COMMAND}", {arguments})'
    code = f"from snakepit import connect; print({call})"
    found.append(f"{python()} -c '{code}'")
    return found


def cli(address: str) -> str:
    """The command for another terminal: with the address, if this one has its own runtime directory."""
    return f"SNAKEPIT_ADDRESS={address} {program()}" if "SNAKEPIT_RUNTIME_DIR" in os.environ else program()


def program() -> str:
    """The command that started this program, for the next command line."""
    called = Path(sys.argv[0])
    if called.name == "manage.py":
        return f"{python()} manage.py snakepit"
    return _relative(called) if called.name == "snakepit" else f"{python()} -m snakepit.pools.cli"


def python() -> str:
    return _relative(Path(sys.executable))


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
