"""The parameters of a Content-Type, checked before Django reads them.

Django decodes with any codec that Python has. One that is not for text raises outside of Django's error handlers: a
request without a key then costs a traceback in the log, and its answer is not in the format of the API. And Python
keeps each name of a codec that was looked up, also of one that it does not have, for as long as the process lives. So a
name is looked up only if it is one of those that Python has.

>>> find_problem("application/json; charset=utf-8"), find_problem("text/plain; charset=Shift_JIS")
('', '')
>>> find_problem("application/json; charset=zlib")
"Content-Type: 'zlib' is not an encoding of text; use charset=utf-8"
>>> find_problem("application/json; charset=nonsense")
"Content-Type: 'nonsense' is not a known encoding; use charset=utf-8"
"""

from __future__ import annotations

import encodings
import pkgutil
from encodings.aliases import aliases

from django.utils.http import parse_header_parameters

PROBE = b"a\xff"  # an encoding of text reads it, with replacements
KNOWN = frozenset((*aliases, *aliases.values(), *(one.name for one in pkgutil.iter_modules(encodings.__path__))))


def find_problem(content_type: str) -> str:
    """What Django cannot use; empty: nothing."""
    if ";" not in content_type:
        return ""
    if "*=" in content_type:
        return "Content-Type: a parameter has an encoding of its own; write it as name=value"
    try:
        charset = str(parse_header_parameters(content_type)[1].get("charset", ""))
    except ValueError:
        return "Content-Type: its parameters cannot be read"
    if not charset:
        return ""
    if charset.lower().replace("-", "_") not in KNOWN:
        return f"Content-Type: {charset[:50]!r} is not a known encoding; use charset=utf-8"
    try:
        PROBE.decode(charset, "replace")
    except (LookupError, ValueError):
        return f"Content-Type: {charset[:50]!r} is not an encoding of text; use charset=utf-8"
    return ""
