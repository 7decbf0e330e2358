"""Which environment variables a pool's definition may set for its workers: an allow-list.

Many variables decide which code a process runs: the loader's, OpenSSL's, CUDA's, those of each language. No list of
them is complete, so each variable must be allowed by name. The names of SAFE are allowed everywhere. They set numbers,
switches and names, select no code, and take no path as their value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

SAFE = (
    # Threads and determinism of numeric libraries.
    "OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS", "OMP_PLACES", "OMP_PROC_BIND", "OMP_SCHEDULE",
    "OMP_STACKSIZE", "OMP_THREAD_LIMIT", "OMP_WAIT_POLICY", "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_DUPLICATE_LIB_OK",
    "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "GOTO_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS", "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS",
    "TF_DETERMINISTIC_OPS", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH",
    "CUBLAS_WORKSPACE_CONFIG",
    # Models: offline operation and output.
    "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY",
    # Which GPUs.
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    # Language, time zone, memory, and the interpreter.
    "LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME", "TZ",
    "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_",
    "PYTHONHASHSEED", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONUTF8", "PYTHON_GIL", "NO_COLOR",
)  # fmt: skip
_SAFE = frozenset(SAFE)
PLAIN = re.compile(r"[A-Za-z0-9_.,:;=+@{}()\[\]<>*&| -]*")
ZONE = re.compile(r"[A-Za-z0-9_+<>,.:-]+(/[A-Za-z0-9_+-]+){0,3}")


def find_refused(
    env: Mapping[str, str], allowed: Iterable[str] = (), of_settings: Mapping[str, str] | None = None
) -> str:
    """Return why a variable is refused; empty if all are allowed.

    `allowed` has names, and prefixes with a `*` at the end. `of_settings` is what the settings themselves set for this
    pool: settings are code, and are trusted.

    >>> find_refused({"OMP_NUM_THREADS": "2", "TZ": "Europe/Berlin"})
    ''
    >>> find_refused({"SHOP_URL": "x"}, ["SHOP_*"])
    ''
    >>> find_refused({"OPENSSL_CONF": "/tmp/x"}, of_settings={"OPENSSL_CONF": "/tmp/x"})
    ''
    >>> find_refused({"TZ": ":/etc/shadow"})
    "TZ is ':/etc/shadow', and may not name a file here; to allow it: SNAKEPIT['WORKER_ENV_ALLOWED'] = ['TZ']"
    """
    patterns, trusted = tuple(allowed), of_settings or {}
    for name, value in env.items():
        if trusted.get(name) == value or any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        way = f"to allow it: SNAKEPIT['WORKER_ENV_ALLOWED'] = ['{name}']"
        if name not in _SAFE:
            return f"{name} is not an allowed variable, because a variable can decide which code runs; {way}"
        if not _is_plain(name, value):
            return f"{name} is {value!r}, and may not name a file here; {way}"
    return ""


def _is_plain(name: str, value: str) -> bool:
    """Whether a value names no file. The C library opens the file that TZ or a locale names."""
    if value.startswith((".", ":")):
        return False
    return bool(PLAIN.fullmatch(value) or (name == "TZ" and ZONE.fullmatch(value)))
