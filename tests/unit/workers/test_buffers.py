"""Large parts of values in memory files: what is sent arrives, and what a stranger sends is refused."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from snakepit.pools.broker.errors import ResultUnreadable
from snakepit.pools.client.call_messages import Delivered
from snakepit.workers import buffers, memory_file
from snakepit.workers.buffers import COPIED, LARGEST_INLINE, THRESHOLD, BufferTooLarge, Incoming, Outgoing
from snakepit.workers.call import AssignedCall
from snakepit.workers.context import Context
from snakepit.workers.memory_file import MemoryFile, PlacedFile, are_possible
from snakepit.workers.schema.value import encode
from snakepit.workers.transport.direct_reply import HEAD_BYTES, PARTED, datagram, opened
from snakepit.workers.wire.worker_pb2 import Delivery

pytestmark = pytest.mark.skipif(not are_possible(), reason="this system has no sealed memory files")
np = pytest.importorskip("numpy")
MIB = 2**20


def open_files() -> int:
    names = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum("snakepit buffer" in os.readlink(name) for name in names if os.path.islink(name))


def arrived(value: Any, limit: int = MIB) -> Any:
    """A result as its caller gets it."""
    buffers = Outgoing(64 * MIB)
    text = encode(value, limit, tags=True, buffers=buffers).data
    descriptors = [os.dup(one) for one in buffers.seal()]
    wire = Delivery(json=text, buffers=len(descriptors))
    data = b"".join(datagram(wire, buffers.inline))
    buffers.close()
    return Delivered(*opened(memoryview(data), Incoming(descriptors))).value()


ARRAYS = {
    "in the message": np.arange(10_000, dtype="f8"),
    "in a file": np.arange(100_000, dtype=">i4").reshape(10, 100, 100),
    "times": np.arange(100_000).astype("M8[s]"),
    "records": np.zeros(30_000, dtype=[("a", "i4"), ("b", "f8")]),
    "not contiguous": np.arange(200_000).reshape(400, 500)[::2, ::-1],
    "Fortran": np.asfortranarray(np.arange(200_000).reshape(400, 500)),
    "text": np.array(["ä" * 20] * 5000),
}


@pytest.mark.parametrize("value", ARRAYS.values(), ids=ARRAYS)
def test_an_array_arrives_as_it_was_and_may_be_written_to(value: Any) -> None:
    before = open_files()
    found = arrived(value)
    assert found.dtype == value.dtype
    assert found.shape == value.shape
    assert np.array_equal(found, value)
    found[:1] = found[-1:]
    del found
    assert open_files() == before


def test_many_large_parts_of_one_value_share_a_file() -> None:
    value = [{"image": np.full((300, 300), number, "u1"), "raw": bytes([number]) * 70_000} for number in range(100)]
    found = arrived(value)
    for number, one in enumerate(found):
        assert (one["image"] == number).all()
        assert one["raw"] == bytes([number]) * 70_000
    assert type(found[3]["raw"]) is bytes


@pytest.mark.parametrize("size", [THRESHOLD, LARGEST_INLINE, LARGEST_INLINE + 1, 3 * MIB])
def test_bytes_of_any_size_arrive_as_bytes(size: int) -> None:
    assert arrived(b"\x00\xff" * (size // 2)) == b"\x00\xff" * (size // 2)


def test_a_masked_array_arrives() -> None:
    value = np.ma.array(np.arange(100_000), mask=np.arange(100_000) % 3 == 0)
    found = arrived(value)
    assert (found.mask == value.mask).all()
    assert found.sum() == value.sum()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_table_arrives(library: str) -> None:
    module = pytest.importorskip(library)
    columns = {"a": list(range(60_000)), "b": [f"row {number}" for number in range(60_000)]}
    value = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    found = arrived(value)
    assert type(found) is type(value)
    assert found.equals(value)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_table_with_text_has_nothing_in_the_message(library: str) -> None:
    pytest.importorskip("pyarrow")
    module = pytest.importorskip(library)
    columns = {"a": list(range(60_000)), "b": [f"row {number}" for number in range(60_000)]}
    value = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    buffers = Outgoing(64 * MIB)
    assert len(encode({"table": value}, MIB, tags=True, buffers=buffers).data) < 300
    buffers.close()


def test_a_table_that_arrow_does_not_keep_leaves_no_bytes_of_the_first_try() -> None:
    pandas = pytest.importorskip("pandas")
    value = pandas.DataFrame({"a": np.arange(50_000), "b": [1, "x"] * 25_000})
    buffers = Outgoing(64 * MIB)
    encode(value, 16 * MIB, tags=True, buffers=buffers)
    assert buffers.size <= 2 * value["a"].nbytes
    buffers.close()


def test_what_the_receiver_writes_stays_its_own() -> None:
    buffers = Outgoing(MIB)
    part = buffers.add(b"x" * 200_000)
    descriptor = os.dup(buffers.seal()[0])
    one, two = Incoming([descriptor]), Incoming([os.dup(descriptor)])
    one.view(part)[0] = 0
    assert two.view(part)[0] == ord("x")


def test_the_text_for_a_receiver_without_descriptors_has_the_same_value() -> None:
    buffers = Outgoing(MIB)
    value = {"a": np.arange(10_000), "b": '{"$buffer":[64,0,1]}', "c": b"x" * 100_000}
    text = buffers.inlined(encode(value, MIB, tags=True, buffers=buffers).data)
    found = Delivered(Delivery(json=text)).value()
    assert found["b"] == value["b"]
    assert found["c"] == value["c"]
    assert (found["a"] == value["a"]).all()


def test_parts_beyond_the_pool_limit_are_refused() -> None:
    buffers = Outgoing(150_000)
    with pytest.raises(BufferTooLarge, match="the buffers have 160,000 bytes and the pool's max_buffer is 150,000"):
        encode([np.zeros(10_000), np.zeros(10_000)], MIB, tags=True, buffers=buffers)


# What a stranger sends


def sealed(size: int, seals: int) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


ALL = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
ARRAY = '{"@typed":{"$ndarray":["<f8",[10000],{"$buffer":[64,0,80000]}]}}'
HOSTILE: dict[str, tuple[Callable[[], int], str, str]] = {
    "no seals": (lambda: sealed(80_000, 0), ARRAY, "not sealed"),
    "not against a change": (lambda: sealed(80_000, ALL & ~fcntl.F_SEAL_WRITE), ARRAY, "not sealed"),
    "not against its end": (lambda: sealed(80_000, ALL & ~fcntl.F_SEAL_SHRINK), ARRAY, "not sealed"),
    "too short": (lambda: sealed(79_999, ALL), ARRAY, "outside"),
    "no memory file": (lambda: os.open("/dev/zero", os.O_RDONLY), ARRAY, "no memory file"),
    "another shape": (lambda: sealed(80_000, ALL), ARRAY.replace("10000", "10001"), "do not fit"),
    "a negative size": (lambda: sealed(80_000, ALL), ARRAY.replace("[64,0,80000]", "[64,80000,-80000]"), "part"),
    "no numbers": (lambda: sealed(80_000, ALL), ARRAY.replace("[64,0,80000]", '["64",0,80000]'), "part"),
    "another file": (lambda: sealed(80_000, ALL), ARRAY.replace("[64,", "[7,"), "did not arrive"),
    "objects": (lambda: sealed(80_000, ALL), ARRAY.replace("<f8", "|O"), "no dtype"),
    "objects in a record": (lambda: sealed(80_000, ALL), ARRAY.replace('"<f8"', '[["a","|O"]]'), "no dtype"),
    "text elsewhere": (lambda: sealed(80_000, ALL), '{"@typed":{"$buffer":[64,0,8]}}', "unknown tag"),
}


@pytest.mark.parametrize(("make", "text", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_descriptor_is_refused_and_closed(make: Callable[[], int], text: str, words: str) -> None:
    descriptor = make()
    with pytest.raises(ResultUnreadable, match=words):
        Delivered(Delivery(json=text.encode(), buffers=1), Incoming([descriptor])).value()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_descriptor_that_was_lost_on_the_way_is_an_error_with_the_fix() -> None:
    with pytest.raises(ResultUnreadable, match=r"0 of its 1 descriptors.*RLIMIT_NOFILE"):
        Delivered(Delivery(json=ARRAY.encode(), buffers=1), None).value()


@pytest.mark.parametrize("data", [PARTED, PARTED + b"\xff\xff\xff\xff\xff", PARTED * HEAD_BYTES, PARTED * 9, b""])
def test_a_datagram_with_parts_that_is_cut_off_or_hostile_is_no_result(data: bytes) -> None:
    try:
        delivery, _ = opened(memoryview(data), None)
    except DecodeError:
        return
    assert delivery == Delivery()


def test_parts_behind_a_delivery_may_be_written_to_and_arrive_beside_descriptors() -> None:
    placed = np.arange(20_000.0)
    found = arrived([np.arange(12_500.0), placed, b"x" * 9000])
    found[0][0] = 7
    assert found[0][:2].tolist() == [7.0, 1.0]
    assert (found[1] == placed).all()
    assert found[2] == b"x" * 9000


def test_a_reply_that_nothing_reads_closes_its_descriptors() -> None:
    before = open_files()
    file = MemoryFile()
    file.append(b"x")
    delivered = Delivered(Delivery(json=b"1", buffers=1), Incoming([os.dup(file.descriptor)]))
    file.close()
    assert open_files() == before + 1
    del delivered
    assert open_files() == before


@pytest.mark.parametrize("kind", ["sent", "received"])
def test_a_file_that_took_the_number_of_a_buffer_is_neither_closed_nor_sent(kind: str, tmp_path: Path) -> None:
    file = MemoryFile()
    file.append(b"x")
    holder = file if kind == "sent" else Incoming([os.dup(file.descriptor)])
    number = file.descriptor if kind == "sent" else holder.descriptors[0]  # type: ignore[union-attr]
    with (tmp_path / "theirs").open("wb") as theirs:
        os.dup2(theirs.fileno(), number)
    if kind == "sent":
        with pytest.raises(OSError, match="closed by other code"):
            file.seal()
    holder.close()
    assert os.fstat(number).st_ino == (tmp_path / "theirs").stat().st_ino
    os.close(number)


# Computed in place


def call_of(taker: str = "/nowhere", limit: int = 64 * MIB) -> AssignedCall:
    return AssignedCall(1, "run", b'{"@typed":1}', max_result=MIB, buffer_socket=taker, max_buffer=limit)


def test_an_array_computed_in_place_is_sent_as_it_is_and_later_writes_do_not_reach_it() -> None:
    call = call_of()
    out = Context(call, None).buffer((300, 1000), "f4")  # type: ignore[arg-type]
    out += 3
    buffers = call.new_buffers()
    assert buffers is not None
    text = encode({"out": out.reshape(-1, 10)}, MIB, tags=True, buffers=buffers).data
    assert json.loads(text)["@typed"]["out"]["$ndarray"][2] == {"$buffer": [0, 0, 1_200_000]}
    descriptor = os.dup(buffers.seal()[0])
    out[:] = 9  # the command kept it
    found = Delivered(Delivery(json=text, buffers=1), Incoming([descriptor])).value()["out"]
    assert found.shape == (30_000, 10)
    assert (found == 3).all()
    assert (out == 9).all()


def test_a_part_of_an_array_computed_in_place_is_copied() -> None:
    call = call_of()
    out = Context(call, None).buffer(100_000)  # type: ignore[arg-type]
    buffers = call.new_buffers()
    text = encode(out[:50_000], MIB, tags=True, buffers=buffers).data
    assert json.loads(text)["@typed"]["$ndarray"][2] == {"$buffer": [COPIED, 0, 400_000]}


def test_memory_that_a_command_asked_for_and_did_not_return_is_given_back() -> None:
    before = open_files()
    call = call_of()
    out = Context(call, None).buffer(100_000)  # type: ignore[arg-type]
    assert open_files() > before
    del call, out
    assert open_files() == before


@pytest.mark.parametrize("call", [call_of(""), AssignedCall(1, "run", b"{}", buffer_socket="/nowhere")])
def test_without_a_caller_that_takes_buffers_it_is_an_ordinary_array(call: AssignedCall) -> None:
    out = Context(call, None).buffer(100_000)  # type: ignore[arg-type]
    assert out.base is None
    assert not out.any()
    assert not call.placed


def test_a_buffer_is_bounded_and_holds_no_objects() -> None:
    with pytest.raises(BufferTooLarge, match="max_buffer is 1,000"):
        Context(call_of(limit=1000), None).buffer(1000)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds objects"):
        Context(call_of(), None).buffer(10, object)  # type: ignore[arg-type]


def test_a_placed_file_cannot_be_changed_once_it_is_sealed() -> None:
    file = PlacedFile(MIB)
    file.memory[:1] = b"a"
    file.seal()
    file.memory[:1] = b"b"  # private now
    assert os.pread(file.descriptor, 1, 0) == b"a"
    with pytest.raises(PermissionError):
        os.pwrite(file.descriptor, b"c", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(file.descriptor, MIB)
    file.seal()  # for the next try to send it
    assert file.memory[:1] == b"b", "the command keeps what it wrote meanwhile"


@pytest.fixture(params=[False, True], ids=["small pages", "huge pages"])
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "huge_pages", lambda: request.param)


def test_parts_are_the_same_with_each_size_of_pages(pages: None) -> None:
    value = [b"a" * 70_001, np.arange(600_000.0), b"b" * 70_001, np.arange(700_000.0).reshape(7, -1), b"c" * 3 * MIB]
    before = open_files()
    found = arrived(value)
    assert [one if isinstance(one, bytes) else one.tolist() for one in found] == [
        one if isinstance(one, bytes) else one.tolist() for one in value
    ]
    del found
    assert open_files() == before


def test_a_place_is_the_same_with_each_size_of_pages(pages: None) -> None:
    call = call_of()
    out = Context(call, None).buffer(500_000)  # type: ignore[arg-type]
    assert not out.any()
    out += 2
    outgoing = call.new_buffers()
    assert outgoing is not None
    part = outgoing.add(out)
    incoming = Incoming([os.dup(one) for one in outgoing.seal()])
    assert (np.frombuffer(incoming.view(part)) == 2).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("always within_size advise [never] deny force\n", False),
        ("always within_size [advise] never deny force\n", True),
        ("always within_size advise never [deny] force\n", False),
        (None, False),
    ],
)
def test_huge_pages_are_used_where_the_kernel_gives_them_to_those_that_ask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, expected: bool
) -> None:
    setting = tmp_path / "shmem_enabled"
    if text is not None:
        setting.write_text(text)
    monkeypatch.setattr(memory_file, "HUGE_PAGES", str(setting))
    assert memory_file.huge_pages.__wrapped__() is expected


def test_the_bound_of_maps_is_read_without_the_module_whose_import_means_a_changed_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With `resource` imported, a worker compares all limits after each call, and its calls share no check."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.delitem(sys.modules, "resource")
    assert buffers._most_maps() == soft // 4
    assert "resource" not in sys.modules
