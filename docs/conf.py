"""The site of the documentation; `make docs-site` builds it with Sphinx, MyST and Furo.

The pages stay plain Markdown that a code host shows as well. So the source directory is the repository: a link such as
`../README.md` is right in both places. The navigation is made from the links of docs/README.md, in its order. A page
without a link there is in no toctree, which is a warning, and the build takes warnings for errors.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INDEX = "docs/README"
PROJECT_PAGES = ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")

sys.path.insert(0, str(ROOT))  # autodoc reads the code of this repository
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")

package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
project = "Snakepit for Django"
author = "the authors of Snakepit for Django"
version = release = package["version"]
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = INDEX
source_suffix = {".md": "markdown"}
include_patterns = ["docs/**/*.md", "docs/*.md", *(f"{name}.md" for name in PROJECT_PAGES)]
exclude_patterns = [
    ".*",
    "build",
    "dist",
    "mutants",
    "benchmarks",
    "tests",
    "pools",
    "workers",
    "snakepit*",
    "templates",
]
templates_path = ["_templates"]
smartquotes = False  # a docstring writes SNAKEPIT["TEST"] and --pool without marks

myst_heading_anchors = 4  # the anchors that a code host gives to headings

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
default_role = "code"  # docstrings write `name` for code
add_module_names = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_additional_pages = {"index": "index.html"}  # the index is at docs/README.html
html_theme_options = {"navigation_with_keys": True}


def link_entries(section: str) -> Iterator[str]:
    """The pages that a section of the index links to, once each, as entries of a toctree."""
    found = {}
    for title, page in re.findall(r"\[([^\]]+)\]\(((?!\.\.)[\w./-]+)\.md\)", section):
        found.setdefault(page, title)
    for page, title in found.items():
        yield f"{title} <{page}>"


def toctree(caption: str, entries: Iterator[str]) -> str:
    lines = ["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"]
    return "\n".join(lines) + "\n"


def add_navigation(app: Any, page: str, source: list[str]) -> None:
    if page != INDEX:
        return
    made = []
    for section in re.split(r"^## ", source[0], flags=re.M)[1:]:
        caption, _, text = section.partition("\n")
        made.append(toctree(caption, link_entries(text)))
    made.append(toctree("Project", (f"/{name}" for name in PROJECT_PAGES)))
    source[0] += "\n" + "\n".join(made)


def mark_examples(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Make an indented block of a docstring a code block: reStructuredText would show it as a quotation."""
    made: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and made and not made[-1]:
            made += ["::", ""]
        inside = indented or (inside and not line)
        made.append(line)
    lines[:] = made


def copy_pictures(app: Any, exception: Exception | None) -> None:
    # `<picture>` is plain HTML, whose files Sphinx does not collect.
    if exception is None:
        shutil.copytree(ROOT / "docs" / "images", Path(app.outdir) / "docs" / "images", dirs_exist_ok=True)


def setup(app: Any) -> dict[str, bool]:
    import django

    django.setup()
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", mark_examples)
    app.connect("build-finished", copy_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
