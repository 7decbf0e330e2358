"""`snakepit new-adapter`: writes a working adapter to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from snakepit.pools.cli.output import UsageError, report_errors

NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
TAKEN = {"Adapter", "Context", "Iterator", "None", "True", "False"}  # names that the template imports

TEMPLATE = '''\
"""The adapter `{name}`: what it does, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from snakepit.workers import Adapter, Context, command


class {cls}(Adapter):
    """Keyword arguments of __init__ come from the pool's `args`."""

    # The thread profile requires this. Set it if each command uses only its arguments,
    # read-only state, self.local (one for each thread), or state it changes under self.lock.
    thread_safe = False

    def __init__(self, greeting: str = "Hello") -> None:
        self.greeting = greeting

    @classmethod
    def preload(cls) -> None:
        """Once for all workers, which are forked afterwards: models that are only read. No threads, no connections."""

    def setup(self) -> None:
        """Once in each worker, after the fork: connections, GPU, random generators."""

    def teardown(self) -> None:
        """Once in each worker, before it ends."""

    @command(idempotent=True)  # idempotent: may run again if its worker dies
    def greet(self, name: str) -> str:
        """The first line is what callers see; the types become the form and the checks."""
        return f"{{self.greeting}} {{name}}"

    @command(timeout=60)
    def count(self, ctx: Context, to: int = 3) -> Iterator[int]:
        """A generator streams what it yields. `ctx` is passed by the worker, not by the caller."""
        for number in range(1, to + 1):
            ctx.raise_if_cancelled()
            ctx.progress(number / to, f"{{number}} of {{to}}")
            yield number
'''

SETTINGS = """\
Add it to the settings:

    SNAKEPIT = {{
        "ADAPTERS": {{"{name}": "{dotted}"}},
        "POOLS": {{"{name}": {{"adapter": "{name}", "size": 2}}}},
    }}

Then, with a broker running (snakepit broker):

    snakepit call {name} greet '{{"name": "Ada"}}'
    snakepit call {name} count '{{"to": 5}}' --stream
"""


def register(app: typer.Typer) -> None:
    app.command("new-adapter")(new_adapter)


def new_adapter(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the adapter and its file: lower-case letters, digits and _.")
    ],
    path: Annotated[Path, typer.Option(help="Directory, or file, to write to.")] = Path(),
) -> None:
    """Write a working adapter with comments, and print the settings of a pool for it."""
    with report_errors():
        target = write(name, path)
    typer.echo(f"Wrote {target}\n")
    typer.echo(SETTINGS.format(name=name, dotted=dotted_path(name, target)), nl=False)


def write(name: str, path: Path) -> Path:
    """Write the new file. Raises UsageError for a bad name or an existing file."""
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(f"name: {name!r} cannot name an adapter: a-z, 0-9 and _, a letter first, no word of Python's")
    target = path if path.suffix == ".py" else path / f"{name}.py"
    if not target.stem.isidentifier():
        raise UsageError(f"path: {target.name} cannot be imported; use a name of letters, digits and _")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x") as file:
            file.write(TEMPLATE.format(name=name, cls=class_name(name)))
    except FileExistsError:
        raise UsageError(f"path: {target} exists already and is not overwritten") from None
    except OSError as error:
        raise UsageError(f"path: {target} cannot be written: {error.strerror}") from error
    return target


def class_name(name: str) -> str:
    """The class for an adapter's name.

    >>> class_name("price_list")
    'PriceList'
    """
    found = "".join(part.capitalize() for part in name.split("_"))
    return f"{found}Adapter" if found in TAKEN else found


def dotted_path(name: str, target: Path) -> str:
    """How settings name the class, as seen from the working directory."""
    try:
        parts = target.absolute().relative_to(Path.cwd()).with_suffix("").parts
    except ValueError:
        parts = (target.stem,)
    return ".".join([*parts, class_name(name)])
