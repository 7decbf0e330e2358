"""The parameters of a Content-Type, checked before Django reads them.

Django decodes with any codec that Python has. One that is not for text raises outside of Django's error handlers: a
request without a key then costs a traceback in the log, and its answer is not in the format of the API.

>>> find_problem("application/json; charset=utf-8"), find_problem("text/plain; charset=nonsense")
('', '')
>>> find_problem("application/json; charset=zlib")
"Content-Type: 'zlib' is not an encoding of text; use charset=utf-8"
"""

from __future__ import annotations

import codecs

from django.utils.http import parse_header_parameters

PROBE = b"a\xff"  # an encoding of text reads it, with replacements


def find_problem(content_type: str) -> str:
    """What Django cannot use; empty: nothing. It ignores a charset that Python does not have."""
    if ";" not in content_type:
        return ""
    try:
        charset = str(parse_header_parameters(content_type)[1].get("charset", "utf-8"))
    except ValueError:
        return "Content-Type: a parameter has an encoding that is not known"
    try:
        codecs.lookup(charset)
    except LookupError:
        return ""
    except ValueError:  # a null character
        return "Content-Type: the charset is not a name"
    try:
        PROBE.decode(charset, "replace")
    except (LookupError, ValueError):
        return f"Content-Type: {charset[:50]!r} is not an encoding of text; use charset=utf-8"
    return ""
