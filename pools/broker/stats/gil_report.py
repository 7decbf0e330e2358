"""How many threads of a worker run in parallel: one sentence with numbers and reason.

>>> describe(8, 3.7, cores=4, free_threaded=True, gil_enabled=False)
'8 slots, 3.7 x on 4 cores'
>>> describe(8, 1.0, free_threaded=True, gil_enabled=True, culprit="orjson")
'8 slots, 1.0 x: GIL on because of `orjson`'
>>> describe(8, 1.0, python="3.11.7")
'8 slots, 1.0 x: GIL on, Python 3.11.7 is not a free-threaded build'
"""

from __future__ import annotations


def describe(
    slots: int,
    factor: float,
    *,
    cores: int = 0,
    free_threaded: bool = False,
    gil_enabled: bool = True,
    culprit: str = "",
    python: str = "",
) -> str:
    """`factor`: slots that run together, measured; 0: not measured."""
    head = f"{slots} slot{'s' * (slots != 1)}" + (f", {factor:.1f} x" if factor else ", not measured")
    if not gil_enabled:
        return head + (f" on {cores} core{'s' * (cores != 1)}" if cores else "")
    return f"{head}: {why_on(free_threaded=free_threaded, culprit=culprit, python=python)}"


def why_on(*, free_threaded: bool, culprit: str, python: str) -> str:
    """Return why the GIL is on."""
    if culprit:
        return f"GIL on because of `{culprit}`"
    if free_threaded:
        return "GIL on, switched on for the whole interpreter (PYTHON_GIL=1 or -X gil=1)"
    return f"GIL on, Python {python} is not a free-threaded build"
