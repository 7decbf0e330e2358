"""Long texts are JSON, the same as the standard library's."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from snakepit.workers.schema import json_text

slowly = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
ALPHABETS = ("abc ", 'a"\\\n\r\tb', "a\x7fb/", "aé", "a\0b", "a\x1fb", "a\ud800b")
LONG = json_text.LONG


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
        assert json_text.encode(value, slowly) == slowly(value)


def test_a_long_text_of_plain_characters_is_not_left_to_the_slow_way() -> None:
    def forbidden(value: Any) -> str:
        assert value == "name", "only names go the slow way here"
        return slowly(value)

    text = 'a "quoted"\nline\\' * LONG
    assert json.loads(json_text.encode(text, forbidden)) == text
    assert json.loads(json_text.encode({"name": text}, forbidden)) == {"name": text}


def test_what_contains_itself_is_refused_as_ever() -> None:
    value: dict[str, Any] = {"text": "x" * LONG}
    value["self"] = value
    with pytest.raises(ValueError, match="Circular"):
        json_text.encode(value, slowly)


class Text(str):
    """A kind of text of the user's own."""


def test_kinds_of_text_of_ones_own_are_left_to_the_slow_way() -> None:
    assert json_text.encode(Text("x" * LONG), lambda value: "slow") == "slow"


@pytest.mark.parametrize("size", [0, 1, LONG - 1, LONG])
@pytest.mark.parametrize("alphabet", [*ALPHABETS, "\u2028 "])
def test_texts_and_numbers_of_an_object_are_written_as_by_the_standard_library(alphabet: str, size: int) -> None:
    text = "".join(random.Random(size).choice(alphabet) for _ in range(size))
    values = {text: text, "": -1, "b": True, "c": False, "d": None, "e": -0.0, "f": 1e-7, "g": 2**64, "h": 0.1}
    members = json_text.encode_flat(values)
    if members is None:  # long, with a character that its fast search does not escape
        assert size == LONG
    else:
        assert f"{{{members}}}" == slowly(values)


@pytest.mark.parametrize("value", [[], {}, b"", (), Text("x"), float("nan"), float("-inf"), range(2)])
def test_other_values_of_an_object_are_left_to_an_encoder(value: Any) -> None:
    assert json_text.encode_flat({"plain": 1, "other": value}) is None


def test_an_integer_with_too_many_digits_is_left_to_an_encoder() -> None:
    with pytest.raises(ValueError, match="digits"):
        json_text.encode_flat({"large": 10**5000})
