"""Writes the pages that follow from the code: docs/reference/compat.md, errors.md and settings.md. `make docs` runs it.

pools/compat/libraries.toml ────▶ compat.md
snakepit.pools.broker.errors ────────────▶ errors.md
snakepit.pools.conf, snakepit.pools.broker.spec ──▶ settings.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

COMPAT_HEAD = """\
# Libraries and threads

Generated from `pools/compat/libraries.toml` by `make docs`.

The thread profile runs several calls at once in one process. What it may do that with is a question to each library:
may threads use it together, do its long calls release the GIL, and does it leave the GIL off on a free-threaded
interpreter? The table says what its makers document, with the page and the day on which it was read; `unknown` means
that nothing was found, and its page is where one would look first; `not checked` that the page was not read again. A
claim can be wrong by now: send a correction with its source.

`snakepit compat POOL` joins this with what is installed in the pool's interpreter (versions, wheel tags, the classifier
*Free Threading*) and with what its workers saw (the import that switched the GIL on), and says what holds for that
pool's profile; the exit code is 1 when something is unsafe, 2 when there is no such pool. `-r FILE` asks for a
requirements file, `--python KEY` for
an interpreter, `--json` for programs. Over REST: `GET /api/diagnostics/compat?pool=NAME`. In the process profile every
library is safe from other calls: a process holds one.

- **in threads**: `safe`, `conditional` (see the advice), `unsafe`, `unknown`.
- **GIL**: what its long calls do: `releases`, `partly`, `holds`; `pure` is Python alone.
- **free-threaded**: `wheels` from a version on, `partial`, `source` (builds, no wheels), `none`, `pure`, `stdlib`.
  `cp313t` and `cp314t` are the free-threaded ABIs of Python 3.13 and 3.14, named where the record tells them apart. The
  source is linked; without a link it is the [tracker](https://py-free-threading.github.io/tracking/).

"""

ERRORS_HEAD = """\
# Errors

Generated from `pools/broker/errors.py` by `make docs`.

The list is closed: a caller meets these and no others. In Python each is a class of `snakepit.pools.broker.errors`
with `code`, `message`, `outcome`, `details` and `retry_after`. Over REST every error has one shape:

```json
{"error": {"code": "queue_full", "message": "...", "outcome": "not_started", "details": {}}}
```

Over gRPC an error is a status with the trailing metadata `snakepit-code` and `snakepit-outcome`.

The **outcome** says what became of the work: `not_started` (sending it again is safe), `failed` (it ran and ended
badly) or `unknown` (it may have run, wholly or in part). The table has each error's usual outcome; the one in the error
counts: a `cancelled` call that still waited, for example, is `not_started`.

"""

SETTINGS_HEAD = """\
# Settings

Generated from `pools/conf.py` and `pools/broker/spec.py` by `make docs`.

Everything is in one dict, `SNAKEPIT`, in the project's settings. A key that does not exist is refused by `manage.py
check`, with the one that was probably meant; a value outside its range is refused with the range.

```python
SNAKEPIT = {
    "ADAPTERS": {"digits": "snakepit.examples.digits.Digits"},
    "POOLS": {"digits": {"adapter": "digits", "size": 4}},
}
```

"""

POOL_HEAD = """\
## Fields of a pool

The same names, defaults and ranges hold in `SNAKEPIT["POOLS"][name]`, in the admin's form and in the database row.
Times are in seconds, memory in MiB. Where a default says *two a core*, cores are those that the process may use.

Fields marked **new workers** are fixed at a worker's birth: a change of them is rolled out by replacing the workers one
after the other, successor first. All other changes count from the next call, or the next judgement, on.

"""

SINGLE_TEXT = """\
## One pool only

A project with a single pool can write its fields at the top level, in capitals (`size` as `POOL_SIZE`); that makes
the pool `default`. `ADAPTER` may be a key of `ADAPTERS` or a dotted path.

```python
SNAKEPIT = {"ADAPTER": "snakepit.examples.digits.Digits", "POOL_SIZE": 4}
```
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "|" + "---|" * lines[0].count(" | ") + "---|")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    from snakepit.pools.broker.errors import ERRORS

    rows = [
        (f"`{e.code}`", str(e.http_status), e.grpc_status, e.default_outcome, e.__name__, (e.__doc__ or "").strip())
        for e in sorted(ERRORS.values(), key=lambda e: (e.http_status, e.code))
    ]
    return ERRORS_HEAD + table(("code", "HTTP", "gRPC", "usual outcome", "class", "meaning"), rows)


def default_of(field: Field[Any]) -> str:
    value = field.default
    if value is MISSING:
        value = field.default_factory() if field.default_factory is not MISSING else ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping | tuple | list):
        return "empty" if not value else f"`{value!r}`"
    return f"`{value}`" if str(value) else "empty"


def range_of(metadata: Mapping[str, Any]) -> str:
    low, high, unit = metadata.get("low"), metadata.get("high"), metadata.get("unit", "")
    return "" if low is None else f"{low} to {high} {unit}".strip()


def settings_page() -> str:
    from snakepit.pools.broker.spec import FIELDS, WORKER_FIELDS
    from snakepit.pools.conf import KEYS

    keys = [(f"`{k}`", default_of(f), range_of(f.metadata), f.metadata["help"]) for k, f in KEYS.items()]
    pool = []
    for name, field in FIELDS.items():
        default = "*two a core*" if name == "size" else default_of(field)
        help = field.metadata["help"] + (" **New workers.**" if name in WORKER_FIELDS else "")
        pool.append((f"`{name}`", "" if name in ("name", "adapter") else default, range_of(field.metadata), help))
    head = ("default", "range", "what it is, and when to change it")
    return (
        SETTINGS_HEAD
        + "## Keys of `SNAKEPIT`\n\n"
        + table(("key", *head), keys)
        + "\n"
        + POOL_HEAD
        + table(("field", *head), pool)
        + "\n"
        + SINGLE_TEXT
    )


def compat_page() -> str:
    from snakepit.pools.compat.matrix import libraries

    rows = []
    for one in libraries().values():
        oldest = f" (from {one.minimum})" if one.minimum else ""
        source = f"[{one.checked or 'not checked'}]({one.source})"
        wheels = f"[{one.wheels}]({one.wheels_source})" if one.wheels_source else one.wheels
        rows.append((f"`{one.name}`", one.threads + oldest, one.gil, wheels, one.advice, source))
    return COMPAT_HEAD + table(("library", "in threads", "GIL", "free-threaded", "advice", "checked, source"), rows)


def pages() -> dict[Path, str]:
    docs = ROOT / "docs" / "reference"
    return {
        docs / "compat.md": compat_page(),
        docs / "errors.md": errors_page(),
        docs / "settings.md": settings_page(),
    }


def main() -> None:
    # Run as a file, Python puts docs/ on sys.path, not the repository.
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
    for path, text in pages().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
