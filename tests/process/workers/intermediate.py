"""An intermediate process: it starts a worker for a test, with itself as the parent in the boot document."""

import json
import os
import subprocess
import sys


def main() -> None:
    boot = int(sys.argv[sys.argv.index("--boot") + 1])
    with os.fdopen(boot, "rb") as source:
        document = json.loads(source.read())
    document["parent"] = os.getpid()
    reader, writer = os.pipe()
    subprocess.Popen(
        [sys.executable, "-m", "snakepit.workers", "--boot", str(reader)],
        pass_fds=(reader, document["listen_fd"], document["shared_page_fd"]),
    )
    with os.fdopen(writer, "wb") as target:
        target.write(json.dumps(document).encode())
    os.wait()


if __name__ == "__main__":
    main()
