"""New workers when adapter code changes, for development: `snakepit broker --reload`.

The broker reads its definitions once a second. With this port, each definition also has the number of changes of the
source files so far. A new number makes the broker replace the pool's workers: successors are ready first, so an adapter
that cannot be imported leaves the present workers serving.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from snakepit.pools.broker.ports import Definitions, Loaded

SKIPPED = {"__pycache__", "node_modules"}
MOST_FILES = 20_000  # stat() of so many takes about 0.1 s; files beyond them are not watched

Stamp = tuple[int, int]  # time of the last change in nanoseconds, and size


class ReloadingDefinitions:
    """The port `Definitions`: those of another one, with the changes of the source files under some directories."""

    def __init__(self, inner: Definitions, places: Sequence[str]) -> None:
        self._inner = inner
        self._places = tuple(Path(place) for place in places)
        self._stamps = self._read_stamps()
        self._code = (0, "")

    def load(self) -> Loaded:
        """Read the definitions. Blocks, as that of the inner port does."""
        found = self._read_stamps()
        if changed := sorted(path for path, _ in found.items() ^ self._stamps.items()):
            self._stamps = found
            self._code = (self._code[0] + 1, self._name(changed[0]))
        loaded = self._inner.load()
        return replace(loaded, definitions=tuple(replace(one, code=self._code) for one in loaded.definitions))

    def _read_stamps(self) -> dict[Path, Stamp]:
        found: dict[Path, Stamp] = {}
        for path in _sources(self._places):
            if len(found) >= MOST_FILES:
                break
            try:
                status = path.stat()
            except OSError:  # removed meanwhile
                continue
            found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def _name(self, path: Path) -> str:
        for place in self._places:
            if path.is_relative_to(place) and path != place:
                return str(path.relative_to(place))
        return str(path)


def _sources(places: Sequence[Path]) -> Iterator[Path]:
    """Python files and archives. Environments, hidden directories and caches are left out."""
    for place in places:
        if place.is_file():
            yield place
        for directory, names, files in os.walk(place):
            here = Path(directory)
            names[:] = [name for name in names if not _is_skipped(here / name)]
            yield from (here / name for name in files if name.endswith(".py"))


def _is_skipped(directory: Path) -> bool:
    name = directory.name
    return name.startswith(".") or name in SKIPPED or (directory / "pyvenv.cfg").exists()
