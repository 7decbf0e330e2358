"""Memory files that are written again: only when nothing else has them, and without anything of their last value."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from snakepit.pools.broker.errors import ResultUnreadable
from snakepit.pools.client.call_messages import Delivered
from snakepit.workers import buffers, kept_files, memory_file
from snakepit.workers.buffers import BufferInvalid, Incoming, Outgoing
from snakepit.workers.call import AssignedCall
from snakepit.workers.context import Context
from snakepit.workers.kept_files import KEPT_SEALS, LEAST, KeptFile, KeptFiles, are_possible
from snakepit.workers.memory_file import MemoryFile
from snakepit.workers.memory_maps import PAGE
from snakepit.workers.schema.value import encode
from snakepit.workers.transport.direct_reply import datagram, opened
from snakepit.workers.wire.worker_pb2 import Delivery

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not are_possible(), reason="this system cannot tell when a memory file is free")
MIB = 2**20


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop) -> Iterator[KeptFiles]:
    made = KeptFiles()
    monkeypatch.setattr(buffers, "files", made)
    monkeypatch.setattr(memory_file, "files", made)
    made.start(loop)
    yield made
    made.stop()


def sent(value: Any, outgoing: Outgoing | None = None) -> tuple[Delivered, list[int]]:
    """A result on its way, and the inodes of its files. Its sender has closed it."""
    outgoing = outgoing or Outgoing(64 * MIB)
    try:
        text = encode(value, MIB, tags=True, buffers=outgoing).data
        descriptors = [os.dup(one) for one in outgoing.seal()]
        wire = Delivery(json=text, buffers=len(descriptors))
        data = b"".join(datagram(wire, outgoing.inline))
    finally:
        outgoing.close()
    return Delivered(*opened(memoryview(data), Incoming(descriptors))), [os.fstat(one).st_ino for one in descriptors]


def arrived(value: Any) -> tuple[Any, list[int]]:
    delivered, inodes = sent(value)
    return delivered.value(), inodes


VALUES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "array": (lambda: np.arange(100_000.0), lambda: np.full(100_000, 7.0)),
    "bytes": (lambda: b"a" * 500_001, lambda: b"bc" * 250_001),
    "times": (lambda: np.arange(100_000).astype("M8[s]"), lambda: np.zeros(100_000, "M8[s]")),
    "two of a size": (lambda: [np.ones(50_000), np.zeros(50_000)], lambda: [np.zeros(50_000), np.ones(50_000)]),
}


@pytest.mark.parametrize(("first", "second"), VALUES.values(), ids=VALUES)
def test_the_next_value_of_a_size_is_in_the_same_files_when_the_last_one_is_dropped(first: Any, second: Any) -> None:
    found, inodes = arrived(first())
    assert np.array_equal(found, first())
    del found
    for value in (second(), first(), second()):
        found, again = arrived(value)
        assert np.array_equal(found, value)
        assert sorted(again) == sorted(inodes)
        del found


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "the array": lambda array: array,
    "a slice": lambda array: array[5:6],
    "a view of other items": lambda array: array.view("u1")[::2],
    "a list of views": lambda array: [array[:1], array[-1:]],
    "a memoryview": memoryview,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_value_that_its_receiver_holds_never_changes(hold: Callable[[Any], Any]) -> None:
    value = np.arange(100_000.0)
    holder = hold(arrived(value)[0])
    gc.collect()
    before = [bytes(one) for one in holder] if isinstance(holder, list) else bytes(holder)
    for number in range(5):
        assert (arrived(np.full(100_000, float(number)))[0] == number).all()
    assert ([bytes(one) for one in holder] if isinstance(holder, list) else bytes(holder)) == before


def test_a_file_on_its_way_or_received_and_not_mapped_is_not_written_again() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        outgoing = Outgoing(MIB)
        outgoing.add(b"a" * LEAST, final=False)
        socket.send_fds(ours, [b"x"], outgoing.seal())
        outgoing.close()
        arrived(b"b" * LEAST)
        _, (descriptor,), _, _ = socket.recv_fds(theirs, 1, 1)
        arrived(b"c" * LEAST)
        assert os.pread(descriptor, LEAST + 1, 0) == b"a" * LEAST
        inode = os.fstat(descriptor).st_ino
        os.close(descriptor)
    held = [sent(b"d" * LEAST) for _ in range(3)]
    assert inode in [inodes[0] for _, inodes in held]


def test_nothing_of_an_earlier_value_is_behind_a_shorter_one() -> None:
    _, inodes = arrived(b"secret" * (LEAST // 6 + 600))
    pages = -(-(LEAST // 6 + 600) * 6 // PAGE) * PAGE
    delivered, again = sent(b"x" * (pages - PAGE + 1))
    assert again == inodes
    assert delivered.buffers is not None
    assert os.pread(delivered.buffers.descriptors[0], 2 * PAGE, pages - PAGE) == b"x" + bytes(PAGE - 1)


def test_only_the_sender_can_write_to_a_kept_file() -> None:
    delivered, _ = sent(np.ones(LEAST))
    assert delivered.buffers is not None
    received = delivered.buffers.descriptors[0]
    assert fcntl.fcntl(received, fcntl.F_GET_SEALS) & KEPT_SEALS == KEPT_SEALS
    writable = os.open(f"/proc/self/fd/{received}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(writable, LEAST)
    with pytest.raises(PermissionError):
        os.pwrite(writable, b"x", 0)
    os.close(writable)


def test_without_a_lease_each_value_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: KeptFile) -> bool:
        return False

    monkeypatch.setattr(KeptFile, "is_free", refuse)
    assert len({arrived(np.ones(LEAST))[1][0] for _ in range(3)}) == 3


def test_where_the_kernel_cannot_tell_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    for wrong in (lambda self: True, lambda self: False):
        with monkeypatch.context() as patch:
            patch.setattr(KeptFile, "is_free", wrong)
            assert not are_possible.__wrapped__()
    monkeypatch.setattr(kept_files, "are_possible", lambda: False)
    made = KeptFiles()
    made.start(loop)
    assert made.take(LEAST) is None
    monkeypatch.setattr(buffers, "files", made)
    assert (arrived(np.ones(LEAST))[0] == 1).all()


@pytest.mark.parametrize("size", [LEAST - 1, kept_files.MOST_BYTES + 1])
def test_a_file_that_is_too_small_or_too_large_is_not_kept(kept: KeptFiles, size: int) -> None:
    assert kept.take(size) is None


def test_kept_files_are_bounded_and_closed_in_time(
    monkeypatch: pytest.MonkeyPatch, kept: KeptFiles, loop: asyncio.AbstractEventLoop
) -> None:
    for number in range(2 * kept_files.MOST_FILES):
        arrived(b"x" * (LEAST + number * PAGE))
    assert len(kept._files) == kept_files.MOST_FILES
    kept.most_bytes = 3 * LEAST
    arrived(b"x" * LEAST)
    assert sum(one.size for one in kept._files) <= 3 * LEAST
    gone = list(kept._files)
    monkeypatch.setattr(kept_files, "IDLE_SECONDS", 0.0)

    async def wait() -> None:
        while kept._files:
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(wait(), 600))
    assert {(one.descriptor, one.address) for one in gone} == {(-1, 0)}


def test_a_value_that_was_not_sent_leaves_no_file(kept: KeptFiles) -> None:
    outgoing = Outgoing(MIB)
    outgoing.add(b"x" * LEAST, final=False)
    outgoing.close()
    assert not kept._files


def test_a_closed_loop_keeps_nothing(kept: KeptFiles, loop: asyncio.AbstractEventLoop) -> None:
    loop.close()
    arrived(b"x" * LEAST)
    assert not kept._files


def test_a_file_that_took_the_number_of_a_kept_one_is_neither_written_nor_closed(kept: KeptFiles) -> None:
    arrived(b"x" * LEAST)
    theirs, number = MemoryFile(), kept._files[0].descriptor
    os.dup2(theirs.descriptor, number)
    found, _ = arrived(b"y" * LEAST)
    assert found == b"y" * LEAST
    kept.stop()
    assert os.fstat(number).st_ino == os.fstat(theirs.descriptor).st_ino
    os.close(number)


def test_many_large_parts_are_in_few_kept_files_and_the_others_beside_them(kept: KeptFiles) -> None:
    value = [np.full(LEAST // 8, float(number)) for number in range(12)] + [b"small" * 2000]
    found, inodes = arrived(value)
    assert [one[0] for one in found[:12]] == list(range(12))
    assert found[12] == value[12]
    assert len(inodes) == buffers.MOST_KEPT + 1


def test_a_receiver_without_descriptors_gets_all_parts_beside_the_text() -> None:
    outgoing = Outgoing(64 * MIB)
    value = [np.arange(100_000), b"x" * 10_000, np.ones(100_000), b'{"$buffer":[0,0,1]}']
    text, data = outgoing.together(encode(value, MIB, tags=True, buffers=outgoing).data)
    outgoing.close()
    found = Delivered(Delivery(json=text), Incoming(inline=data)).value()
    assert all(np.array_equal(one, other) for one, other in zip(found, value, strict=True))


def test_small_parts_beside_a_kept_file_come_in_a_file_where_only_files_are_taken() -> None:
    outgoing = Outgoing(64 * MIB)
    value = [np.arange(100_000), b"x" * 10_000]
    text = encode(value, MIB, tags=True, buffers=outgoing).data
    outgoing.collect()
    assert not outgoing.inline
    incoming = Incoming(map(os.dup, outgoing.seal()))
    outgoing.close()
    found = Delivered(Delivery(json=text, buffers=2), incoming).value()
    assert np.array_equal(found[0], value[0])
    assert found[1] == value[1]


# What must not change at all


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_table_and_text_are_sealed_for_good(library: str) -> None:
    module = pytest.importorskip(library)
    columns = {"a": list(range(60_000)), "b": [f"row {number}" for number in range(60_000)]}
    delivered, _ = sent([module.table(columns) if library == "pyarrow" else module.DataFrame(columns)])
    assert delivered.buffers is not None
    for one in delivered.buffers.descriptors:
        assert fcntl.fcntl(one, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    delivered.close()


def of_sender(seals: int) -> Incoming:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 400_000)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return Incoming([descriptor])


UNCHECKED = {
    "pyarrow": '{"$frame":["pyarrow.Table",{},{"$buffer":[64,0,400000]}]}',
    "polars": '{"$frame":["polars.DataFrame",{},{"$buffer":[64,0,400000]}]}',
    "pandas": '{"$frame":["pandas.DataFrame",{},{"$buffer":[64,0,400000]}]}',
    "image": '{"$image":["png",{"$buffer":[64,0,400000]}]}',
    "text": '{"$ndarray":["<U10",[10000],{"$buffer":[64,0,400000]}]}',
    "records": '{"$ndarray":[[["a","<U10"]],[10000],{"$buffer":[64,0,400000]}]}',
}


@pytest.mark.parametrize("text", UNCHECKED.values(), ids=UNCHECKED)
def test_what_is_checked_once_is_refused_where_its_sender_can_still_change_it(text: str) -> None:
    for library in ("pyarrow", "polars", "pandas"):
        if library in text:
            pytest.importorskip(library)
    wire = Delivery(json=b'{"@typed":%s}' % text.encode(), buffers=1)
    with pytest.raises(ResultUnreadable, match="can still change"):
        Delivered(wire, of_sender(KEPT_SEALS)).value()


def test_a_number_may_be_in_a_file_that_its_sender_writes_again() -> None:
    part = [64, 0, 400_000]
    assert len(of_sender(KEPT_SEALS).view(part, final=False)) == 400_000
    with pytest.raises(BufferInvalid, match="can still change"):
        of_sender(KEPT_SEALS).view(part)
    with pytest.raises(BufferInvalid, match="not sealed"):
        of_sender(fcntl.F_SEAL_SHRINK | kept_files.FUTURE_WRITE).view(part, final=False)


# Computed in place


def placed(size: int, kind: str = "f8") -> tuple[Any, Outgoing]:
    call = AssignedCall(1, "run", b'{"@typed":1}', max_result=MIB, buffer_socket="/nowhere", max_buffer=64 * MIB)
    out = Context(call, None).buffer(size, kind)  # type: ignore[arg-type]
    outgoing = call.new_buffers()
    assert outgoing is not None
    return out, outgoing


def test_an_array_computed_in_place_is_zeros_again_and_its_command_may_keep_it() -> None:
    files, held = set(), []
    for number in range(1, 7):
        out, outgoing = placed(100_000)
        assert not out.any(), "what an earlier call wrote"
        out += number
        delivered, inodes = sent(out, outgoing)
        out[:] = -1  # the command's own, from now on
        found = delivered.value()
        assert (found == number).all()
        files.update(inodes)
        if number % 2:
            held.append((number, out, found))
        del out, outgoing, delivered, found
    assert len(files) < 6
    for number, out, found in held:
        assert (found == number).all()
        assert (out == -1).all()


def test_what_a_command_has_left_of_its_array_never_changes() -> None:
    out, outgoing = placed(100_000)
    out += 5
    _, inodes = sent(out, outgoing)
    gc.collect()
    for number in range(3):
        other, outgoing = placed(100_000)
        other += number
        assert sent(other, outgoing)[1] != inodes
        del other, outgoing
    assert (out == 5).all()


def test_an_array_that_was_not_returned_leaves_no_file(kept: KeptFiles) -> None:
    out, outgoing = placed(100_000)
    del out, outgoing
    gc.collect()
    assert not kept._files


def test_text_computed_in_place_is_sealed_for_good(kept: KeptFiles) -> None:
    out, outgoing = placed(100_000)
    sent(out, outgoing)
    del out, outgoing
    for kind in ("f8", "U2"):  # a kept file, and numbers that are read as text
        out, outgoing = placed(100_000)
        delivered, _ = sent([out, out.view(kind)], outgoing)
        assert delivered.buffers is not None
        seals = fcntl.fcntl(delivered.buffers.descriptors[0], fcntl.F_GET_SEALS)
        assert bool(seals & fcntl.F_SEAL_WRITE) is (kind == "U2")
        delivered.value()
        del out, outgoing, delivered
    assert not kept._files
