"""A name as one segment of a URL. Each text has a URL, so a stored name can never break the page that links to it.

Django refuses to build a URL for a name with a slash, and one such row would make its whole list fail.

>>> NameConverter().to_url("a/b"), NameConverter().to_python("a%2Fb")
('a%2Fb', 'a/b')
>>> NameConverter().to_url(".."), NameConverter().to_url("")
('%2E%2E', '%')
"""

from __future__ import annotations

from urllib.parse import unquote

EMPTY = "%"  # no encoded text is a percent sign alone


class NameConverter:
    """A URL converter of Django. Django quotes the result again, so the encoded form reaches `to_python`."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return "" if value == EMPTY else unquote(value)

    def to_url(self, value: object) -> str:
        text = str(value).encode("utf-8", "replace").decode()
        if not text.strip("."):  # a browser would resolve `.` and `..`
            return text.replace(".", "%2E") or EMPTY
        return text.replace("%", "%25").replace("/", "%2F")
