"""Names are the field's words: no metaphor of earlier versions returns as the name of a file, class, function or value.

`RETIRED` lists the metaphors with the word that replaced each. A name is split into words: `Mould`, `a_mould` and
`mouldReady` contain `mould`. `ALLOWED` lists plain English and API words among them, each with its reason.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ("pools", "workers", "testing", "snakepit_site", "examples", "snakepit")
PYTHON = (*PACKAGE, "benchmarks", "docs", "tests", "deploy")
GENERATED = re.compile(r"_pb2\.py|_pb2_grpc\.py|_grpc\.py|/migrations/|/vendor/|__pycache__")

RETIRED = {
    "ahead": "prefetch",
    "alarm": "timers",
    "baton": "loop_owner",
    "blackbox": "shared_page",
    "board": "state",
    "borrow": "loop_owner",
    "bridge": "fallback_reconciler",
    "cadence": "beat_schedule",
    "copies": "snippets",
    "cord": "handshake",
    "courier": "direct_reply",
    "door": "admission",
    "ears": "direct_read",
    "exodus": "exit priority",
    "fate": "effect",
    "figures": "history, histograms",
    "force": "worker_set",
    "forge": "templates",
    "hand": "dispatcher, driver",
    "hands": "dispatcher, drivers",
    "hear": "receive, record",
    "heard": "reports",
    "held": "assigned, prefetched",
    "hold": "lease",
    "keeper": "reaper",
    "ledger": "recent_events",
    "letterbox": "direct_reply",
    "lifeline": "parent_death",
    "line": "call_queue",
    "look": "sample, check, view",
    "looks": "samples",
    "mould": "template",
    "nameplate": "process_title",
    "needs": "alerts",
    "outfit": "worker_resources",
    "pace": "RateMeter",
    "quoting": "json_text",
    "renewal": "after_fork",
    "roster": "load_index",
    "shadows": "tracked_containers",
    "shortcut": "http2_fast_path",
    "staff": "worker_handle",
    "standing": "drain_status",
    "strays": "orphans",
    "stretch": "jitter_factor",
    "stretches": "timeline",
    "surroundings": "deps",
    "takeback": "revoke",
    "tally": "buffered_meter",
    "tell": "print, report",
    "ticket": "in-flight call",
    "upkeep": "reconcile",
    "vigil": "spin_wait",
    "who": "identity, actor",
    "withheld": "revoked",
    "withhold": "revoke",
    "workforce": "worker_set",
}
RETIRED_NAMES = {  # whole names whose words are ordinary
    "given_back": "requeued",
    "load_time": "startup_times",
    "take_back": "revoke",
    "TakeBack": "Revoke",
    "Returned": "Revoked",
    "Pace": "RateMeter",
    "Retries": "RetryBudget",
    "Word": "Scope",
    "maintenance.py": "node_drain.py",
    "minutes.py": "minute_aggregator.py",
    "parallel.py": "gil_report.py",
    "rollout.py": "change_preview.py",
    "wire.py": "connection.py",
}

EVERYWHERE = ("",)
TESTS = ("tests/",)
ALLOWED: dict[str, tuple[tuple[str, ...], str]] = {  # word: where (prefixes of paths), and why
    "ahead": (TESTS, "a generator is ahead of its reader, a clock of another one"),
    "copies": (EVERYWHERE, "the verb; COPY of an image"),
    "figures": (("pools/static/", "templates/", "docs/"), "a CSS class: the numbers at the top of a page"),
    "force": (EVERYWHERE, "Django's force_login, force_insert, force_update; a definition is 'in force'"),
    "held": (
        ("workers/runtime/races.py", "tests/"),
        "a lock is held by a thread; in tests, a call of the command `hold`, and an attempt that holds its lease",
    ),
    "hold": (TESTS, "the adapter command that keeps its slot until the test opens a pipe"),
    "line": (EVERYWHERE, "a line of text, of a file or of a chart; the command line"),
    "look": (TESTS, "commands of test adapters; a reading of the state under test"),
    "looks": (TESTS, "a user that may only view"),
    "needs": (EVERYWHERE, "the verb: an order needs a permission, a change needs new workers"),
    "staff": (EVERYWHERE, "Django's is_staff"),
    "who": (TESTS, "the argument of an echoed call"),
}
ALLOWED_NAMES = {
    "LOOK_BACK": "lookback: the quarters that a roll-up computes again",
    "hand_over": "hand over: the session gives its calls to its successor",
    "_hand_over": "hand over: the session gives its calls to its successor",
}
PLAIN_FILES = {"command-line.md": {"line"}}  # a file name has no other exceptions
TEST_FUNCTION = re.compile(r"test_\w+")  # a plain sentence, not a name

# A class name stands for one idea. Names that exist twice in the package, with the reason.
TWICE = {
    "Event": "the broker's event, and its row: the same facts, stored",
    "Meta": "Django's inner class",
    "Pool": "the decisions of a pool in the broker, and the row that an operator edits; a user knows one pool",
    "Worker": "a worker in the broker's memory, and its observed row: the same facts, stored",
}


def words_of(name: str) -> list[str]:
    """Split a name into its lower-case words.

    >>> words_of("aMould_ofHTTPFrames")
    ['a', 'mould', 'of', 'http', 'frames']
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def files(*folders: str, ends: tuple[str, ...] = (".py",)) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in ends and path.is_file() and not path.is_symlink() and not GENERATED.search(name):
                yield name, path


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Classes, functions, variables, attributes, parameters and arguments, with their lines."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield line, name
            case ast.alias(name=name, asname=other):
                yield line, other or name.rpartition(".")[2]
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield from ((line, name) for name in names)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield line, name


def metaphors(name: str, path: str) -> list[str]:
    """The retired words in a name, without those that are allowed in this file."""
    if name in ALLOWED_NAMES or (path.startswith("tests/") and TEST_FUNCTION.fullmatch(name)):
        return []
    found = [name] if name in RETIRED_NAMES else [word for word in words_of(name) if word in RETIRED]
    return [word for word in found if not path.startswith(ALLOWED.get(word, ((),))[0])]


def shown(path: str, line: int, name: str, word: str) -> str:
    return f"{path}:{line}: {name}: use {RETIRED.get(word) or RETIRED_NAMES[word]}"


def test_no_python_name_is_a_retired_metaphor() -> None:
    found = [
        shown(path, line, name, word)
        for path, file in files(*PYTHON)
        for line, name in names_in(ast.parse(file.read_bytes()))
        for word in metaphors(name, path)
    ]
    assert found == []


def test_no_file_is_named_by_a_retired_metaphor() -> None:
    paths = [name for name, _ in files(*PYTHON, "proto", "templates", ends=(".py", ".proto", ".html", ".js", ".css"))]
    paths += [name for name, _ in files("docs", ends=(".md",))]
    assert len(paths) > 400, "the files were not found"
    found = []
    for path in paths:
        name = path.rpartition("/")[2]
        listed = {name} & RETIRED_NAMES.keys() or set(words_of(name.partition(".")[0])) & RETIRED.keys()
        found += [shown(path, 0, name, word) for word in listed - PLAIN_FILES.get(name, set())]
    assert found == []


IDENTIFIERS = {
    ".proto": re.compile(r"(?://[^\n]*)|\b([A-Za-z_]\w*)\s*(?==\s*\d+|\{)|\brpc (\w+)"),
    ".js": re.compile(r"\b(?:const|let|var|function|class)\s+([A-Za-z_$]\w*)|([A-Za-z_$]\w*)\s*(?==>|:|=[^=])"),
    ".css": re.compile(r"[.#]([a-zA-Z][\w-]*)(?=[\s,.:>{+~\[])|--([\w-]+)\s*:"),
    ".html": re.compile(r"(?:\bid|\bname)=\"([\w-]+)\"|\{\{ *([\w.]+)|\{% (?:for|with|if) ([\w., =]+)"),
    ".md": re.compile(r"`([A-Za-z_][\w.]*)`"),
}


@pytest.mark.parametrize("ends", IDENTIFIERS)
def test_no_identifier_in_other_sources_is_a_retired_metaphor(ends: str) -> None:
    sources = list(files("proto", "templates", "pools/static", "docs", "tests", ends=(ends,)))
    sources += [(path.name, path) for path in ROOT.glob(f"*{ends}")]
    assert sources
    found = []
    for path, file in sources:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            names = [
                name
                for match in IDENTIFIERS[ends].findall(line)
                for name in ([match] if isinstance(match, str) else match)
            ]
            found += [shown(path, number, name, word) for name in names for word in metaphors(name, path)]
    assert found == []


def test_the_search_finds_metaphors_in_every_kind_of_name() -> None:
    source = """
class Mould: ...
def hear(hand, *, who=1): self.held = tally = f(fate=2)
from a import vigil as b, ears
match x:
    case {"a": cord}: ...
"""
    names = {name for _, name in names_in(ast.parse(source))}
    found = {word for name in names for word in metaphors(name, "pools/a.py")}
    assert found == {"mould", "hear", "hand", "who", "held", "tally", "fate", "ears", "cord"}


def test_every_exception_is_in_use() -> None:
    used: set[str] = set()
    for _, file in files(*PYTHON, "pools/static", "templates", ends=(".py", ".css", ".html", ".js")):
        if file.suffix == ".py":
            for _, name in names_in(ast.parse(file.read_bytes())):
                used |= {name, *words_of(name)}
        else:
            used |= set(words_of(file.read_text()))
    assert {*ALLOWED, *ALLOWED_NAMES} - used == set(), "take them out of ALLOWED"


def test_a_class_name_stands_for_one_idea() -> None:
    where = defaultdict(list)
    for path, file in files(*PACKAGE):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(path)
    twice = {name: paths for name, paths in where.items() if len(paths) > 1}
    assert twice.keys() == TWICE.keys(), twice
