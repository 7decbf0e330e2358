"""The documentation site builds without a warning, is complete, and loads nothing from another host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(
    r"""<(?:script|img|source|iframe|video)\b[^>]*?\b(?:src|srcset)=["']([^"']+)|"""
    r"""<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|icon|preconnect|dns-prefetch|modulepreload)["'])"""
    r"""[^>]*?\bhref=["']([^"']+)|url\(\s*["']?((?:https?:)?//[^"')]+)""",
    re.I,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs-site` builds it."""
    made = tmp_path_factory.mktemp("site")
    recipe = re.search(
        r"^docs-site:.*\n\t\$\(BIN\)/python (-m sphinx .*) build/site$", (ROOT / "Makefile").read_text(), re.M
    )
    assert recipe
    words = recipe[1].replace("build/doctrees", str(made / "doctrees")).split()
    assert "--fail-on-warning" in words
    done = subprocess.run(
        [sys.executable, *words, str(made / "html")], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made / "html"


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_each_page_is_on_the_site_in_the_order_of_the_index(site: Path) -> None:
    sources = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    sources = [source.relative_to(ROOT) for source in sources]
    assert len(sources) > 30
    assert [str(source) for source in sources if not (site / source).with_suffix(".html").exists()] == []
    index = re.sub(r"^#.*$", "", (ROOT / "docs/README.md").read_text(), flags=re.M)
    wanted = list(dict.fromkeys(re.findall(r"\]\(([a-z]\S+)\.md\)", index)))
    tree = (site / "docs/README.html").read_text().partition('class="sidebar-tree"')[2]
    shown = re.findall(r'class="toctree-l1"><a class="reference internal" href="([a-z]\S+)\.html"', tree)
    assert list(dict.fromkeys(shown)) == wanted


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    files = [*pages(site), *site.rglob("*.css")]
    loaded = {name for file in files for found in LOADED.findall(file.read_text()) for name in found if name}
    assert loaded
    assert [name for name in loaded if re.match(r"(?:[a-z]+:)?//", name, re.I)] == []


def test_pictures_and_links_of_plain_html_have_a_file(site: Path) -> None:
    lost = []
    for page in pages(site):
        named = re.findall(r"""\b(?:src|srcset|href)=["']([^"'#?]+)""", page.read_text())
        here = {name for name in named if not re.match(r"[a-z]+:", name, re.I)}
        lost += [f"{page.relative_to(site)}: {name}" for name in sorted(here) if not (page.parent / name).exists()]
    assert lost == []


def test_the_search_has_an_index_that_works_without_a_server(site: Path) -> None:
    text = (site / "searchindex.js").read_text()
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"]["memory_soft_mb"]
    named = {index["docnames"][one] for one in ([found] if isinstance(found, int) else found)}
    assert "docs/reference/settings" in named


def test_the_public_names_of_the_package_are_on_the_page_of_python(site: Path) -> None:
    import snakepit
    import snakepit.pools.jobs
    import snakepit.testing

    text = (site / "docs/reference/python.html").read_text()
    modules = (snakepit, snakepit.pools.jobs, snakepit.testing)
    names = {f"{module.__name__}.{name}" for module in modules for name in module.__all__} - {"snakepit.override_pools"}
    assert {name for name in names if f'id="{name}"' not in text} == set()
