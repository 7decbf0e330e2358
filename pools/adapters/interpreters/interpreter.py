"""One interpreter: whether it is safe to run, its facts, and whether it can run workers."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ASK_SECONDS = 20.0
OLDEST = (3, 11)
# All that a worker imports: distribution -> (module, at least, below). A test holds it to the extra `worker`.
REQUIREMENTS = {
    "grpclib": ("grpclib.server", "0.4.9", "0.5"),
    "h2": ("h2.connection", "4.3", "5"),
    "protobuf": ("google.protobuf.message", "6.31.1", "8"),
}
# The variables that an interpreter inherits while its facts are read.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")

# Runs in any Python 3 and prints one JSON object as its last line. It imports what a worker imports: only that shows a
# broken installation, or a library that switches the GIL on.
QUESTION = """\
import json, os, platform, sys, sysconfig
facts = {
    "version": platform.python_version(),
    "implementation": platform.python_implementation(),
    "prefix": sys.prefix,
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "managed": sys.prefix == sys.base_prefix
        and os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")),
    "installed": {}, "broken": {},
}
if sys.version_info >= (3, 11):
    import importlib
    from importlib import metadata
    for name, module in json.loads(sys.argv[1]).items():
        try:
            facts["installed"][name] = metadata.version(name)
            importlib.import_module(module)
        except metadata.PackageNotFoundError:
            pass
        except BaseException as error:
            facts["broken"][name] = "%s: %s" % (type(error).__name__, error)
facts["gil_enabled"] = getattr(sys, "_is_gil_enabled", lambda: True)()
print()
print(json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class HostInterpreter:
    """An interpreter of this host. `problem`: why it cannot be used at all. `lacks`: requirements that are not met."""

    path: str
    where: str
    key: str = ""
    version: str = ""
    implementation: str = ""
    prefix: str = ""
    free_threaded: bool = False
    gil_enabled: bool = True
    managed: bool = False  # by the operating system, whose pip refuses to install
    lacks: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """Its version in the form that pools use, such as 3.13t."""
        return ".".join(self.version.split(".")[:2]) + ("t" if self.free_threaded else "")

    @property
    def works(self) -> bool:
        return not self.problem

    @property
    def fit(self) -> bool:
        return not self.problem and not self.lacks

    @property
    def unfit(self) -> str:
        """Why it cannot run workers, and what to do; empty if it can."""
        if self.problem:
            return self.problem
        return f"{'; '.join(self.lacks)}. Install: {self.install_command}" if self.lacks else ""

    @property
    def install_command(self) -> str:
        wanted = " ".join(shlex.quote(f"{name}>={low},<{below}") for name, (_, low, below) in REQUIREMENTS.items())
        program = shlex.quote(self.path)
        if self.managed:  # its pip refuses to change packages of the system
            return f"{program} -m venv .venv-{self.name} && .venv-{self.name}/bin/python -m pip install {wanted}"
        return f"{program} -m pip install {wanted}"

    def matches(self, wanted: str) -> bool:
        """
        >>> HostInterpreter("/p", "PATH", version="3.13.5", free_threaded=True).matches("3.13t")
        True
        >>> HostInterpreter("/p", "PATH", version="3.13.5", free_threaded=True).matches("3.13")
        False
        """
        number = wanted.removesuffix("t")
        same = self.version == number or self.version.startswith(number + ".")
        return same and self.free_threaded == wanted.endswith("t")

    def describe(self) -> str:
        gil = "GIL on" if self.gil_enabled else "GIL off"
        build = f"{'free-threaded, ' if self.free_threaded else ''}{gil}"
        return f"{self.implementation} {self.version} ({build}) at {self.path}"

    def called(self, key: str) -> HostInterpreter:
        return replace(self, key=key) if key else self

    def facts(self) -> dict[str, Any]:
        """The facts for `snakepit pythons --json`."""
        return {
            "key": self.key,
            "name": self.name if self.version else "",
            "version": self.version,
            "implementation": self.implementation,
            "path": self.path,
            "where": self.where,
            "prefix": self.prefix,
            "free_threaded": self.free_threaded,
            "gil": "on" if self.gil_enabled else "off",
            "fit": self.fit,
            "lacks": list(self.lacks),
            "problem": self.problem,
            "install": self.install_command if self.lacks else "",
        }


def ask(path: str, where: str, worker_path: Iterable[str] = ()) -> HostInterpreter:
    """Run it once to read its facts. Never raises: an error becomes its `problem`."""
    modules = json.dumps({name: module for name, (module, _, _) in REQUIREMENTS.items()})
    env = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    env["PYTHONPATH"] = os.pathsep.join(worker_path)
    try:
        # In the root directory: a module beside the broker must not shadow one of the interpreter's own.
        done = subprocess.run(
            [path, "-c", QUESTION, modules],
            cwd="/", env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=ASK_SECONDS, check=False,
        )  # fmt: skip
        facts = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return HostInterpreter(path, where, problem=f"it did not answer within {ASK_SECONDS:g} s")
    except OSError as error:
        return HostInterpreter(path, where, problem=f"it cannot be started: {error.strerror}")
    except ValueError:
        words = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return HostInterpreter(path, where, problem=f"it is not Python 3.11 or newer; its output: {words[:200]}")
    return _read(path, where, facts)


def _read(path: str, where: str, facts: dict[str, Any]) -> HostInterpreter:
    old = numbers(facts["version"])[:2] < OLDEST
    return HostInterpreter(
        path=path,
        where=where,
        version=facts["version"],
        implementation=facts["implementation"],
        prefix=facts["prefix"],
        free_threaded=facts["free_threaded"],
        gil_enabled=facts["gil_enabled"],
        managed=facts["managed"],
        lacks=() if old else tuple(find_lacks(facts["installed"], facts["broken"])),
        problem=f"it is Python {facts['version']}; workers need 3.11 or newer" if old else "",
    )


def find_lacks(installed: dict[str, str], broken: dict[str, str]) -> Iterable[str]:
    """The requirements that are not met.

    >>> list(find_lacks({"h2": "4.2.0", "protobuf": "6.33"}, {}))
    ['grpclib is not installed', 'h2 is 4.2.0, required is >=4.3,<5']
    >>> list(find_lacks({"grpclib": "0.4.9", "h2": "4.3.0", "protobuf": "5.29"}, {}))
    ['protobuf is 5.29, required is >=6.31.1,<8']
    """
    for name, (_, low, below) in REQUIREMENTS.items():
        version = installed.get(name)
        if version is None:
            yield f"{name} is not installed"
        elif not numbers(low) <= numbers(version) < numbers(below):
            yield f"{name} is {version}, required is >={low},<{below}"
        elif name in broken:
            yield f"{name} {version} does not load: {broken[name][:200]}"


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison.

    >>> numbers("3.13.0rc1") < numbers("3.13.1")
    True
    """
    return tuple(int(one) for one in re.findall(r"\d+", re.split(r"[a-z+]", version)[0]))


def find_mistrust(path: str) -> str:
    """Why a program is not safe to run: another user than root and this one could change it. Empty if it is safe."""
    if not os.path.isabs(path):
        return "its path is not absolute"
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        return "there is no such file"
    for place in (real, *map(str, Path(real).parents), *map(str, Path(path).parents)):
        try:
            status = os.stat(place)
        except OSError as error:
            return f"{place}: {error.strerror}"
        if status.st_uid not in (0, os.getuid()):
            return f"{place} belongs to another user than root and the broker's"
        # In a sticky directory (/tmp) other users may add files, but not replace them.
        if status.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            return f"{place} can be changed by every user"
    return ""
