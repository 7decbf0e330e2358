"""The digits adapter as a plain Python object: no worker, no broker."""

from __future__ import annotations

import json

import pytest

from snakepit.examples.digits import TRAINED_ON, Digits, reference_model, scans


@pytest.fixture(scope="module")
def digits() -> Digits:
    Digits.preload()
    return Digits()


def test_all_1797_answers_are_those_of_the_model(digits: Digits) -> None:
    rows, _ = scans()
    assert len(rows) == 1797
    assert digits.classify_many(rows.tolist()) == reference_model().predict(rows).tolist()


def test_scans_of_single_calls_are_read_like_the_scans_of_one_call(digits: Digits) -> None:
    rows = scans()[0][::40].tolist()
    assert digits.classify(rows) == digits.classify_many(rows)


def test_the_model_reads_scans_that_it_was_not_fitted_on(digits: Digits) -> None:
    rows, labels = scans()
    answers = digits.classify_many(rows[TRAINED_ON:].tolist())
    right = sum(answer == label for answer, label in zip(answers, labels[TRAINED_ON:], strict=True))
    assert right / len(answers) > 0.95
    assert digits.info()["accuracy"] == round(right / len(answers), 4)


def test_a_sample_is_what_classify_takes(digits: Digits) -> None:
    sample = json.loads(json.dumps(digits.sample(0)))
    assert digits.classify([sample["pixels"]]) == [sample["label"]] == [0]


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        ([], "scan 0 has 0 values"),
        ([0.0] * 63, "scan 0 has 63 values; a scan has 64"),
        ([0.0] * 65, "scan 0 has 65 values"),
        ([0.0] * 63 + [16.5], "between 0 and 16"),
        ([0.0] * 63 + [-1.0], "between 0 and 16"),
        ([0.0] * 63 + [float("nan")], "between 0 and 16"),
    ],
)
def test_what_is_no_scan_is_refused_with_the_reason(digits: Digits, pixels: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        digits.classify([pixels])


def test_an_empty_batch_has_an_empty_answer(digits: Digits) -> None:
    assert digits.classify_many([]) == []


def test_a_batch_beyond_the_limit_is_refused(digits: Digits) -> None:
    with pytest.raises(ValueError, match="2001 scans are too many"):
        digits.classify_many([[0.0] * 64] * 2001)


@pytest.mark.parametrize("index", [-1, 1797])
def test_a_sample_that_does_not_exist_is_refused(digits: Digits, index: int) -> None:
    with pytest.raises(ValueError, match="outside 0 to 1796"):
        digits.sample(index)
