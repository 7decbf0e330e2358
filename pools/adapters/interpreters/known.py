"""The interpreters of this machine: found in known places, checked, and chosen for pools.

    places ─▶ candidates ─▶ safe? ─▶ facts, read in a process ─▶ HostInterpreter (cached) ─▶ choose("3.13t")

A row in the database never names a program. It names a key of SNAKEPIT["PYTHONS"], `auto`, or a version. The latter two
are looked up among interpreters that only root and the broker's user can change.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from snakepit.pools.adapters.interpreters.interpreter import HostInterpreter, ask, find_mistrust
from snakepit.pools.broker.ports import Definition
from snakepit.pools.broker.spec import AUTO, OWN, PYTHON_VERSION, PoolSpec, Profile

PROGRAM = re.compile(r"python(3(\.\d+)?t?)?")
RECHECK = 10.0  # seconds after which an unfit interpreter is checked again: packages may have been installed
MAX_PARALLEL = 4  # interpreters that are started at the same time
FREE_THREADED = "SNAKEPIT_FREE_THREADED_PYTHON"


class InterpreterUnfit(Exception):
    """No interpreter can run the pool's workers; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The interpreter chosen for a pool, and why. `path` is empty for the broker's own."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class InterpreterKeys:
    """Where interpreters are looked for. `worker_path` is the workers' sys.path."""

    registry: Mapping[str, str] = field(default_factory=dict)
    venvs: tuple[str, ...] = ()
    worker_path: tuple[str, ...] = ()
    own: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def candidates(self) -> Iterator[tuple[str, str]]:
        """Pairs of where it was found and its path, the most specific place first."""
        yield "own", self.own
        yield from (("settings", path) for path in self.registry.values())
        for venv in self.venvs:
            yield "venv", str(Path(venv) / "bin" / "python")
        if named := self.environ.get(FREE_THREADED):
            yield "environment", named
        home = Path(self.environ.get("HOME") or Path.home())
        pyenv = Path(self.environ.get("PYENV_ROOT") or home / ".pyenv")
        uv = Path(self.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
        for where, root in (("pyenv", pyenv / "versions"), ("uv", uv)):
            for directory in sorted(root.glob("*/bin"), reverse=True):
                yield from ((where, path) for path in programs(directory))
        on_path = [one for one in self.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(one)]
        for directory in map(Path, on_path):
            if directory.name != "shims":  # pyenv's scripts, which choose an interpreter themselves
                yield from (("PATH", path) for path in programs(directory))
        for directory in (Path("/usr/local/bin"), Path("/usr/bin")):
            yield from (("system", path) for path in programs(directory))


def programs(directory: Path) -> list[str]:
    """Python programs of a directory, the most specific name first: python3.13t before python3."""
    try:
        names = [name for name in os.listdir(directory) if PROGRAM.fullmatch(name)]
    except OSError:
        return []
    return [str(directory / name) for name in sorted(names, key=lambda name: (-len(name), name))]


class Interpreters:
    """The interpreters of this machine. Reading the facts of one starts a process and blocks; facts are cached."""

    def __init__(self, places: InterpreterKeys) -> None:
        self._places = places
        self._known: dict[str, tuple[float, tuple[object, ...], HostInterpreter]] = {}
        self._chosen: dict[tuple[str, str], Choice] = {}

    def all(self) -> list[HostInterpreter]:
        """All that work, and those of the settings that do not, with the reason."""
        found = self._ask_all(distinct(self._places.candidates()))
        named = {*self._places.registry.values(), self._places.own}
        keys = {path: key for key, path in self._places.registry.items()}
        return [
            one.called(keys.get(one.path, "")) for one in found if one.path in named or one.where == "venv" or one.works
        ]

    def choose(self, wanted: str, profile: str) -> Choice:
        """Choose the interpreter for a pool: `wanted` is a key, `auto`, a version, or empty (the broker's own).

        A choice is kept while it is fit: a later installation must not replace the workers of a pool unexpectedly.
        """
        if not wanted:
            return Choice("", OWN)
        kept = self._chosen.get((wanted, profile))
        if kept and self._ask(kept.path or self._places.own, "").fit:
            return kept
        if wanted in self._places.registry:
            choice = self._named(wanted)
        elif wanted == AUTO:
            choice = self._best(profile)
        elif PYTHON_VERSION.fullmatch(wanted):
            choice = self._versioned(wanted)
        else:
            raise InterpreterUnfit(f"python: {wanted!r} is not a key of SNAKEPIT['PYTHONS'] here, nor a version")
        self._chosen[wanted, profile] = choice
        return choice

    def _named(self, key: str) -> Choice:
        one = self._ask(self._places.registry[key], "settings")
        require_fit(one)
        return Choice(one.path, f"{key}: {one.describe()}")

    def _versioned(self, wanted: str) -> Choice:
        everyone = self.all()
        matching = [one for one in everyone if one.works and one.matches(wanted)]
        if not matching:
            there = ", ".join(sorted({one.name for one in everyone if one.works})) or "none"
            raise InterpreterUnfit(
                f"python: no Python {wanted} is on this node (found: {there}); install it, or add the directory "
                "of its environment to SNAKEPIT['VENVS']; `snakepit pythons` lists what is found"
            )
        one = next((one for one in matching if one.fit), matching[0])
        require_fit(one)
        return Choice(self._path_of(one), f"{wanted}: {one.describe()}")

    def _best(self, profile: str) -> Choice:
        if profile != Profile.THREAD:
            return Choice("", f"auto: {OWN}; the process profile gains nothing from another")
        free = [one for one in self.all() if one.works and one.free_threaded and not one.gil_enabled]
        fit = [one for one in free if one.fit]
        if fit:
            return Choice(self._path_of(fit[0]), f"auto: {fit[0].describe()}")
        lacking = f"{free[0].path} has none, but: {free[0].unfit}" if free else "no free-threaded interpreter was found"
        return Choice("", f"auto: {OWN}, with a GIL: {lacking}")

    def _path_of(self, one: HostInterpreter) -> str:
        return "" if one.path == self._places.own else one.path

    def _ask_all(self, candidates: Iterable[tuple[str, str]]) -> list[HostInterpreter]:
        with ThreadPoolExecutor(MAX_PARALLEL) as pool:
            asked = list(pool.map(lambda candidate: self._ask(candidate[1], candidate[0]), candidates))
        # Several paths may lead to one environment, and a path may be a script that starts another interpreter.
        first: dict[tuple[str, str], HostInterpreter] = {}
        for one in asked:
            first.setdefault((one.prefix or one.path, one.version), one)
        return list(first.values())

    def _ask(self, path: str, where: str) -> HostInterpreter:
        stamp = stamp_of(path)
        at, known_stamp, known = self._known.get(path, (0.0, (), None))
        if known and known_stamp == stamp and (known.fit or time.monotonic() - at < RECHECK):
            return known
        problem = find_mistrust(path)
        asked = HostInterpreter(path, where, problem=problem) if problem else ask(path, where, self._places.worker_path)
        self._known[path] = time.monotonic(), stamp, asked
        return asked


def define(spec: PoolSpec, adapter_path: str, interpreters: Interpreters) -> Definition:
    """A pool's definition with its interpreter, or with the reason why none can run its workers."""
    try:
        choice = interpreters.choose(spec.python, spec.profile)
    except InterpreterUnfit as error:
        return Definition(spec, adapter_path, unfit=str(error))
    return Definition(replace(spec, python=choice.path), adapter_path, choice.reason)


def require_fit(one: HostInterpreter) -> None:
    if not one.fit:
        raise InterpreterUnfit(f"python: {one.path} cannot run workers: {one.unfit}")


def stamp_of(path: str) -> tuple[object, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return os.path.realpath(path), status.st_mtime_ns, status.st_size


def distinct(candidates: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each environment once, identified by its real program; a virtual environment by its directory."""
    seen: set[str] = set()
    kept = []
    for where, path in candidates:
        home = Path(path).parent.parent
        virtual = (home / "pyvenv.cfg").is_file()
        mark = str(home.resolve()) if virtual else os.path.realpath(path)
        if mark not in seen and (os.access(path, os.X_OK) or where in ("settings", "venv")):
            seen.add(mark)
            kept.append((where, path))
    return kept


def interpreters_of_settings() -> Interpreters:
    """The interpreters according to this project's settings."""
    from snakepit.pools import conf

    settings = conf.current()
    return Interpreters(
        InterpreterKeys(registry=settings.pythons, venvs=settings.venvs, worker_path=tuple(conf.worker_path()))
    )
