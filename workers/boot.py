"""The document that tells a worker what to be: one JSON object on an inherited descriptor, read to its end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 1
PROFILES = ("process", "thread")


class BootInvalid(Exception):
    """The boot document is not one that this worker understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    worker: str
    pool: str
    adapter: str  # dotted path of the class
    parent: int  # pid of the broker
    listen_fd: int  # a Unix socket that the broker listens on
    blackbox_fd: int
    profile: str = "process"
    threads: int = 1
    instance: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    blas_threads: int = 0
    max_payload: int = 1 << 20
    protocol: int = PROTOCOL

    def __post_init__(self) -> None:
        if self.protocol != PROTOCOL:
            raise BootInvalid(
                f"protocol: the broker speaks {self.protocol!r} and this worker {PROTOCOL}; "
                "install the same release of django-snakepit in the pool's interpreter"
            )
        for name in ("worker", "pool", "adapter", "profile", "instance"):
            if not isinstance(getattr(self, name), str):
                raise BootInvalid(f"{name}: {getattr(self, name)!r} is not a string")
        for name in ("parent", "listen_fd", "blackbox_fd", "threads", "blas_threads", "max_payload"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise BootInvalid(f"{name}: {value!r} is not a number from 0")
        if self.profile not in PROFILES:
            raise BootInvalid(f"profile: {self.profile!r} is not one of {', '.join(PROFILES)}")
        if self.profile == "thread" and self.threads < 1:
            raise BootInvalid("threads: the thread profile needs at least 1")
        if not isinstance(self.args, Mapping):
            raise BootInvalid("args: must be an object")

    @property
    def slots(self) -> int:
        """Threads that run commands; 0: the main thread does."""
        return self.threads if self.profile == "thread" else 0


def parse(text: bytes) -> Boot:
    """
    >>> parse(b'{"worker": "a-1"}')
    Traceback (most recent call last):
        ...
    workers.boot.BootInvalid: the boot document lacks adapter, blackbox_fd, listen_fd, parent, pool
    """
    try:
        document = json.loads(text)
    except ValueError as why:
        raise BootInvalid(f"the boot document is not JSON: {why}") from None
    if not isinstance(document, dict):
        raise BootInvalid("the boot document must be an object")
    unknown = sorted(document.keys() - Boot.__dataclass_fields__.keys())
    if unknown:
        raise BootInvalid(f"the boot document has unknown fields: {', '.join(unknown)}")
    needed = {"worker", "pool", "adapter", "parent", "listen_fd", "blackbox_fd"}
    missing = sorted(needed - document.keys())
    if missing:
        raise BootInvalid(f"the boot document lacks {', '.join(missing)}")
    return Boot(**document)


def read(descriptor: int) -> Boot:
    try:
        with os.fdopen(descriptor, "rb") as source:
            return parse(source.read())
    except OSError as why:
        raise BootInvalid(f"the boot document cannot be read from descriptor {descriptor}: {why}") from None
