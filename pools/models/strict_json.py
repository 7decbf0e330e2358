"""JSON that every database and worker accepts: no NaN, no NUL, no lone surrogate, no key twice, bounded depth.

SQLite stores values that PostgreSQL rejects, and Python's parser accepts NaN. Both errors would surface too late.

>>> loads(b'{"pixels": [1, 2.5]}', max_depth=8)
{'pixels': [1, 2.5]}
>>> loads(b'[[[1]]]', max_depth=2)
Traceback (most recent call last):
    ...
snakepit.pools.models.strict_json.NotStrict: is nested deeper than 2 levels
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from snakepit.pools.broker.json_keys import RepeatedKey, unrepeated
from snakepit.workers.report import utf8

EXACT = frozenset({bool, type(None)})  # types whose every value is JSON
HUGE = 10**4300  # Python reads and writes no whole number of more digits


class NotStrict(ValueError):
    """The text is not JSON, or not accepted by every database."""


def loads(text: bytes, *, max_depth: int) -> Any:
    """Parse UTF-8 JSON. The message of NotStrict is a predicate: "contains ...", to follow a name."""
    try:
        value = json.loads(
            text.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=unrepeated
        )
    except UnicodeDecodeError:
        raise NotStrict("is not UTF-8") from None
    except RecursionError:
        raise NotStrict(f"is nested deeper than {max_depth} levels") from None
    except NotStrict:
        raise
    except RepeatedKey as error:
        raise NotStrict(str(error)) from None
    except json.JSONDecodeError as error:
        raise NotStrict(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise NotStrict("contains a whole number of more than 4300 digits") from None
    # The walk costs more than the parsing, and few bodies can hold what it looks for.
    if text.find(b"\\u") >= 0 or text.count(b"[") + text.count(b"{") > max_depth:
        problem = find_problem(value, max_depth=max_depth)
        if problem:
            raise NotStrict(problem)
    return value


def find_problem(value: Any, *, max_depth: int = 64) -> str | None:
    """Why a database would reject this value, or None. Iterative, because the value may be nested very deeply."""
    rest: list[tuple[Any, int]] = [(value, 0)]
    while rest:
        one, depth = rest.pop()
        # First: an `isinstance` of Mapping takes longer than the rest.
        if type(one) in EXACT or (type(one) is int and -HUGE < one < HUGE):
            continue
        if isinstance(one, str):
            if problem := _wrong_text(one):
                return problem
        elif isinstance(one, dict | list | tuple | Mapping):
            if depth >= max_depth:
                return f"is nested deeper than {max_depth} levels"
            if isinstance(one, dict | Mapping):
                rest += [(key, depth) for key in one]
                rest += [(child, depth + 1) for child in one.values()]
            else:
                rest += [(child, depth + 1) for child in one]
        elif problem := _wrong_number(one):
            return problem
    return None


def _wrong_number(value: Any) -> str:
    """What is wrong with what is neither text nor a container."""
    if isinstance(value, int):
        return "" if -HUGE < value < HUGE else "contains a whole number of more than 4300 digits"
    if not isinstance(value, float):
        return f"contains a {type(value).__name__}, which JSON cannot represent"
    return "" if math.isfinite(value) else f"contains {value}, which JSON cannot represent"


def scrub(value: Any) -> Any:
    """The nearest value that every database accepts; for data from workers, which must not be lost.

    >>> scrub({"memory": float("nan"), "line": "a\\x00b"})
    {'memory': None, 'line': 'a\\ufffdb'}
    """
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, Mapping):
        return {scrub_text(str(key)): scrub(child) for key, child in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [scrub(child) for child in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else scrub_text(str(value))


def scrub_text(text: str, limit: int | None = None) -> str:
    clean = utf8(text.replace("\0", "\ufffd"))
    return clean if limit is None or len(clean) <= limit else clean[: limit - 1] + "…"


def _wrong_text(text: str) -> str | None:
    if "\0" in text:
        return "contains the character NUL"
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "contains half of a surrogate pair"
    return None


def _refuse_constant(word: str) -> NoReturn:
    raise NotStrict(f"contains {word}, which JSON cannot represent")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotStrict(f"contains {text[:40]}, which is outside the range of a float")
    return value
