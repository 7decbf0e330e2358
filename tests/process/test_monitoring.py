"""The shipped alert rules and the Grafana dashboard: valid PromQL over metrics and labels that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parent.parent.parent
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/snakepit.json").read_text())
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$pool": ".*"}


def promtool(*arguments: str) -> str:
    program = shutil.which("promtool")
    if not program and not os.environ.get("CI"):
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    assert program, "promtool is needed: Debian's package prometheus has it"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented() -> dict[str, set[str]]:
    """The labels of each metric of the reference, which tests/unit/test_metrics.py compares with the broker's."""
    lines = (ROOT / "docs/reference/metrics.md").read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith("| `snakepit_")]
    return {row[1].strip().strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows if len(row) == 5}


def alert_expressions() -> list[str]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def panel_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_each_alert_fires_when_its_test_says_so() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(ROOT / "deploy/prometheus/alerts_test.yml"))
    tested = (ROOT / "deploy/prometheus/alerts_test.yml").read_text()
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert [name for name in names if f"alertname: {name}\n        exp_alerts" not in tested] == []


def test_each_expression_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    rules = []
    for number, expression in enumerate(panel_expressions()):
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        rules.append({"record": f"panel_{number}", "expr": expression})
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("expression", [*alert_expressions(), *panel_expressions()])
def test_an_expression_uses_metrics_and_labels_that_exist(expression: str) -> None:
    known = documented()
    used = {re.sub("_bucket$", "", name) for name in re.findall(r"snakepit_\w+", expression)}
    assert used
    assert used <= known.keys()
    labels = set(re.findall(r"(\w+)=~?\"", expression))
    labels |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    everywhere = {"instance", "le"}  # of Prometheus itself, and of histograms
    for name in used:
        assert labels <= known[name] | everywhere, name


def missing(given: Any, known: Any, path: str = "") -> Iterator[str]:
    """The paths of what `given` has and `known` has not, or has with another value."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name, value in given.items():
            yield from missing(value, known[name], f"{path}/{name}") if name in known else (f"{path}/{name}",)
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for number, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from missing(one, other, f"{path}/{number}")
    elif given != known:
        yield path


def through_grafana(dashboard: dict[str, Any]) -> Any:
    """Read a dashboard into the types that Grafana generates from its schemas, and write it again."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_the_dashboard_has_only_what_the_schemas_of_grafana_have() -> None:
    assert list(missing(DASHBOARD, through_grafana(DASHBOARD))) == []
    panel = next(panels())
    wrong = {**panel, "titel": "Calls", "options": {**panel["options"], "colour": "red"}}
    assert sorted(missing({"panels": [wrong]}, through_grafana({"panels": [wrong]}))) == [
        "/panels/0/options/colour",
        "/panels/0/titel",
    ]


def test_each_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in panels():
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", "the reader chooses the data source"
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
