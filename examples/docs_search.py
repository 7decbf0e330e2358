"""Text search over Python's own documentation: the topics of `help()` and the docstrings of the standard library.

`preload` collects the passages once; `search` streams each hit as soon as it is found.

    stdlib sources ─ first string ─┐
    pydoc_data.topics ─────────────┴─▶ passages ──▶ search ──▶ hit, hit, hit ...
"""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakepit.workers import Adapter, Context, command

LONGEST_QUERY = 200
MOST_HITS = 1000
EXCERPT = 160
REPORT_EVERY = 50  # passages between two reports of progress
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "encodings", "__pycache__"}
LAYOUT = {tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}


@dataclass(frozen=True, slots=True)
class Passage:
    source: str  # "module" or "topic"
    name: str
    title: str  # the first line that is not empty
    text: str
    folded: str  # the text for comparison, folded once instead of in every search


class DocsSearch(Adapter):
    """Searches Python's own documentation."""

    passages: tuple[Passage, ...] = ()

    @classmethod
    def preload(cls) -> None:
        cls.passages = (*topics(), *modules(Path(sysconfig.get_path("stdlib"))))

    @command(idempotent=True)
    def search(self, ctx: Context, query: str, limit: int = 20) -> Iterator[dict[str, Any]]:
        """Stream the passages that contain every word of the query.

        A hit is {"module" or "topic", "line", "title", "excerpt", "score"}. The score is the number of occurrences of
        the words, plus ten for each word in the passage's name.
        """
        words = words_of(query)
        if not 1 <= limit <= MOST_HITS:
            raise ValueError(f"limit: {limit} is outside 1 to {MOST_HITS}")
        found = 0
        for number, passage in enumerate(self.passages):
            if number % REPORT_EVERY == 0:
                ctx.raise_if_cancelled()
                ctx.progress(number / len(self.passages), f"{found} found")
            if all(word in passage.folded for word in words):
                found += 1
                yield hit(passage, words)
                if found == limit:
                    return

    @command(idempotent=True)
    def count(self, query: str) -> int:
        """The number of passages that contain every word of the query."""
        words = words_of(query)
        return sum(all(word in passage.folded for word in words) for passage in self.passages)

    @command(idempotent=True)
    def read(self, name: str) -> str:
        """The whole text of the module or topic of this name."""
        for passage in self.passages:
            if passage.name == name:
                return passage.text
        raise ValueError(f"name: there is no module or topic {name!r}")


def words_of(query: str) -> list[str]:
    words = query.casefold().split()
    if not words:
        raise ValueError("query: must contain at least one word")
    if len(query) > LONGEST_QUERY:
        raise ValueError(f"query: {len(query)} characters are too many; the limit is {LONGEST_QUERY}")
    return words


def hit(passage: Passage, words: list[str]) -> dict[str, Any]:
    first = min(passage.folded.find(word) for word in words)
    # Case folding can change the length of a text: the position may be off by a few characters, but inside the text.
    line_start = passage.text.rfind("\n", 0, first) + 1
    excerpt = " ".join(passage.text[line_start : line_start + EXCERPT].split())
    score = sum(passage.folded.count(word) + 10 * (word in passage.name.casefold()) for word in words)
    line = passage.text.count("\n", 0, first) + 1
    return {passage.source: passage.name, "line": line, "title": passage.title, "excerpt": excerpt, "score": score}


def topics() -> Iterator[Passage]:
    """The chapters of the language reference that `help("with")` shows."""
    from pydoc_data.topics import topics as chapters

    for name, text in sorted(chapters.items()):
        yield passage_of("topic", name, text)


def modules(root: Path) -> Iterator[Passage]:
    """The standard library's public modules that have a docstring, read without importing any."""
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        parts = path.relative_to(root).with_suffix("").parts
        names = parts[:-1] if parts[-1] == "__init__" else parts
        if SKIPPED.intersection(parts) or any(name.startswith("_") for name in names):
            continue
        if text := docstring(path):
            yield passage_of("module", ".".join(names), text)


def docstring(path: Path) -> str:
    """A module's docstring. Reads only the first tokens, because parsing all files completely takes seconds."""
    try:
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.STRING:
                    value = ast.literal_eval(token.string)
                    return value if isinstance(value, str) else ""
                if token.type not in LAYOUT:
                    return ""
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return ""  # not valid source for this Python: skip the file
    return ""


def passage_of(source: str, name: str, text: str) -> Passage:
    title = next((line.strip() for line in io.StringIO(text) if line.strip()), name)
    return Passage(source, name, title, text, text.casefold())
