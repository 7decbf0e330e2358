"""The table of libraries, read from `libraries.toml` and checked.

>>> library_of("PyYAML").name, library_of("sklearn.svm") is None, owner_of("sklearn.svm").name
('pyyaml', True, 'scikit-learn')
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

TABLE = Path(__file__).with_name("libraries.toml")
THREADS = ("safe", "conditional", "unsafe", "unknown")
GIL = ("releases", "partly", "holds", "pure", "unknown")
FREE_THREADING = ("wheels", "partial", "source", "none", "pure", "stdlib", "unknown")
VERSION = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One row; raises ValueError where a value is not one of those that the table's head explains."""

    name: str
    modules: tuple[str, ...]
    threads: str
    gil: str
    free_threading: str
    source: str
    checked: date
    since: str = ""
    minimum: str = ""
    advice: str = ""

    def __post_init__(self) -> None:
        allowed = {"threads": THREADS, "gil": GIL, "free_threading": FREE_THREADING}
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise ValueError(f"{self.name}: {field}: {getattr(self, field)!r} is not one of {', '.join(values)}")
        if self.name != canonical(self.name) or not self.modules:
            raise ValueError(f"{self.name}: a name as {canonical(self.name)!r} and its modules are wanted")
        for field in ("since", "minimum"):
            if (text := getattr(self, field)) and not VERSION.fullmatch(text):
                raise ValueError(f"{self.name}: {field}: {text!r} is not a version")
        if urlsplit(self.source).scheme != "https" or not urlsplit(self.source).hostname:
            raise ValueError(f"{self.name}: source: {self.source!r} is not the address of a page")
        if type(self.checked) is not date:
            raise ValueError(f"{self.name}: checked: {self.checked!r} is not a day")


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it: `PyYAML` is `pyyaml`, `ruamel.yaml` is `ruamel-yaml`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def libraries() -> dict[str, Library]:
    """Every row by its name."""
    rows = tomllib.loads(TABLE.read_text())["library"]
    found = [Library(**{**row, "modules": tuple(row["modules"])}) for row in rows]
    if len({one.name for one in found}) < len(found):
        raise ValueError("a library is in the table twice")
    return {one.name: one for one in found}


def library_of(distribution: str) -> Library | None:
    return libraries().get(canonical(distribution))


def owner_of(module: str) -> Library | None:
    """The library that a module belongs to, such as the one that switched the GIL on."""
    for one in libraries().values():
        if any(module == name or module.startswith(f"{name}.") for name in one.modules):
            return one
    return None


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared; what follows them counts for nothing.

    >>> numbers("1.10") > numbers("1.9.2rc1")
    True
    """
    match = VERSION.match(version)
    return tuple(map(int, match[0].split("."))) if match else ()
