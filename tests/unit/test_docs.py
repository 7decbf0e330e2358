"""The documents are true: code blocks run or are quotations, generated pages are fresh, links have a target."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import runpy
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Model

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PICTURE = re.compile(r'(?:src|srcset)="([^"]+\.png)"')
BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.DOTALL | re.MULTILINE)
QUOTED = "# from "
NOT_RUN = ("needs a broker", "needs a database", "in a project", "another system")  # in a project: test_testing_kit.py


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(kind: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match["kind"] == kind:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(name_of(page), line, match["note"] or "", match["text"]))
    return found


PYTHON = blocks("python")
QUOTATIONS = [block for block in PYTHON if block.text.startswith(QUOTED)]
STEPS = ("append to ", "write ")  # of a new project: an acceptance test does them
RUNNABLE = [
    block
    for block in PYTHON
    if block not in QUOTATIONS and block.note not in NOT_RUN and not block.note.startswith(STEPS)
]


def test_there_are_blocks_of_each_kind() -> None:
    assert len(QUOTATIONS) >= 4
    assert len(RUNNABLE) >= 5


@pytest.mark.parametrize("page", sorted({block.page for block in RUNNABLE}))
def test_the_code_on_a_page_runs_from_top_to_bottom(page: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in (block for block in RUNNABLE if block.page == page):
        # Newlines before it, so that a traceback names the page's own line.
        exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), names)
    assert names.keys() - {"__name__", "__builtins__"}, "the page's code defines nothing"


@pytest.mark.parametrize("block", [block for block in PYTHON if block not in QUOTATIONS], ids=str)
def test_code_that_needs_a_broker_is_python_all_the_same_and_imports_what_is_there(block: Block) -> None:
    tree = ast.parse(block.text, str(block))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    ours = [node for node in imports if str(node.module).partition(".")[0] == "snakepit"]
    names: dict[str, Any] = {}
    exec(compile(ast.Module([*ours], []), str(block), "exec"), names)
    assert names.keys() >= {name.asname or name.name for node in ours for name in node.names}


@pytest.mark.parametrize("block", QUOTATIONS, ids=str)
def test_a_quotation_is_word_for_word_in_its_file(block: Block) -> None:
    head, _, quoted = block.text.partition("\n")
    assert quoted.strip("\n") in (ROOT / head.removeprefix(QUOTED)).read_text()


@pytest.mark.django_db
@pytest.mark.parametrize("block", [block for block in PYTHON if block.note == "needs a database"], ids=str)
def test_code_for_a_django_shell_runs_in_one(block: Block) -> None:
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    made = [value for value in names.values() if isinstance(value, Model)]
    assert made
    assert all(row.pk for row in made)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_picture_is_there_in_both_schemes_and_shown_somewhere() -> None:
    shown = {(page.parent / name).resolve() for page in PAGES for name in PICTURE.findall(page.read_text())}
    there = {path.resolve() for path in (DOCS / "images").glob("*.png")}
    assert shown
    assert shown - there == set()
    assert {path.name.replace("-dark", "-light") for path in shown} == {
        path.name for path in shown if "-light" in path.name
    }
    assert sum(path.stat().st_size for path in there) < 3 * 2**20


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:docs|deploy|examples|pools|workers|proto|tests|snakepit_site)/[\w./-]+)`", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_generated_pages_are_fresh() -> None:
    for path, text in runpy.run_path(str(DOCS / "generate.py"))["pages"]().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make docs`"


def emitted(kind: str) -> tuple[set[str], set[str]]:
    """The levels and the constant reasons of the calls in the broker that publish a kind, read from its source."""
    levels, reasons = set(), set()
    for path in (ROOT / "pools").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())) if f"Kind.{kind}" in path.read_text() else ():
            if not isinstance(node, ast.Call) or f"Kind.{kind}" not in map(ast.unparse, node.args):
                continue
            at = next(i for i, one in enumerate(node.args) if ast.unparse(one) == f"Kind.{kind}")
            texts = [one.value for one in node.args[at + 1 :] if isinstance(one, ast.Constant)]
            named = {one.arg: one.value for one in node.keywords}
            level = named.get("level") or ast.Constant(next((one for one in texts if one == "warning"), "info"))
            levels.add(level.value if isinstance(level, ast.Constant) else "info or warning")
            if isinstance(reason := named.get("reason"), ast.Constant):
                reasons.add(reason.value)
            reasons |= {one for one in texts if one and one not in ("info", "warning") and " " not in one}
    return levels, reasons


def test_levels_and_reasons_of_events_are_those_of_the_code() -> None:
    from snakepit.pools.broker.events import Kind

    notes = tomllib.loads((DOCS / "events.toml").read_text())
    assert set(notes) == set(Kind)
    for kind in Kind:
        levels, reasons = emitted(kind.name)
        assert " or ".join(sorted(levels)) == notes[kind]["level"], kind
        assert reasons <= set(notes[kind].get("reasons", [])), kind


SHELL = re.compile(r"(?:^\$ (?:\S*/)?|`(?:manage\.py )?)snakepit((?: [^`\n]+)?)", re.M)


def shell_lines(page: Path) -> list[str]:
    """The `snakepit` commands that a page shows: in console blocks and in code spans."""
    text = page.read_text()
    spans = re.sub(r"^```(?!console).*?^```$", "", text, flags=re.M | re.S)
    return [line.partition(" #")[0].partition(" | ")[0].strip() for line in SHELL.findall(spans)]


@functools.cache
def command_line() -> Any:
    from typer.main import get_command

    from snakepit.pools.cli.main import app

    return get_command(app)


def command_problem(line: str) -> str:
    """What is wrong with a command's words: a name or an option that the command line has not; empty if nothing is."""
    command = command_line()
    words = [word for word in re.sub(r"'[^']*'|\"[^\"]*\"", "X", line).split() if word not in ("...", "&")]
    while words and (inner := getattr(command, "commands", None)):
        if words[0].startswith("-") or words[0] == "COMMAND":
            break
        if words[0] not in inner:
            return f"no command {words[0]!r}"
        command = inner[words.pop(0)]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    unknown = [word for word in words if word.startswith("-") and word != "-" and word.partition("=")[0] not in options]
    return f"no option {unknown[0]}" if unknown else ""


def test_a_command_that_does_not_exist_is_found() -> None:
    assert command_problem("status --json") == command_problem("keys list") == ""
    assert command_problem("statsu") == "no command 'statsu'"
    assert command_problem("recycle digits --forcefully") == "no option --forcefully"
    assert command_problem("keys lst") == "no command 'lst'"


def test_every_snakepit_command_and_option_on_the_pages_exists() -> None:
    shown = {(name_of(page), line) for page in PAGES for line in shell_lines(page)}
    assert len(shown) > 80
    assert [(page, line, why) for page, line in sorted(shown) if (why := command_problem(line))] == []


def string_parts(folder: str) -> set[str]:
    """Each text in the code of a folder; of an f-string, the parts between its values."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        found |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return found


def test_the_messages_and_names_of_the_page_of_symptoms_are_those_of_the_code() -> None:
    from snakepit.pools.broker.errors import ERRORS

    text = (DOCS / "howto" / "troubleshooting.md").read_text()
    missing = set(ERRORS) - set(re.findall(r"`(\w+)`", text)) - {"broker_unreachable"}  # its class is in a heading
    assert missing == set()
    parts = "\n".join(string_parts("pools") | string_parts("workers"))
    quoted = [*re.findall(r"^> (.+)$", text, re.M), *re.findall(r"`([^`\n]*…[^`\n]*)`", text)]
    assert len(quoted) > 10
    lost = [part for quote in quoted for part in quote.split("…") if part.strip(" .():") and part not in parts]
    assert lost == []
    checks = (ROOT / "pools" / "checks.py").read_text()
    named = set(re.findall(r"snakepit\.([EW]\d{3})", text))
    assert named
    assert named == set(re.findall(r"\b[EW]\d{3}\b", checks))


def test_blocks_for_nginx_are_in_the_example() -> None:
    example = (ROOT / "deploy" / "nginx.conf").read_text()
    found = [block for block in blocks("nginx") if block.note != "not in the file"]
    assert len(found) > 2
    assert [str(block) for block in found if block.text not in example] == []


def limits() -> list[tuple[str, str]]:
    rows = re.findall(
        r"^\| .+? \| (.+?) \| .*? \| `([\w.]+)` \|$", (DOCS / "reference" / "limits.md").read_text(), re.M
    )
    return [(amount, place) for amount, place in rows]


@pytest.mark.parametrize(("amount", "place"), limits(), ids=str)
def test_a_documented_limit_is_the_one_in_the_code(amount: str, place: str) -> None:
    module, _, name = place.rpartition(".")
    assert float(getattr(importlib.import_module(module), name)) == float(amount.split()[0])


def test_limits_are_found() -> None:
    assert len(limits()) > 15


def test_every_operation_of_the_api_is_documented_and_none_besides() -> None:
    from snakepit.pools.api.app import api

    paths = api.get_openapi_schema(path_prefix="/api/")["paths"]
    real = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    documented = set(re.findall(r"^\| `([A-Z]+ /api/\S*)` \|", (DOCS / "reference" / "api.md").read_text(), re.M))
    assert documented == real


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for page in PAGES for name in re.findall(r"(?:`|\$ |run `)make ([a-z-]+)", page.read_text())}
    assert named
    assert named <= targets


def test_the_contributing_page_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 90


def test_the_design_is_read_in_one_sitting() -> None:
    assert len((DOCS / "explanation" / "design.md").read_text().split()) < 2500


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)\)", (DOCS / "README.md").read_text()))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {page for page in pages if page.count("/") == 1} <= linked


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_a_section_find_its_heading(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    lost = [
        f"{name}#{anchor}" for name, anchor in targets if anchor not in anchors(page.parent / name if name else page)
    ]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_things_and_not_persons(page: Path) -> None:
    text = page.read_text()
    if "Generated from" not in text:  # such a page has the words of the code
        assert re.findall(r"\b(?:nobody|somebody|whoever)\b", CODE.sub("", text), re.I) == []


def test_the_tests_that_the_page_of_servers_names_exist() -> None:
    named = re.findall(r"`(test_\w+)(?:\[([^\]]+)\])?`", (ROOT / "docs/reference/servers.md").read_text())
    assert len(named) > 10
    code = "".join(file.read_text() for file in (ROOT / "tests/process").rglob("test_*.py"))
    assert [name for name, _ in named if f"def {name}(" not in code] == []
    assert [case for _, case in named if case and f'"{case}"' not in code] == []
