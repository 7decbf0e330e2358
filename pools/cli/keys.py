"""`snakepit keys`: lists, creates, rotates and revokes API keys, through the database."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.cli.completion import complete_pool
from snakepit.pools.cli.output import Problem, UsageError, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import AsJson
from snakepit.pools.cli.project import start_django
from snakepit.pools.cli.tables import NARROW, fitted

if TYPE_CHECKING:
    from snakepit.pools.models import ApiKey

TIMES = ("created_at", "expires_at", "last_used_at", "revoked_at")
Prefix = Annotated[str, typer.Argument(metavar="PREFIX", help="Prefix of the key, as `snakepit keys list` shows it.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="API keys: list, create, rotate and revoke.", no_args_is_help=True)
    group.command("list")(list_keys)
    group.command()(create)
    group.command()(rotate)
    group.command()(revoke)
    app.add_typer(group, name="keys")


def list_keys(as_json: AsJson = False) -> None:
    """List the keys, the newest first. Secrets are not stored, so nothing can show them."""
    with report_errors(as_json):
        start_django()
        from snakepit.pools.models import ApiKey

        found = [plain(key) for key in ApiKey.objects.select_related("owner")]
        if as_json:
            typer.echo(json_line(found))
        else:
            _table(found)


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Purpose of the key.")],
    *,
    owner: Annotated[str, typer.Option(help="User who owns it. The key can do no more than its owner.")],
    scope: Annotated[list[str] | None, typer.Option(help="A scope; may be repeated. [run, view]")] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="An allowed pool; may be repeated. [all]", autocompletion=complete_pool)
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="Days until it expires. [never]")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print its secret, once. Standard output has the secret alone."""
    with report_errors(as_json):
        start_django()
        from django.contrib.auth import get_user_model
        from django.core.exceptions import ValidationError

        from snakepit.pools.models import ApiKey
        from snakepit.pools.models.moments import utc_now

        model = get_user_model()
        user = model.objects.filter(**{model.USERNAME_FIELD: owner}).first()
        if user is None:
            raise UsageError(f"--owner: there is no user {owner!r}; create it in the admin first")
        try:
            key, secret = ApiKey.create(
                name=name, owner=user, scopes=tuple(scope or ("run", "view")), pools=tuple(pool or ()),
                expires_at=None if days is None else utc_now() + timedelta(days=days),
            )  # fmt: skip
        except ValidationError as error:
            raise UsageError(
                "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
            ) from error
        _print_secret(key, secret, as_json)


def rotate(prefix: Prefix, as_json: AsJson = False) -> None:
    """Create a successor with the same rights and print its secret. The old key stays valid for 7 days at most."""
    with report_errors(as_json):
        key, secret = _find(prefix).rotate()
        _print_secret(key, secret, as_json)


def revoke(prefix: Prefix, as_json: AsJson = False) -> None:
    """Make a key invalid now. Its open streams end within seconds."""
    with report_errors(as_json):
        key = _find(prefix)
        key.revoke()
        typer.echo(json_line(plain(key)) if as_json else f"{key} is revoked")


def _find(prefix: str) -> ApiKey:
    start_django()
    from snakepit.pools.models import ApiKey

    key = ApiKey.objects.select_related("owner").filter(prefix=prefix.removeprefix("snk_").partition("_")[0]).first()
    if key is None:
        raise Problem(f"No key has the prefix {prefix}; see: snakepit keys list")
    return key


def plain(key: ApiKey) -> dict[str, Any]:
    """A key as programs read it."""
    times = {name: getattr(key, name) for name in TIMES}
    shown = {
        "prefix": f"snk_{key.prefix}", "name": key.name, "owner": key.owner.get_username(), "scopes": key.scopes,
        "pools": key.pools, "usable": key.usable,
    }  # fmt: skip
    return {**shown, **{name: at.isoformat() if at else None for name, at in times.items()}}


def _print_secret(key: ApiKey, secret: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line({**plain(key), "secret": secret}))
        return
    typer.echo(f"{key}: this is its secret. It cannot be shown again.", err=True)
    typer.echo(secret)


def _table(found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    states = ["valid" if one["usable"] else "revoked" if one["revoked_at"] else "not valid" for one in found]
    columns: dict[str, list[str | Text]] = {
        "prefix": [one["prefix"] for one in found],
        "name": [Text(one["name"]) for one in found],
        "owner": [Text(one["owner"]) for one in found],
        "scopes": [" ".join(one["scopes"]) for one in found],
        "pools": [Text(" ".join(one["pools"]) or "all") for one in found],
        "state": [Text(state, "green" if state == "valid" else "dim") for state in states],
        "last used": [(one["last_used_at"] or "never")[:10] for one in found],
        "expires": [(one["expires_at"] or "never")[:10] for one in found],
    }
    width = None if sys.stdout.isatty() else NARROW + 40
    console = terminal(width=width, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    console.print(fitted(console, columns, less=("expires", "last used", "owner", "pools", "scopes")))
