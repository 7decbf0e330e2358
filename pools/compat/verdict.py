"""What the table, the installed package and the workers say of one library, for one pool: safe, conditional, unsafe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snakepit.pools.compat.matrix import Library, library_of, numbers, owner_of

STABLE = ("3 - Stable", "4 - Resilient")  # Python's own words for free-threaded support, in a package's classifiers


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution as its own metadata shows it."""

    name: str
    version: str = ""
    support: str = ""  # of its classifier "Programming Language :: Python :: Free Threading"
    tags: tuple[str, ...] = ()  # of its wheel
    compiled: bool = False
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the libraries are to run. `culprits`: modules that workers saw switch the GIL on."""

    title: str
    threads: bool = True  # more than one call at a time in a process
    free_threaded: bool = False
    culprits: tuple[str, ...] = ()
    abi: str = ""  # of the free-threaded interpreter, such as cp314t; empty where it is not known


@dataclass(frozen=True, slots=True)
class Verdict:
    name: str
    version: str
    status: str  # safe, conditional, unsafe or unknown, for this setting
    reasons: tuple[str, ...]
    threads: str
    gil: str
    free_threading: str
    since: str
    abis: tuple[str, ...]
    wheels: str  # free_threading, since and abis in a few words
    advice: str
    source: str
    wheels_source: str
    checked: str  # a day; empty where the page was not read again


def judge(package: Package, setting: Setting) -> Verdict:
    """One library in one setting. The worst of what is known decides; what nobody knows is `unknown`.

    >>> judge(Package("matplotlib", "3.10.0"), Setting("p")).status
    'unsafe'
    >>> judge(Package("matplotlib", "3.10.0"), Setting("p", threads=False)).status
    'safe'
    """
    known = library_of(package.name)
    found = [*_in_threads(package, known, setting), *_without_gil(package, known, setting)]
    worst = max((status for status, _ in found), key=RANK.index, default="safe")
    reasons = tuple(reason for status, reason in found if reason)
    return Verdict(
        name=package.name,
        version=package.version,
        status=worst,
        reasons=reasons,
        threads=known.threads if known else "unknown",
        gil=known.gil if known else "unknown",
        free_threading=known.free_threading if known else "unknown",
        since=known.since if known else "",
        abis=known.abis if known else (),
        wheels=known.wheels if known else "unknown",
        advice=known.advice if known and worst != "safe" else "",
        source=known.source if known else "",
        wheels_source=known.wheels_source if known else "",
        checked=known.checked.isoformat() if known and known.checked else "",
    )


RANK = ("safe", "unknown", "conditional", "unsafe")


def _in_threads(package: Package, known: Library | None, setting: Setting) -> Iterable[tuple[str, str]]:
    if not setting.threads:
        yield "safe", ""  # one call at a time in each process
    elif known and known.minimum and package.version and numbers(package.version) < numbers(known.minimum):
        yield "unsafe", f"{package.version} is older than {known.minimum}, from which on threads may use it"
    elif known and known.threads != "unknown":
        words = {"safe": "", "conditional": "", "unsafe": "not for threads"}
        yield known.threads, words[known.threads]
    elif package.support in STABLE:
        yield "safe", f"its own metadata says free threading: {package.support}"
    else:
        yield (
            "unknown",
            "nothing is promised about threads" if known else "not in the table: nothing is known about threads",
        )


def _without_gil(package: Package, known: Library | None, setting: Setting) -> Iterable[tuple[str, str]]:
    """On a free-threaded interpreter a library may switch the GIL on; seen is worth more than written."""
    if not setting.free_threaded:
        return
    for culprit in setting.culprits:
        owner = owner_of(culprit)
        by_module = any(culprit == one or culprit.startswith(f"{one}.") for one in package.modules)
        if by_module or (known and owner is known):
            yield "unsafe", f"workers saw it switch the GIL on ({culprit})"
            return
    native = any(tag.split("-")[1:2] and tag.split("-")[1].endswith("t") for tag in package.tags)
    if native or package.support:
        how = f"its metadata says {package.support}" if package.support else "its wheel is built for it"
        yield "safe", f"free-threaded: {how}"
    elif known and known.since and package.version and numbers(package.version) < numbers(known.since):
        yield "conditional", f"{package.version} is older than {known.since}, the first for free-threaded Python"
    elif known and known.free_threading in ("none", "partial", "source"):
        yield "conditional", f"free-threaded: {known.free_threading}; it may switch the GIL on"
    elif known and (why := _without_wheel(package, known, setting.abi)):
        yield "conditional", why
    elif package.compiled and (known is None or known.free_threading == "unknown"):
        yield "unknown", "compiled, and nothing says that it leaves the GIL off"


def _without_wheel(package: Package, known: Library, abi: str) -> str:
    """Why this ABI gets no wheel, where the table tells ABIs apart.

    >>> _without_wheel(Package("uvloop", "0.23.0"), library_of("uvloop"), "cp313t")
    'free-threaded wheels for cp314t, none for cp313t: it is built from source, or not at all'
    """
    last = numbers(known.last.get(abi, ""))
    if abi and known.abis and abi not in known.abis:
        return (
            f"free-threaded wheels for {', '.join(known.abis)}, none for {abi}: it is built from source, or not at all"
        )
    if last and numbers(package.version)[: len(last)] > last:
        return f"{known.last[abi]} is the last with wheels for {abi}"
    return ""
