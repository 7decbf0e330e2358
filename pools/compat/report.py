"""Reports for a pool, a requirements file or an interpreter: the packages, each with its compatibility."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snakepit.pools.compat.assessment import Assessment, AssessmentTarget, Package, assess
from snakepit.pools.compat.matrix import canonical, library_of

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*(={2,3}\s*(?P<version>[\w.]+))?")
MOST_REQUIREMENTS = 10_000
# Runs in the inspected interpreter. It reads metadata files and imports no installed package.
PACKAGES = """\
import json, sys, sysconfig
from importlib import metadata
mark = "Programming Language :: Python :: Free Threading :: "
found = {}
for one in metadata.distributions():
    name = one.metadata["Name"]
    if not name or name in found:
        continue
    wheel = (one.read_text("WHEEL") or "").splitlines()
    classifiers = one.metadata.get_all("Classifier") or []
    found[name] = {
        "name": name, "version": one.version,
        "support": next((line[len(mark):] for line in classifiers if line.startswith(mark)), ""),
        "tags": [line.partition(": ")[2] for line in wheel if line.startswith("Tag: ")],
        "compiled": "Root-Is-Purelib: false" in wheel,
        "modules": (one.read_text("top_level.txt") or "").split(),
    }
answer = {"version": sys.version.split()[0], "packages": list(found.values()),
          "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED"))}
print()
print(json.dumps(answer))
"""


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    profile: str
    python: str
    free_threaded: bool
    verdicts: tuple[Assessment, ...]
    left_out: int  # pure Python packages without a row in the table
    note: str = ""  # data that was unavailable
    races: tuple[str, ...] = ()  # attributes of the adapter that two threads wrote without a lock

    @property
    def unsafe(self) -> bool:
        return bool(self.races) or any(one.status == "unsafe" for one in self.verdicts)

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "unsafe": self.unsafe}


def report(target: AssessmentTarget, python: str, packages: Iterable[Package], note: str = "") -> Report:
    """Assess packages that the table lists, that are compiled or unknown. The rest is pure Python."""
    everything = list(packages)
    worth = [one for one in everything if one.compiled or library_of(one.name) or not one.tags]
    ranked = sorted((assess(one, target) for one in worth), key=lambda one: (ORDER.index(one.status), one.name.lower()))
    profile = "thread" if target.threads else "process"
    left = len(everything) - len(worth)
    return Report(target.title, profile, python, target.free_threaded, tuple(ranked), left, note)


ORDER = ("unsafe", "conditional", "unknown", "safe")


def packages_of(answer: Mapping[str, Any]) -> list[Package]:
    """The packages of an interpreter, plus `sqlite3`, which is part of Python."""
    found = [
        Package(
            str(one["name"]), str(one["version"]), str(one["support"]), tuple(one["tags"]), bool(one["compiled"]),
            tuple(one["modules"]),
        )
        for one in answer["packages"]
    ]  # fmt: skip
    return [*found, Package("sqlite3", str(answer["version"]))]


def requirements(path: Path) -> list[Package]:
    """The packages of a requirements file, without options, URLs and comments.

    Raises OSError and UnicodeDecodeError.
    """
    found: dict[str, Package] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines()[:MOST_REQUIREMENTS]:
        text = line.split("#")[0].strip()
        match = REQUIREMENT.match(text)
        if match and "://" not in text.partition(";")[0]:
            name = canonical(match["name"])
            found.setdefault(name, Package(name, match["version"] or ""))
    return list(found.values())
