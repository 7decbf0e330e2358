"""Generate the reference pages that follow from the code; `make docs` runs it.

pools/compat/libraries.toml ──▶ compat.md
snakepit.pools.broker.errors ──▶ errors.md
snakepit.pools.conf, snakepit.pools.broker.spec ──▶ settings.md
snakepit.pools.cli ──▶ command-line.md
snakepit.pools.broker.events, docs/events.toml ──▶ events.md
benchmarks/faults.json ──▶ explanation/reliability.md
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

COMPAT_HEAD = """\
# Libraries and threads

Generated from `pools/compat/libraries.toml` by `make docs`.

The thread profile runs several calls at the same time in one process. For each library that raises three questions:

- May several threads use it at the same time?
- Do its long calls release the GIL?
- Does it leave the GIL off on a free-threaded interpreter?

The table shows what the makers of each library document, with the page and the day on which it was read. `unknown`
means that nothing was found; the link is the page to look at first. `not checked` means that the page was not read
again. A claim may be outdated: please send a correction with its source.

`snakepit compat POOL` combines the table with two more sources. One is what is installed in the pool's interpreter:
versions, wheel tags, the classifier *Free Threading*. The other is what its workers observed: the import that enabled
the GIL. It reports the result for that pool's profile. The exit code is 1 if a library is unsafe.

- `-r FILE` checks a requirements file, `--python KEY` an interpreter. `--json` is for programs.
- Over REST: `GET /api/diagnostics/compat?pool=NAME`.

In the process profile every library is safe from other calls, because a process runs one call at a time.

| Column | Values |
|---|---|
| in threads | `safe`, `conditional` (see the advice), `unsafe`, `unknown` |
| GIL | what its long calls do: `releases`, `partly`, `holds`; `pure`: Python code only |
| free-threaded | `wheels` from a version on, `partial`, `source` (builds, no wheels), `none`, `pure`, `stdlib` |

`cp313t` and `cp314t` are the free-threaded ABIs of Python 3.13 and 3.14, where the record distinguishes them. The
source is linked. Without a link it is the [tracker](https://py-free-threading.github.io/tracking/).

"""

ERRORS_HEAD = """\
# Errors

Generated from `pools/broker/errors.py` by `make docs`.

The list is closed: a caller receives these errors and no others. REST has three more, all `not_started`: `not_found`
(404: no such path or job), `method_not_allowed` (405) and `request_timeout` (408: the body did not arrive in time).

- In Python, each is a class of `snakepit.pools.broker.errors` with `code`, `message`, `outcome`, `details` and
  `retry_after`.
- Over REST, every error has one shape:

```json
{"error": {"code": "queue_full", "message": "...", "outcome": "not_started", "details": {}}}
```

- Over gRPC, an error is a status with the trailing metadata `snakepit-code` and `snakepit-outcome`.

The **outcome** states what happened to the work:

| Outcome | Meaning |
|---|---|
| `not_started` | It did not run. You can safely send it again. |
| `failed` | It ran and failed. |
| `unknown` | It may have run, completely or in part. |

The table has the usual outcome of each error. The outcome in the error itself is authoritative: for example, a
`cancelled` call that was still waiting is `not_started`.

"""

SETTINGS_HEAD = """\
# Settings

Generated from `pools/conf.py` and `pools/broker/spec.py` by `make docs`.

All settings are keys of one dict, `SNAKEPIT`, in the project's settings. `manage.py check` refuses an unknown key and
suggests the nearest one. It refuses a value outside its range and names the range.

```python
SNAKEPIT = {
    "ADAPTERS": {"digits": "snakepit.examples.digits.Digits"},
    "POOLS": {"digits": {"adapter": "digits", "size": 4}},
}
```

"""

ENVIRONMENT_TEXT = """\
## Environment variables of pools

An environment variable can decide which code a process runs. The `env` of a pool's row may therefore set only the names
that `WORKER_ENV_ALLOWED` lists, and the safe ones below. Any other name is refused where the row is saved. A broker
does not take a row with such a name: it shows the reason, and the pool keeps its last definition. Settings are code, so
what `SNAKEPIT["POOLS"][name]["env"]` sets is allowed for that pool with that value.

```python
SNAKEPIT = {{
    "WORKER_ENV_ALLOWED": ["MODEL_NAME", "SHOP_*"],
}}
```

Allow no name that selects a library, a program, a module or a configuration file, such as `OPENSSL_CONF` or `LD_*`:
each user who may edit a pool could then run code as the workers' user. The broker sets `PYTHONPATH` and `SNAKEPIT_*`
itself; these are refused everywhere.

Safe names, for values that name no file: {safe}.

"""

POOL_HEAD = """\
## Fields of a pool

The same names, defaults and ranges apply in `SNAKEPIT["POOLS"][name]`, in the admin's form and in the database row.
Times are in seconds, memory in MiB. In the default *two per core*, cores are those that the process may use.

A worker receives the fields marked **new workers** when it starts. If you change one of them, the workers are replaced
one after the other, successor first. All other changes apply from the next call or the next sweep on.

"""

SINGLE_TEXT = """\
## One pool only

With a single pool, you can write its fields at the top level, in capitals (`size` as `POOL_SIZE`). They define the pool
`default`. `ADAPTER` is a key of `ADAPTERS` or a dotted path.

```python
SNAKEPIT = {"ADAPTER": "snakepit.examples.digits.Digits", "POOL_SIZE": 4}
```

## Switches of the transport

These are environment variables of a process, not keys of `SNAKEPIT`. With `0`, the process does without one mechanism.
Every call works without it and takes longer. [Transport](../explanation/transport.md) describes and measures them.

| variable | set to `0` |
|---|---|
| `SNAKEPIT_FAST_PATH` | Messages pass through the public API of grpclib. |
| `SNAKEPIT_DIRECT_REPLY` | Every result passes through the broker. |
| `SNAKEPIT_LOOP_OWNER` | A background thread alone runs the event loop. |
| `SNAKEPIT_BUFFERS` | Large parts of values travel through the broker, as text or attachments. |

A broker passes its switches on to its workers.
"""

EVENTS_HEAD = """\
# Events

Generated from `pools/broker/events.py` and `docs/events.toml` by `make docs`.

An event is a decision or an observation of the broker, with its reason, a sentence and its numbers. The same events
are:

- lines of the broker's log
- rows in the database, in the admin and at `GET /api/events`; the newest `EVENTS_KEPT` stay
- what `snakepit events` prints (`--kind 'worker.*'`, `--follow`) and the dashboard shows
- the counters among the [metrics](metrics.md), for most kinds
- the Django signal [`snakepit.pools.signals.event`](metrics.md#events-as-a-django-signal)

Each has these fields; text is empty where nothing applies.

"""

EVENTS_KINDS = """\

## Kinds

The list is closed. A reason is one word. The data is what a program needs, fit for JSON.

"""

COMMANDS_HEAD = """\
# Command line

Generated from `pools/cli/` by `make docs`.

In a Django project, run `snakepit COMMAND` in the project's directory, or `manage.py snakepit COMMAND`. Both find the
settings. `snakepit --install-completion` installs completion for your shell.

| Exit code | Meaning |
|---|---|
| 0 | fine |
| 1 | a problem was found |
| 2 | wrong usage |
| 3 | no broker answers |

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
    from snakepit.pools.broker.worker_env import SAFE
    from snakepit.pools.conf import KEYS

    keys = [(f"`{k}`", default_of(f), range_of(f.metadata), f.metadata["help"]) for k, f in KEYS.items()]
    pool = []
    for name, field in FIELDS.items():
        default = "*two per core*" if name == "size" else default_of(field)
        help = field.metadata["help"] + (" **New workers.**" if name in WORKER_FIELDS else "")
        pool.append((f"`{name}`", "" if name in ("name", "adapter") else default, range_of(field.metadata), help))
    head = ("default", "range", "meaning, and when to change it")
    return (
        SETTINGS_HEAD
        + "## Keys of `SNAKEPIT`\n\n"
        + table(("key", *head), keys)
        + "\n"
        + ENVIRONMENT_TEXT.format(safe=", ".join(f"`{name}`" for name in SAFE))
        + POOL_HEAD
        + table(("field", *head), pool)
        + "\n"
        + SINGLE_TEXT
    )


EVENT_FIELDS = {
    "kind": "what happened: one of the kinds below",
    "pool": "name of the pool",
    "worker": "id of the worker",
    "reason": "why, in one word",
    "message": "the sentence for operators, with its numbers",
    "level": "`info`, `warning` or `error`",
    "data": "the numbers, by name",
}


def events_page() -> str:
    from snakepit.pools.broker.events import Event, Kind

    def shown(words: list[str]) -> str:
        return ", ".join(word if word.startswith("*") else f"`{word}`" for word in words)

    notes = tomllib.loads((ROOT / "docs" / "events.toml").read_text())
    if unknown := notes.keys() - set(Kind):
        raise SystemExit(f"docs/events.toml has kinds that do not exist: {', '.join(sorted(unknown))}")
    kinds = [(kind, notes[kind]) for kind in Kind]
    rows = [
        (f"`{kind}`", one["level"], shown(one.get("reasons", [])), shown(one.get("data", [])), one["meaning"])
        for kind, one in kinds
    ]
    fields = [(f"`{one.name}`", EVENT_FIELDS[one.name]) for one in dataclass_fields(Event)]
    head = ("kind", "level", "reasons", "data", "meaning")
    return EVENTS_HEAD + table(("field", "meaning"), fields) + EVENTS_KINDS + table(head, rows)


def compat_page() -> str:
    from snakepit.pools.compat.matrix import libraries

    rows = []
    for one in libraries().values():
        oldest = f" (from {one.minimum})" if one.minimum else ""
        source = f"[{one.checked or 'not checked'}]({one.source})"
        wheels = f"[{one.wheels}]({one.wheels_source})" if one.wheels_source else one.wheels
        rows.append((f"`{one.name}`", one.threads + oldest, one.gil, wheels, one.advice, source))
    return COMPAT_HEAD + table(("library", "in threads", "GIL", "free-threaded", "advice", "checked, source"), rows)


def parameter_name(parameter: Any) -> str:
    """`POOL`, `[POOL]`, `--timeout TIMEOUT`, `--web`, `--no-web`, as a shell user types it."""
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        return name if parameter.required else f"[{name}]"
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def command_section(name: str, command: Any, level: str = "##") -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    usage = [parameter_name(one).replace("|", " | ") for one in shown if one.param_type_name == "argument"]
    rows = []
    for one in shown:
        empty = one.is_flag if one.param_type_name == "option" else one.required
        default = "" if empty or one.default in (None, "") else f"`{one.default}`"
        rows.append((f"`{parameter_name(one)}`".replace("|", "\\|"), default, one.help or ""))
    inner = getattr(command, "commands", {})
    usage += ["COMMAND"] if inner else []
    text = f"{level} {name}\n\n`{' '.join(('snakepit', name, *usage))}`\n\n{command.help}\n"
    text += ("\n" + table(("parameter", "default", "meaning"), rows)) if rows else ""
    return "\n".join((text, *(command_section(f"{name} {sub}", one, level + "#") for sub, one in inner.items())))


def commands_page() -> str:
    from typer.main import get_command

    from snakepit.pools.cli.main import app

    group: Any = get_command(app)
    return COMMANDS_HEAD + "\n".join(command_section(name, command) for name, command in group.commands.items())


def reliability_page() -> str:
    from benchmarks.faults.catalogue import FAULTS
    from benchmarks.faults.report import page, read

    return page(FAULTS, read())


def pages() -> dict[Path, str]:
    reference = ROOT / "docs" / "reference"
    return {
        ROOT / "docs" / "explanation" / "reliability.md": reliability_page(),
        reference / "command-line.md": commands_page(),
        reference / "compat.md": compat_page(),
        reference / "errors.md": errors_page(),
        reference / "events.md": events_page(),
        reference / "settings.md": settings_page(),
    }


def main() -> None:
    # Python puts the folder of a script on sys.path, not the repository.
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
    for path, text in pages().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
