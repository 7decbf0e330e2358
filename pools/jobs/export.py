r"""Jobs as lines of NDJSON or CSV, page by page, so that an export of any size needs the memory of one page.

>>> cell("=1+1"), cell("night"), cell(None), cell({"n": 1})
("'=1+1", 'night', '', '{"n":1}')
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models import Job
from snakepit.pools.models.job import JobQuerySet

FORMATS = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
PAGE = 200  # jobs of one query
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins with one

Show = Callable[[Job], Mapping[str, Any]]
Encode = Callable[[Any], str]


def check_format(name: str) -> str:
    if name not in FORMATS:
        raise BadRequest(f"format: {shown(name)} is not one of {', '.join(FORMATS)}")
    return name


def pages(rows: JobQuerySet, show: Show, form: str, encode: Encode = json.dumps) -> Iterator[str]:
    """The text of one page after the other, newest job first. `show` hides what the reader may not see."""
    last, head = None, True
    while found := list((rows if last is None else rows.filter(pk__lt=last)).order_by("-pk")[:PAGE]):
        shown = [show(job) for job in found]
        if form == "csv":
            yield _csv(shown, shown[0] if head else ())
        else:
            yield "".join(f"{encode(one)}\n" for one in shown)
        last, head = found[-1].pk, False
    if head and form == "csv":  # a reader needs the columns of an empty table too
        yield _csv([], show(Job()))


def _csv(shown: Sequence[Mapping[str, Any]], head: Iterable[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    if head:
        writer.writerow(head)
    writer.writerows([cell(value) for value in one.values()] for one in shown)
    return text.getvalue()


def cell(value: Any) -> str:
    """A value as a cell: text as it is, other values as JSON, and formulas made harmless."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    text = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    )
    return f"'{text}" if text.startswith(FORMULA) else text
