"""The sandbox of a pool: what the kernel keeps from its workers, beside the rights of their user.

>>> find_problem({"network": "none", "paths": ["/srv/models", "/srv/results:rw"]})
>>> find_problem({"paths": ["models"]})
"paths: 'models' is not an absolute path"
>>> describe({"network": "none"})
'no network'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

KEYS = ("network", "paths")
NETWORKS = ("host", "none")
WRITABLE = ":rw"  # the end of a path in which workers may also write
MOST = 100  # paths of a pool
LONGEST = 4096  # bytes of a path, as in Linux
SHOWN = 200  # characters of a wrong value in an error


def closes_network(sandbox: Mapping[str, Any]) -> bool:
    return bool(sandbox.get("network") == "none")


def paths_of(sandbox: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The paths that its workers may reach besides what Python needs; None: files have no limit."""
    paths = sandbox.get("paths")
    return None if paths is None else tuple(paths)


def plain(sandbox: Mapping[str, Any]) -> dict[str, Any]:
    """The value for JSON, and for a comparison with a row."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in sandbox.items()}


def describe(sandbox: Mapping[str, Any]) -> str:
    """The limits in words; empty: there is none."""
    paths = paths_of(sandbox)
    network = "no network" if closes_network(sandbox) else ""
    files = "" if paths is None else f"files: {', '.join(paths) or 'only what Python needs'}"
    return "; ".join(filter(None, (network, files)))


def find_problem(value: Any) -> str | None:
    """What is wrong with the `sandbox` of a definition; the message names the key."""
    if not isinstance(value, Mapping):
        return 'must be an object such as {"network": "none", "paths": ["/srv/models", "/srv/results:rw"]}'
    for name in value:
        if name not in KEYS:
            return f"{_quoted(name)} is not one of {', '.join(KEYS)}"
    if value.get("network", "host") not in NETWORKS:
        return f"network: {_quoted(value['network'])} is not one of {', '.join(NETWORKS)}"
    return _wrong_paths(value["paths"]) if "paths" in value else None


def _wrong_paths(paths: Any) -> str | None:
    if not isinstance(paths, list | tuple):
        return "paths: must be a list of absolute paths; leave it out for no limit"
    if len(paths) > MOST:
        return f"paths: {len(paths)} are more than {MOST}"
    for path in paths:
        if not isinstance(path, str) or "\0" in path or not PurePosixPath(path).is_absolute():
            return f"paths: {_quoted(path)} is not an absolute path"
        if len(path.encode("utf-8", "replace")) > LONGEST:
            return f"paths: {_quoted(path)} has more than {LONGEST} bytes"
        if ".." in PurePosixPath(path).parts:
            return f"paths: {_quoted(path)} has '..' in it; write the path without it"
    return None


def _quoted(value: Any) -> str:
    """The value for an error, which also logs and events have."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
