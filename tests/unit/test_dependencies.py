"""pyproject.toml and docs/explanation/dependencies.md agree, and the bounds are ones that `make matrix` can install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import matrix

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "dependencies.md").read_text()
CORE = matrix.PROJECT["dependencies"]
SHOWN = ("embedded", "demo", "serve", "uvloop", "postgres", "grpc", "bench", "docs")


def rows(section: str) -> list[list[str]]:
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_each_dependency_of_the_core_has_a_row() -> None:
    assert [re.split(r"[ ,]", row[0])[0].lower() for row in rows("The core")] == [matrix.name_of(one) for one in CORE]


def test_each_dependency_of_an_extra_has_a_row_with_that_extra() -> None:
    shown = {(row[0], row[1].strip("`")) for row in rows("Extras")}
    wanted = {(matrix.name_of(one), extra) for extra in SHOWN for one in matrix.EXTRAS[extra]}
    assert shown == {(name, extra) for name, extra in wanted if not name.startswith("django-snakepit")}


@pytest.mark.parametrize("section", ["The core", "Extras"])
def test_a_row_has_size_licence_and_what_was_looked_at(section: str) -> None:
    for row in rows(section):
        assert all(row), row
        assert "MiB" in row[-3], row


def test_each_extra_is_on_the_page() -> None:
    assert {extra for extra in matrix.EXTRAS if f"`{extra}`" not in PAGE} == set()


def test_each_dependency_has_a_lower_bound_and_those_of_the_core_an_upper_one() -> None:
    extras = [one for extra in SHOWN for one in matrix.EXTRAS[extra] if not one.startswith("django-snakepit")]
    assert [one for one in [*CORE, *extras] if ">=" not in one] == []
    assert [one for one in CORE if "<" not in one] == []


def test_a_lowest_leg_holds_each_dependency_of_the_core_to_one_version() -> None:
    made = matrix.legs({"3.11": "/python3.11", "3.13": "/python3.13", "3.13t": "/python3.13t"})
    for leg in made:
        if leg.name.startswith("lowest-"):
            assert {matrix.lowest(one) for one in CORE} <= set(leg.requirements)
    held = {one for one in made[0].requirements if "==" in one}
    assert {matrix.name_of(one) for one in held} >= matrix.runtime_extras().keys()


def test_the_legs_are_both_ends_of_each_python_older_djangos_and_workers_without_a_gil() -> None:
    made = matrix.legs({"3.11": "/a", "3.13": "/b", "3.13t": "/c"})
    assert [leg.name for leg in made] == [
        "lowest-3.11", "newest-3.11", "lowest-3.13", "newest-3.13", "django5.2-3.13", "django6.0-3.13",
        "worker-lowest-3.13t", "worker-newest-3.13t",
    ]  # fmt: skip
    assert [leg.name for leg in matrix.quick(made)] == ["lowest-3.11", "newest-3.13"]


def test_one_python_alone_has_both_ends_too() -> None:
    assert [leg.name for leg in matrix.quick(matrix.legs({"3.12": "/a"}))] == ["lowest-3.12", "newest-3.12"]


def test_the_extras_of_the_tests_bring_what_each_extra_of_the_product_brings() -> None:
    brought = set(matrix.flatten("test"))
    assert {one for one in matrix.runtime_extras().values() if one not in brought} == set()
