"""Where a pool lives: matches the `nodes` of its definition with the name and the labels of a node.

An entry is the name of a node, or labels that the node must all have, joined by commas. One entry that matches is
enough. No entry: every node.

>>> labels = {"gpu": "a100", "zone": "b"}
>>> is_placed((), "web-1", {}), is_placed(("web-1",), "web-1", {})
(True, True)
>>> is_placed(("gpu=a100",), "node-2", labels), is_placed(("gpu=a100,zone=c", "web-1"), "node-2", labels)
(True, False)
>>> parse_labels("gpu=a100, zone=b") == labels
True
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}=[A-Za-z0-9._-]{0,63}")
NODE_NAME = re.compile(r"[^\s,=]{1,200}")  # an entry of `nodes` can then be this name and nothing else
MAX_ENTRIES = 100
RULE = "use the name of a node, or labels such as gpu=a100, joined by commas"


def is_placed(nodes: Iterable[str], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a node with this name and these labels hosts a pool with these `nodes`."""
    entries = tuple(nodes)
    return not entries or any(_matches(entry, name, labels) for entry in entries)


def _matches(entry: str, name: str, labels: Mapping[str, str]) -> bool:
    if "=" not in entry:
        return entry == name
    return all(labels.get(key) == value for key, value in parse_labels(entry).items())


def parse_labels(text: str) -> dict[str, str]:
    """Read labels as an environment variable has them; raises ValueError with what is wrong."""
    found: dict[str, str] = {}
    for part in text.split(","):
        label = part.strip()
        if not label:
            continue
        if not LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is not a label; write key=value with letters, digits, - . _ (/ in the key)")
        key, _, value = label.partition("=")
        if found.setdefault(key, value) != value:
            raise ValueError(f"the label {key} has two values, {found[key]} and {value}")
    return found


def nodes_text(nodes: Sequence[str]) -> str:
    """Return where a pool lives, as a clause."""
    return " or ".join(nodes) if nodes else "every node"


def find_nodes_problem(value: object) -> str | None:
    """Return what is wrong with the `nodes` of a pool, or None."""
    if not isinstance(value, list | tuple):
        return f"{value!r} is not a list; {RULE}"
    if len(value) > MAX_ENTRIES:
        return f"{len(value)} entries are more than {MAX_ENTRIES}; give these nodes a common label"
    return next((why for entry in value if (why := _entry_problem(entry))), None)


def find_name_problem(name: object) -> str | None:
    """Return what is wrong with the name of a node, or None."""
    if not isinstance(name, str) or not NODE_NAME.fullmatch(name) or not name.isprintable():
        return f"{str(name)[:60]!r} is not the name of a node; use up to 200 characters without spaces, commas and ="
    return None


def find_labels_problem(value: object) -> str | None:
    """Return what is wrong with the labels of a node, or None."""
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of label: value"
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str) or not LABEL.fullmatch(f"{key}={text}"):
            return f"{key!r}: {text!r} is not a label; key and value are letters, digits, - . _ (/ in the key)"
    return None


def _entry_problem(entry: object) -> str | None:
    if not isinstance(entry, str) or not entry.strip() or entry != entry.strip() or "\0" in entry or len(entry) > 500:
        return f"{entry!r} names no node; {RULE}"
    if "=" in entry:
        try:
            parse_labels(entry)
        except ValueError as error:
            return str(error)
    elif "," in entry:
        return f"{entry!r} joins names of nodes; write one entry for each name"
    return None
