"""Which profile suits a pool, and why: a pure function of the interpreter, the adapter's libraries and its work.

>>> recommend(free_threaded=True, gil_enabled=False, thread_safe=True).profile
'thread'
>>> recommend(free_threaded=False, gil_enabled=True, thread_safe=True, work="cpu").reasons
('the GIL lets one thread run Python at a time: CPU-bound work needs processes',)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snakepit.pools.broker.spec import Profile

CPU, IO, NATIVE = "cpu", "io", "native"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`profile` is empty where no worker can run at all."""

    profile: str
    reasons: tuple[str, ...]


def recommend(
    *,
    free_threaded: bool,
    gil_enabled: bool,
    fit: bool = True,
    thread_safe: bool | None = None,
    gil_libraries: Sequence[str] = (),
    unsafe_libraries: Sequence[str] = (),
    work: str = CPU,
) -> Recommendation:
    """`gil_libraries` switch the GIL on when imported, `unsafe_libraries` may not be used from two threads.

    `thread_safe` None: the adapter is not known. `work`: "cpu" (Python code), "io" (it waits), or "native" (it
    computes in C code that gives the GIL up, as NumPy does).
    """
    if not fit:
        return Recommendation("", ("the worker's requirements are not installed in it",))
    if thread_safe is False:
        return _process("the adapter does not say thread_safe = True")
    if unsafe_libraries:
        return _process(f"not safe in several threads: {', '.join(unsafe_libraries)}")
    if work in (IO, NATIVE):
        what = "waits" if work == IO else "computes in native code"
        return _thread(f"a thread that {what} lets the others run, with and without a GIL; memory is shared")
    if gil_libraries and free_threaded:
        return _process(f"the GIL is switched on by {', '.join(gil_libraries)}: CPU-bound threads would take turns")
    if gil_enabled:
        build = "it is switched on in this free-threaded build" if free_threaded else ""
        return _process("the GIL lets one thread run Python at a time: CPU-bound work needs processes", build)
    return _thread("no GIL: CPU-bound threads run in parallel and share one copy of the model")


def _process(*reasons: str) -> Recommendation:
    return Recommendation(str(Profile.PROCESS), tuple(filter(None, reasons)))


def _thread(*reasons: str) -> Recommendation:
    return Recommendation(str(Profile.THREAD), tuple(filter(None, reasons)))
