"""The header of a .npy file, read and written without NumPy."""

from __future__ import annotations

import io
from typing import Any

import pytest

from snakepit.pools.api.npy import HEAD, MAGIC, NotNpy, header_of, read_header

np = pytest.importorskip("numpy")
NINES = "9" * 2500  # Python writes no number of more than 4300 digits, so the product of two has no text
ARRAYS = [
    np.arange(6, dtype="<f8").reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    np.array(3.5),
    np.zeros((0, 4), "u1"),
    np.array(["a", "bcd"]),
    np.array(["2026-01-02"], "M8[D]"),
    np.zeros(3, [("x", "<f4"), ("y", "<i2", (2, 2)), ("z", [("a", "|b1")])]),
    np.zeros(2, [("größe", "<f4")]),
]


def file_of(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    return sink.getvalue()


def written(text: str, items: int = 8, version: int = 1) -> bytes:
    width = 2 if version == 1 else 4
    return MAGIC + bytes((version, 0)) + len(text).to_bytes(width, "little") + text.encode() + bytes(items)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_a_file_of_numpy_is_read_and_written_as_numpy_does(array: Any) -> None:
    file = file_of(array)
    header = read_header(file[:HEAD], len(file))
    assert header.shape == list(array.shape)
    assert header.fortran is (array.flags.fnc)
    assert len(file) - header.size == array.nbytes
    made = header_of(header.dtype, header.shape)
    assert len(made) % 64 == 0
    back = np.load(io.BytesIO(made + array.tobytes()))
    assert back.dtype == array.dtype
    assert (back == array).all()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "does not begin as a .npy file"),
        (b"PK\x03\x04" * 9, "does not begin as a .npy file"),
        (MAGIC + b"\x09\0" + bytes(20), "version 9"),
        (written("x" * 65_000), "its header has 65000 bytes"),
        (MAGIC + b"\x01\0\xff\x20" + b"{ " * 9, "its header has 8447 bytes"),
        (written("{'descr': "), "cannot be read"),
        (written("__import__('os').getcwd()"), "cannot be read"),
        (written("[" * 5000), "cannot be read"),
        (written("['descr']"), "must have descr, fortran_order and shape"),
        (written("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "holds Python objects"),
        (written("{'descr': '<U0', 'fortran_order': False, 'shape': (1,)}"), "have no bytes"),
        (written("{'descr': '<f8', 'fortran_order': 1, 'shape': (1,)}"), "True or False"),
        (written("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "tuple of sizes"),
        (written("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}"), "tuple of sizes"),
        (written("{'descr': '<f8', 'fortran_order': False, 'shape': [1]}"), "tuple of sizes"),
        (written("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"), "the array has 8 bytes"),
        (written("{'descr': '<f8', 'fortran_order': False, 'shape': (10**30,)}"), "cannot be read"),
        (written(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({NINES}, {NINES})}}"), "a size in its shape"),
        (written(f"{{'descr': '<f8', 'fortran_order': False, 'shape': (0, {NINES})}}", 0), "a size in its shape"),
        (written(f"{{'descr': '<f8', 'fortran_order': False, 'shape': (0, {2**63})}}", 0), "a size in its shape"),
        (
            written(f"{{'descr': [('a', '<f8', ({NINES}, {NINES}))], 'fortran_order': False, 'shape': (1,)}}"),
            "the shape of a field",
        ),
        (written("{'descr': [('', '|V4')], 'fortran_order': False, 'shape': (2,)}"), "packed array"),
        (written("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}"), "holds Python objects"),
        (written("{'descr': [], 'fortran_order': False, 'shape': (1,)}"), "list of fields"),
    ],
)
def test_other_bytes_are_refused_with_the_reason(file: bytes, words: str) -> None:
    with pytest.raises(NotNpy, match=words):
        read_header(file[:HEAD], len(file))


def test_an_array_of_objects_that_numpy_saved_is_refused() -> None:
    file = file_of(np.array([None, 1], dtype=object))
    with pytest.raises(NotNpy, match="Python objects"):
        read_header(file[:HEAD], len(file))


@pytest.mark.parametrize("cut", [1, 8, 47])
def test_a_cut_file_is_refused(cut: int) -> None:
    file = file_of(ARRAYS[0])[:-cut]
    with pytest.raises(NotNpy, match="and its shape"):
        read_header(file[:HEAD], len(file))
