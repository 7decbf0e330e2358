"""Ends what a run of the tests leaves behind, however the run ends: also by SIGKILL or a segmentation fault.

    pytest ─ starts ─▶ guardian: waits for the end of pytest ─▶ SIGKILL to all processes of the run, removes its files

Servers, browsers and demos would outlive a pytest that is killed. Each run has a token in its environment, which every
program that it starts inherits; the guardian looks for it in /proc. Servers also work in the run's directory.

Runs as a plain script on the standard library: `python -I guardian.py PID TOKEN DIRECTORY`.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

VARIABLE, DIRECTORY = "TEST_RUN", "TEST_RUN_DIRECTORY"
ROUNDS = 100  # a process may fork while the guardian looks for it, and a killed one stays for a moment
PAUSE = 0.05  # seconds between two rounds
PATIENCE = 300.0  # a bound for a machine under load, never a wait


class Guardian:
    """The guardian of this process, from the side of pytest."""

    def __init__(self) -> None:
        token = secrets.token_hex(16)
        directory = tempfile.mkdtemp(prefix="sp-", dir="/tmp")
        os.chmod(directory, 0o711)  # PostgreSQL runs as another user
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-I", os.path.abspath(__file__), str(os.getpid()), token, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C and a signal to the group of pytest are not for it
        )
        os.environ |= {VARIABLE: token, DIRECTORY: directory}

    def close(self) -> None:
        """End what is left now, and the guardian."""
        del os.environ[VARIABLE], os.environ[DIRECTORY]
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE)


def start() -> Guardian | None:
    """Start a guardian; None where the system has no pidfd and no /proc."""
    return Guardian() if sys.platform == "linux" else None


def directory() -> str:
    """Where servers put their files: it goes with the run. A short path, because a socket's has 107 bytes at most."""
    return os.environ.get(DIRECTORY, "/tmp")


def members(token: str, directory: str) -> list[int]:
    """The processes of a run."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_member(int(name), token, directory)]


def is_member(pid: int, token: str, directory: str) -> bool:
    """Whether a process has the token, or works in the run's directory: a Redis overwrites its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            if f"{VARIABLE}={token}".encode() in environ.read().split(b"\0"):
                return True
        return os.readlink(f"/proc/{pid}/cwd").startswith(f"{directory}/")
    except OSError:  # it ended meanwhile, or is another user's
        return False


def end_all(token: str, directory: str) -> None:
    """Kill all processes of a run, until none is found."""
    for _ in range(ROUNDS):
        found = members(token, directory)
        for pid in found:
            _kill(pid, token, directory)
        if not found:
            break
        time.sleep(PAUSE)


def _kill(pid: int, token: str, directory: str) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Looked at again: since the first time the number may have passed to another process.
        if is_member(pid, token, directory):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(pidfd)


def main() -> None:
    pytest, token, files = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    try:
        pidfd = os.pidfd_open(pytest)
    except ProcessLookupError:
        pidfd = -1
    if pidfd >= 0 and os.getppid() == pytest:
        # Standard input closes in an orderly end. A forked child of pytest may hold its other end, hence the pidfd.
        select.select([pidfd, sys.stdin], [], [])
    end_all(token, files)
    shutil.rmtree(files, ignore_errors=True)


if __name__ == "__main__":
    main()
