"""The containers' own question about their health: no curl in the image, no libraries here.

healthcheck.py URL                     the address answers with 200
healthcheck.py --newer FILE SECONDS    the file was written not longer ago than that
"""

import os
import sys
import time
import urllib.request


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--newer", path, seconds]:
            return 0 if time.time() - os.stat(path).st_mtime <= float(seconds) else 1
        case [url]:
            with urllib.request.urlopen(url, timeout=4) as answer:
                return 0 if answer.status == 200 else 1
        case _:
            sys.stderr.write(__doc__ or "")
            return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"unhealthy: {error}")
