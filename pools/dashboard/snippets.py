"""Snippets to copy: an operation as curl or as a shell command. curl is shown only where the project has the API."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

KEY = '-H "Authorization: Bearer $SNAKEPIT_KEY"'


def api_url(request: HttpRequest, name: str, *args: Any) -> str:
    """The URL of an operation of the API; "" where the project does not have the API."""
    try:
        return request.build_absolute_uri(reverse(f"snakepit-api:{name}", args=args))
    except NoReverseMatch:
        return ""


def curl(url: str, body: Any = None, *, post: bool = False) -> str:
    r"""
    >>> curl("http://h/api/jobs")
    'curl -H "Authorization: Bearer $SNAKEPIT_KEY" http://h/api/jobs'
    >>> curl("http://h/x", {"text": "it's"}).partition(" -d ")[2]
    '\'{"text": "it\'"\'"\'s"}\''
    """
    parts = ["curl", *(["-X POST"] if post and body is None else []), KEY, shlex.quote(url)]
    if body is not None:
        parts += ["-H 'Content-Type: application/json'", "-d", shlex.quote(json.dumps(body, ensure_ascii=False))]
    return " ".join(parts)


def rest(request: HttpRequest, method: str, path: str, body: Any = None) -> list[dict[str, str]]:
    """The curl line of an operation, as a list: empty where the project does not have the API."""
    root = api_url(request, "api-root")
    return [line("curl", curl(root + quote(path, safe="/?=&"), body, post=method == "POST"))] if root else []


def shell(command: str, *arguments: Any) -> dict[str, str]:
    """
    >>> shell("snakepit recycle", "digits")
    {'label': 'shell', 'text': 'snakepit recycle digits'}
    """
    return line("shell", " ".join([command, *(shlex.quote(str(argument)) for argument in arguments)]))


def order(command: str, *arguments: Any) -> dict[str, str]:
    """As `shell`, for a command that changes something: pages show it apart.

    >>> order("snakepit recycle", "digits")["changes"]
    'yes'
    """
    return {**shell(command, *arguments), "changes": "yes"}


def line(label: str, text: str) -> dict[str, str]:
    return {"label": label, "text": text}
