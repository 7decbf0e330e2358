"""The files for a code host fit their schemas, and name targets and tests that exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / ".github"
SCHEMAS = {
    "github-workflows": sorted((HOST / "workflows").glob("*.yml")),
    "github-issue-forms": [HOST / "ISSUE_TEMPLATE/bug.yml", HOST / "ISSUE_TEMPLATE/idea.yml"],
    "github-issue-config": [HOST / "ISSUE_TEMPLATE/config.yml"],
    "dependabot": [HOST / "dependabot.yml"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_fits_its_schema(schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(
        [*command, *map(str, SCHEMAS[schema])], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_run_targets_that_exist_with_the_least_rights() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    legs = subprocess.run(
        [sys.executable, "tests/matrix.py", "--list"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for path in SCHEMAS["github-workflows"]:
        text = path.read_text()
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}, path
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values()), path
        for command in re.findall(r"run: make (.*)$", text, re.M):
            assert {word for word in command.split() if re.fullmatch("[a-z-]+", word)} <= targets, command
    asked = yaml.safe_load((HOST / "workflows/dependencies.yml").read_text())["jobs"]["matrix"]["strategy"]["matrix"]
    kinds = {leg.partition("-")[0] for leg in legs.split()[::2]}
    assert {leg.partition("-")[0] for leg in asked["leg"]} <= kinds


def test_hooks_before_a_commit_run_the_linters_of_the_test_extra() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    tools = {re.split(r"[<>=\[]", one)[0] for one in extra} | {"lint-imports"}  # of import-linter
    assert {Path(hook["entry"].split()[0]).name for hook in hooks} <= tools
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert lint
    assert set(re.findall(r"\$\(BIN\)/([\w-]+)", lint[1])) == {Path(hook["entry"].split()[0]).name for hook in hooks}


def test_the_lock_file_has_what_the_project_requires_from_the_public_index_alone() -> None:
    text = (ROOT / "uv.lock").read_text()
    assert set(re.findall(r"https?://([^/\"]+)", text)) == {"pypi.org", "files.pythonhosted.org"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = tomllib.loads(text)["package"]
    (own,) = [one for one in packages if one["name"] == project["name"]]
    assert own["source"] == {"editable": "."}
    wanted = {("", one) for one in project["dependencies"]}
    wanted |= {(extra, one) for extra, given in project["optional-dependencies"].items() for one in given}
    locked = {extra_of(one) for one in own["metadata"]["requires-dist"]}
    assert {requirement(extra, one) for extra, one in wanted} == locked, "say `make lock`"
    assert all("hash" in wheel for one in packages for wheel in one.get("wheels", ()))


def requirement(extra: str, text: str) -> tuple[str, str, frozenset[str]]:
    """The extra, the name and the versions of a dependency in pyproject.toml."""
    name, versions = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)", text).groups()  # type: ignore[union-attr]
    return extra, re.sub(r"[-_.]+", "-", name).lower(), frozenset(filter(None, versions.replace(" ", "").split(",")))


def extra_of(entry: dict[str, str]) -> tuple[str, str, frozenset[str]]:
    """The same of an entry in uv.lock."""
    found = re.search(r"extra == '([\w-]+)'", entry.get("marker", ""))
    return found[1] if found else "", entry["name"], frozenset(filter(None, entry.get("specifier", "").split(",")))
