"""Long texts are JSON, the same as the standard library's."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from snakepit.workers.schema import json_encode

slowly = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
ALPHABETS = ("abc ", 'a"\\\n\r\tb', "a\x7fb/", "aé", "a\0b", "a\x1fb", "a\ud800b")
LONG = json_encode.LONG


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("size", [LONG - 1, LONG, LONG + 1])
def test_texts_are_spelled_as_by_the_standard_library(alphabet: str, size: int) -> None:
    rng = random.Random(size)
    text = "".join(rng.choice(alphabet) for _ in range(size))
    values: list[Any] = [
        text,
        {"one": 1, "text": text, "list": [text], "none": None},
        {3: text},
        [text],
        {"k": {"v": text}},
    ]
    for value in values:
        assert json_encode.encode(value, slowly) == slowly(value)


def test_a_long_text_of_plain_characters_is_not_left_to_the_slow_way() -> None:
    def forbidden(value: Any) -> str:
        assert value == "name", "only names go the slow way here"
        return slowly(value)

    text = 'a "quoted"\nline\\' * LONG
    assert json.loads(json_encode.encode(text, forbidden)) == text
    assert json.loads(json_encode.encode({"name": text}, forbidden)) == {"name": text}


def test_what_contains_itself_is_refused_as_ever() -> None:
    value: dict[str, Any] = {"text": "x" * LONG}
    value["self"] = value
    with pytest.raises(ValueError, match="Circular"):
        json_encode.encode(value, slowly)


class Text(str):
    """A kind of text of the user's own."""


def test_kinds_of_text_of_ones_own_are_left_to_the_slow_way() -> None:
    assert json_encode.encode(Text("x" * LONG), lambda value: "slow") == "slow"
