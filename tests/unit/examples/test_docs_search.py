"""The documentation search as a plain Python object."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit.examples.docs_search import DocsSearch, docstring
from snakepit.workers import CallCancelled
from tests.unit.examples.follower import Follower


@pytest.fixture(scope="module")
def docs() -> DocsSearch:
    DocsSearch.preload()
    return DocsSearch()


def test_the_documentation_of_python_is_there(docs: DocsSearch) -> None:
    names = {passage.name for passage in docs.passages}
    assert {"json", "asyncio", "with", "heapq"} <= names
    assert len(docs.passages) > 150


def test_a_hit_has_its_position(docs: DocsSearch) -> None:
    hits = list(docs.search(Follower(), "priority queue"))
    heapq = next(hit for hit in hits if hit.get("module") == "heapq")
    assert heapq["score"] >= 2
    assert heapq["line"] >= 1
    assert heapq["title"]
    assert "priority" in docs.read("heapq").casefold()


def test_every_hit_holds_every_word(docs: DocsSearch) -> None:
    hits = list(docs.search(Follower(), "Context Manager", limit=1000))
    assert hits
    for hit in hits:
        text = docs.read(hit.get("module") or hit["topic"]).casefold()
        assert "context" in text
        assert "manager" in text


def test_count_and_search_agree(docs: DocsSearch) -> None:
    assert docs.count("exception") == len(list(docs.search(Follower(), "exception", limit=1000))) > 10


def test_hits_come_one_by_one_and_the_limit_ends_the_search(docs: DocsSearch) -> None:
    follower = Follower()
    stream = docs.search(follower, "the", limit=3)
    assert follower.fractions == []
    next(stream)
    assert len(follower.fractions) == 1
    assert len(list(stream)) == 2


def test_progress_rises_from_0_towards_1(docs: DocsSearch) -> None:
    follower = Follower()
    assert list(docs.search(follower, "xyzzy plugh")) == []
    assert follower.fractions[0] == 0
    assert follower.fractions == sorted(follower.fractions)
    assert 0.7 < follower.fractions[-1] < 1


def test_a_cancelled_search_ends(docs: DocsSearch) -> None:
    follower = Follower()
    stream = docs.search(follower, "e", limit=1000)
    next(stream)
    follower.cancelled = True
    with pytest.raises(CallCancelled):
        list(stream)


@pytest.mark.parametrize(
    ("query", "limit", "complaint"),
    [("", 20, "query"), ("   ", 20, "query"), ("x" * 201, 20, "query"), ("json", 0, "limit"), ("json", 1001, "limit")],
)
def test_a_search_for_nothing_or_for_too_much_is_refused(
    docs: DocsSearch, query: str, limit: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        next(docs.search(Follower(), query, limit))


def test_a_name_that_is_not_there_is_refused(docs: DocsSearch) -> None:
    with pytest.raises(ValueError, match="no module or topic 'nonsense'"):
        docs.read("nonsense")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (b'"""About this."""\nimport os\n', "About this."),
        (b'#!/usr/bin/env python\n# comment\n\nr"""Raw \\d."""\n', "Raw \\d."),
        (b"import os\n'''late'''\n", ""),
        (b"b'bytes are no docstring'\n", ""),
        (b"", ""),
        (b'"""never closed\n', ""),
        (b"\xff\xfe broken encoding", ""),
    ],
)
def test_a_docstring_is_the_first_string_of_a_source(tmp_path: Path, source: bytes, found: str) -> None:
    path = tmp_path / "module.py"
    path.write_bytes(source)
    assert docstring(path) == found
