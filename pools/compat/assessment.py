"""Assess one library for one pool: safe, conditional, unsafe or unknown, from table, metadata and observations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snakepit.pools.compat.matrix import Library, library_of, numbers, owner_of

STABLE = ("3 - Stable", "4 - Resilient")  # values of the classifier for free-threaded support


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution, from its metadata."""

    name: str
    version: str = ""
    support: str = ""  # of its classifier "Programming Language :: Python :: Free Threading"
    tags: tuple[str, ...] = ()  # of its wheel
    compiled: bool = False
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AssessmentTarget:
    """The environment to assess libraries for. `culprits`: modules that enabled the GIL in workers."""

    title: str
    threads: bool = True  # more than one call at a time in a process
    free_threaded: bool = False
    culprits: tuple[str, ...] = ()
    abi: str = ""  # of the free-threaded interpreter, such as cp314t; empty: unknown


@dataclass(frozen=True, slots=True)
class Assessment:
    name: str
    version: str
    status: str  # safe, conditional, unsafe or unknown, for this target
    reasons: tuple[str, ...]
    threads: str
    gil: str
    free_threading: str
    since: str
    abis: tuple[str, ...]
    wheels: str  # short description of free_threading, since and abis
    advice: str
    source: str
    wheels_source: str
    checked: str  # a date; empty: the page was not read


def assess(package: Package, target: AssessmentTarget) -> Assessment:
    """Assess one library for one target. The worst finding decides.

    >>> assess(Package("matplotlib", "3.10.0"), AssessmentTarget("p")).status
    'unsafe'
    >>> assess(Package("matplotlib", "3.10.0"), AssessmentTarget("p", threads=False)).status
    'safe'
    """
    known = library_of(package.name)
    found = [*_in_threads(package, known, target), *_without_gil(package, known, target)]
    worst = max((status for status, _ in found), key=RANK.index, default="safe")
    reasons = tuple(reason for status, reason in found if reason)
    return Assessment(
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


def _in_threads(package: Package, known: Library | None, target: AssessmentTarget) -> Iterable[tuple[str, str]]:
    if not target.threads:
        yield "safe", ""  # one call at a time in each process
    elif known and known.minimum and package.version and numbers(package.version) < numbers(known.minimum):
        yield "unsafe", f"{package.version} is older than {known.minimum}, the first thread-safe version"
    elif known and known.threads != "unknown":
        words = {"safe": "", "conditional": "", "unsafe": "not thread-safe"}
        yield known.threads, words[known.threads]
    elif package.support in STABLE:
        yield "safe", f"package metadata: free threading {package.support}"
    else:
        yield (
            "unknown",
            "its documentation does not mention threads" if known else "not in the table: thread safety unknown",
        )


def _without_gil(package: Package, known: Library | None, target: AssessmentTarget) -> Iterable[tuple[str, str]]:
    """Whether a library enables the GIL of a free-threaded interpreter. Observations outweigh the table."""
    if not target.free_threaded:
        return
    for culprit in target.culprits:
        owner = owner_of(culprit)
        by_module = any(culprit == one or culprit.startswith(f"{one}.") for one in package.modules)
        if by_module or (known and owner is known):
            yield "unsafe", f"it enabled the GIL in workers ({culprit})"
            return
    native = any(tag.split("-")[1:2] and tag.split("-")[1].endswith("t") for tag in package.tags)
    if native or package.support:
        how = f"package metadata: {package.support}" if package.support else "its wheel is built for it"
        yield "safe", f"free-threaded: {how}"
    elif known and known.since and package.version and numbers(package.version) < numbers(known.since):
        yield "conditional", f"{package.version} is older than {known.since}, the first for free-threaded Python"
    elif known and known.free_threading in ("none", "partial", "source"):
        yield "conditional", f"free-threaded: {known.free_threading}; it may enable the GIL"
    elif known and (why := _without_wheel(package, known, target.abi)):
        yield "conditional", why
    elif package.compiled and (known is None or known.free_threading == "unknown"):
        yield "unknown", "compiled, without a declaration that it supports a disabled GIL"


def _without_wheel(package: Package, known: Library, abi: str) -> str:
    """Why this ABI has no wheel, if the table lists ABIs.

    >>> _without_wheel(Package("uvloop", "0.23.0"), library_of("uvloop"), "cp313t")
    'free-threaded wheels for cp314t, none for cp313t: pip must build it from source'
    """
    last = numbers(known.last.get(abi, ""))
    if abi and known.abis and abi not in known.abis:
        return f"free-threaded wheels for {', '.join(known.abis)}, none for {abi}: pip must build it from source"
    if last and numbers(package.version)[: len(last)] > last:
        return f"{known.last[abi]} is the last version with wheels for {abi}"
    return ""
