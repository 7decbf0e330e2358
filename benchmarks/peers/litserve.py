"""LitServe with batches, where it is installed: in this environment, or in that of the interpreter LITSERVE_PYTHON."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.batching import MODEL_SECONDS

PATH = "/predict"
START_SECONDS = 120.0
# The same model, and the same bounds of a batch as in our pool.
PROGRAM = f"""
import sys, time
import litserve

class Model(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["value"]

    def batch(self, inputs):
        return inputs

    def predict(self, values):
        time.sleep({MODEL_SECONDS})
        return [value * 2 for value in values]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {{"output": output}}

if __name__ == "__main__":
    server = litserve.LitServer(Model(max_batch_size=64, batch_timeout=0.005), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
"""


def interpreter() -> str:
    """An interpreter that has LitServe; empty: there is none."""
    return os.environ.get("LITSERVE_PYTHON", "") or (sys.executable if find_spec("litserve") else "")


@contextmanager
def running() -> Iterator[int]:
    """The port of a server with one worker."""
    with TemporaryDirectory() as folder, socket.socket() as free:
        program = Path(folder) / "server.py"  # its workers import it again
        program.write_text(PROGRAM)
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        free.close()
        words = [interpreter(), str(program), str(port)]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(words, cwd=folder, stdout=quiet, stderr=quiet, start_new_session=True) as server:
            try:
                await_port(server, port)
                yield port
            finally:
                os.killpg(server.pid, signal.SIGKILL)  # its workers too


def await_port(server: subprocess.Popen[bytes], port: int) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if server.poll() is not None:
            raise RuntimeError(f"LitServe ended with {server.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"LitServe did not listen within {START_SECONDS:g} s")
