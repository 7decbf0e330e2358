"""The broker's own directory: whose it is, who may enter, which broker holds it, and the token to get in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes that fit into sockaddr_un
REPLY_SOCKET = re.compile("r-[0-9a-f]{8}")  # the name of a client's socket that takes the results of lone calls
LONGEST_NAME = "broker.sock"  # as long as the sockets of a hundred million workers


class RuntimeDirectoryError(Exception):
    """The runtime directory cannot be used."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The broker that held the directory before, as it described itself."""

    instance: str
    pid: int
    machine_boot: str


class RuntimeDirectory:
    """Held by one broker at a time, through a lock that the kernel releases however the broker ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.instance = secrets.token_hex(16)
        self.token = secrets.token_urlsafe(32)
        self.socket = path / "broker.sock"
        self.predecessor: Predecessor | None = None
        self._lock = -1

    def open(self) -> None:
        """Create or check the directory and take it. Raises RuntimeDirectoryError with the way out."""
        self._check_length()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        self._take_lock()
        try:
            self.predecessor = self._read_predecessor()
            self.socket.unlink(missing_ok=True)  # a dead broker's
            self._clear_reply_sockets()  # of its clients, who have to come back anyway
            self._write("instance", json.dumps({"instance": self.instance, "pid": os.getpid(), "boot": machine_boot()}))
            self._write("token", self.token)
        except OSError as error:
            self.close()
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> RuntimeDirectoryError:
        return RuntimeDirectoryError(f"{self.path} cannot be used as the runtime directory: {error}")

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 64, 0).decode(errors="replace").strip()
            os.close(self._lock)
            self._lock = -1
            raise RuntimeDirectoryError(
                f"a broker (pid {holder or 'unknown'}) already runs on {self.path}; stop it first, "
                "or give this one another SNAKEPIT['RUNTIME_DIR']"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _check_length(self) -> None:
        length = len(os.fsencode(self.path / LONGEST_NAME))
        if length > MAX_SOCKET_PATH:
            raise RuntimeDirectoryError(
                f"the runtime directory's path is too long: sockets in {self.path} would have {length} bytes, "
                f"{MAX_SOCKET_PATH} are possible; set SNAKEPIT['RUNTIME_DIR'] to a shorter one"
            )

    def _check_owner(self) -> None:
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode):
            raise RuntimeDirectoryError(f"{self.path} is not a directory (a link is not followed); remove it")
        if found.st_uid != os.geteuid():
            raise RuntimeDirectoryError(
                f"{self.path} belongs to user {found.st_uid}, not to {os.geteuid()}; give it away or choose another"
            )
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise RuntimeDirectoryError(
                f"{self.path} is open to other users (mode {mode:04o}): they could reach the workers; chmod 700 it"
            )

    def _read_predecessor(self) -> Predecessor | None:
        try:
            told = json.loads((self.path / "instance").read_text())
            return Predecessor(str(told["instance"]), int(told["pid"]), str(told["boot"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, name: str, text: str) -> None:
        # A new file each time: one that lay here before might be open elsewhere, or be a link.
        target = self.path / name
        fresh = self.path / f".{name}.new"
        fresh.unlink(missing_ok=True)  # of a broker that was killed right here
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.replace(fresh, target)

    def _clear_reply_sockets(self) -> None:
        for found in self.path.iterdir():
            if REPLY_SOCKET.fullmatch(found.name):
                with contextlib.suppress(OSError):
                    found.unlink()

    def close(self) -> None:
        """Leave nothing but an empty directory behind. Safe to call twice."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            self._clear_reply_sockets()
        for name in ("broker.sock", "token", "instance", ".token.new", ".instance.new", "lock"):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()
        os.close(self._lock)
        self._lock = -1


def machine_boot() -> str:
    """Identifies this boot of the machine: process ids of another one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
