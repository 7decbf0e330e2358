"""The broker's own directory: its lock, its socket, its access token, and the identity of the broker that holds it.

lock        held with flock as long as the broker lives
instance    which broker this is: its instance token, pid, start time, and the boot of the machine
token       what a client must present
broker.sock where clients connect; workers' sockets are in w/, clients' reply sockets are l-XXXXXXXX
buffers.sock where clients pass the descriptors of large arguments
"""

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

from snakepit.pools.host import machine_boot

MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes that fit into sockaddr_un
REPLY_SOCKET = re.compile("r-[0-9a-f]{8}")  # the name of a client's reply socket
INSTANCE_TOKEN = re.compile("[0-9a-f]{32}")
LONGEST_INSTANCE = 4096  # characters
LONGEST_NAME = "broker.sock"  # as long as the worker sockets of the first hundred million workers


class RuntimeDirectoryError(Exception):
    """The runtime directory cannot be used."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The broker that wrote the directory's instance file.

    The file may be a copy (a restored backup, a copied volume), so its broker may still run elsewhere. Boot, pid
    namespace, pid and start time together identify one process, so whether it still runs can be checked.
    """

    instance: str
    pid: int
    started: int
    machine_boot: str
    pids: str  # the namespace in which its pid has a meaning: that of a container is another one

    @property
    def is_gone(self) -> bool:
        """Whether this was a broker of this boot and pid namespace that has ended."""
        known = bool(self.machine_boot and self.pids) and self.started > 0
        here = known and (self.machine_boot, self.pids) == (machine_boot(), pid_namespace())
        return here and start_time(self.pid) != self.started


class RuntimeDirectory:
    """A directory that one broker at a time holds, by a lock that the kernel releases however the broker ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.instance = secrets.token_hex(16)
        self.token = secrets.token_urlsafe(32)
        self.socket = path / "broker.sock"
        self.buffers = path / "buffers.sock"  # where clients pass descriptors
        self.predecessor: Predecessor | None = None
        self._lock = -1

    def open(self) -> None:
        """Create or check the directory and lock it. Raises RuntimeDirectoryError, which says what to do."""
        self._check_length()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._take_lock()
            self.predecessor = self._read_predecessor()
            for left in (self.socket, self.buffers):  # by a killed broker
                left.unlink(missing_ok=True)
            self._clear_reply_sockets()  # its clients have to connect again anyway
            self._write("instance", json.dumps(self._identity()))
            self._write("token", self.token)
        except OSError as error:
            self.close()
            raise self._unusable(error) from error

    def _identity(self) -> dict[str, object]:
        pid = os.getpid()
        place = {"boot": machine_boot(), "pids": pid_namespace()}
        return {"instance": self.instance, "pid": pid, "started": start_time(pid), **place}

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
                f"the runtime directory's path is too long: a socket in {self.path} would have a path of {length} "
                f"bytes, and {MAX_SOCKET_PATH} is the maximum; set SNAKEPIT['RUNTIME_DIR'] to a shorter path"
            )

    def _check_owner(self) -> None:
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode):
            raise RuntimeDirectoryError(f"{self.path} is not a directory (links are not followed); remove it")
        if found.st_uid != os.geteuid():
            raise RuntimeDirectoryError(
                f"{self.path} belongs to user {found.st_uid}, not to {os.geteuid()}; "
                "change its owner, or set SNAKEPIT['RUNTIME_DIR'] to another directory"
            )
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise RuntimeDirectoryError(
                f"{self.path} is open to other users (mode {mode:04o}), who could reach the workers; chmod it to 700"
            )

    def _read_predecessor(self) -> Predecessor | None:
        """None: there was none, or its file is not one that a broker writes. Nothing is ended by such a file."""
        try:
            with open(os.open(self.path / "instance", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
                facts = json.loads(file.read(LONGEST_INSTANCE))  # a pipe in its place would never end
            place = str(facts["boot"]), str(facts["pids"])
            found = Predecessor(facts["instance"], int(facts["pid"]), int(facts["started"]), *place)
            return found if INSTANCE_TOKEN.fullmatch(found.instance) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return None

    def _write(self, name: str, text: str) -> None:
        # Always a new file: an existing one might be open in another process, or be a link.
        target = self.path / name
        fresh = self.path / f".{name}.new"
        fresh.unlink(missing_ok=True)  # left by a broker that was killed at this point
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.replace(fresh, target)

    def _clear_reply_sockets(self) -> None:
        for found in self.path.iterdir():
            if REPLY_SOCKET.fullmatch(found.name):
                with contextlib.suppress(OSError):
                    found.unlink()

    def keep(self) -> bool:
        """Write files again that something has removed. Return whether programs reach the broker here.

        A program that cleans /tmp removes files that nothing has used for days, and leaves sockets.
        """
        try:
            if not self.socket.is_socket():
                return False
            if not (self.path / "lock").exists():
                self._lock_again()
            if not (self.path / "instance").exists():
                self._write("instance", json.dumps(self._identity()))
            if not (self.path / "token").exists():
                self._write("token", self.token)
            return self._has_lock()
        except RuntimeDirectoryError:  # another broker was quicker
            return False
        except OSError:  # a full disk: the next call may succeed
            return True

    def _lock_again(self) -> None:
        fresh = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.close(self._lock)
        self._lock = fresh
        self._take_lock()

    def _has_lock(self) -> bool:
        """Whether the lock that this broker holds is the one in its directory."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.stat(self.path / "lock"), os.fstat(self._lock))
        return False

    def close(self) -> None:
        """Remove the broker's files and release the lock. Safe to call twice."""
        if self._lock < 0:
            return
        if self._has_lock():  # else they are those of another broker by now
            self._remove_files()
        os.close(self._lock)
        self._lock = -1

    def _remove_files(self) -> None:
        with contextlib.suppress(OSError):
            self._clear_reply_sockets()
        for name in ("broker.sock", "buffers.sock", "token", "instance", ".token.new", ".instance.new", "lock"):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()


def pid_namespace() -> str:
    """The name of this process's pid namespace; empty where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if it does not run. A pid and this identify a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
