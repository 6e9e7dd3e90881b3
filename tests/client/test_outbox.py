"""What a client has still to write, and the one task that writes it."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from triorelay.client._idle import PASSES
from triorelay.client._outbox import OUTBOX_BYTES, Outbox
from triorelay.protocol import address_frames

B, C = b"BC"


async def test_what_gathered_is_taken_at_once() -> None:
    outbox = Outbox()
    outbox.put(b"B1")
    outbox.put(bytearray(b"C2"))
    assert await outbox.take() == b"B1C2"


async def test_the_writer_waits_for_frames(nursery: trio.Nursery) -> None:
    outbox, taken = Outbox(), []

    async def take() -> None:
        taken.append(await outbox.take())

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    outbox.put(b"B1")
    await wait_all_tasks_blocked()
    assert taken == [b"B1"]


async def test_a_piece_is_taken_whole_and_the_next_waits_until_the_writer_came(nursery: trio.Nursery) -> None:
    outbox = Outbox()
    outbox.put(b"B1" * OUTBOX_BYTES)
    assert not outbox.has_room
    waited = []

    async def wait(name: str) -> None:
        await outbox.wait_room()
        waited.append(name)

    nursery.start_soon(wait, "one")
    nursery.start_soon(wait, "other")
    await wait_all_tasks_blocked()
    assert waited == []
    await outbox.take()
    await wait_all_tasks_blocked()
    assert sorted(waited) == ["one", "other"]
    assert outbox.has_room


async def test_a_finished_outbox_gives_what_is_left_and_then_nothing() -> None:
    outbox = Outbox()
    outbox.put(b"B1")
    outbox.finish()
    assert await outbox.take() == b"B1"
    assert await outbox.take() == b""


async def test_finishing_wakes_an_idle_writer() -> None:
    outbox = Outbox()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.take)
            await wait_all_tasks_blocked()
            outbox.finish()


async def test_a_broken_outbox_drops_what_waits_wakes_senders_and_takes_no_more() -> None:
    outbox = Outbox()
    outbox.put(b"B1" * OUTBOX_BYTES)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.wait_room)
            await wait_all_tasks_blocked()
            outbox.break_off()
    outbox.put(b"B1")
    outbox.send(B, b"1")
    outbox.finish()
    assert not outbox.has_room
    assert await outbox.take() == b""


async def test_data_is_addressed_run_by_run_and_keeps_its_order() -> None:
    outbox = Outbox()
    outbox.send(B, b"12")
    outbox.send(B, b"3")
    outbox.put(b"\0\x08\0\x01")
    outbox.send(C, b"4")
    outbox.send(B, b"")
    outbox.send(B, b"5")
    assert await outbox.take() == b"B1B2B3\0\x08\0\x01C4B5"


class Kernel:
    """A socket's buffer: takes up to `room` bytes without waiting."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[bytes] = []

    def offer(self, frames: bytes | bytearray, taken: list[int]) -> None:
        part = bytes(frames[: self.room])
        self.room -= len(part)
        self.taken.append(part)
        taken.append(len(part))


async def test_the_first_data_is_offered_at_once_and_the_rest_of_a_burst_at_its_end() -> None:
    kernel = Kernel(1000)
    outbox = Outbox(kernel.offer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.take)
        await wait_all_tasks_blocked()
        for burst in range(2):
            kernel.taken.clear()
            outbox.send(B, b"1")
            assert kernel.taken == [b"B1"], burst
            outbox.send(B, b"2")
            outbox.send(C, b"3")
            assert kernel.taken == [b"B1"], burst
            await trio.sleep(0.001)
            assert kernel.taken == [b"B1", b"B2C3"], burst
        nursery.cancel_scope.cancel()


async def test_a_burst_without_end_is_written_in_parts() -> None:
    kernel = Kernel(1_000_000)
    outbox = Outbox(kernel.offer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.take)
        await wait_all_tasks_blocked()
        for _ in range(3 * PASSES):
            outbox.send(B, b"1")
            await trio.lowlevel.checkpoint()
        assert 3 <= len(kernel.taken) <= 5
        kernel.taken.clear()
        outbox.send(B, bytes(OUTBOX_BYTES // 2))
        assert len(kernel.taken) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("at_the_end_of_a_burst", [False, True])
async def test_what_the_kernel_does_not_take_is_the_writers_and_nothing_overtakes_it(
    at_the_end_of_a_burst: bool,
) -> None:
    kernel = Kernel(3 if at_the_end_of_a_burst else 1)
    outbox = Outbox(kernel.offer)
    order = kernel.taken

    async def write() -> None:
        while frames := await outbox.take():
            order.append(bytes(frames))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            outbox.send(B, b"1")
            outbox.send(B, b"2")
            await trio.sleep(0.001)
            outbox.send(B, b"3")
            kernel.room = 1000
            await trio.sleep(0.001)
            outbox.send(B, b"4")
            outbox.finish()
    assert b"".join(order) == b"B1B2B3B4"


async def test_a_failure_to_write_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    kernel, failures = Kernel(1000), 1

    def offer(frames: bytes | bytearray, taken: list[int]) -> None:
        nonlocal failures
        if frames[-1:] == b"2" and failures:
            failures -= 1
            raise MemoryError
        kernel.offer(frames, taken)

    outbox = Outbox(offer)

    async def write() -> None:
        while frames := await outbox.take():
            kernel.taken.append(bytes(frames))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            outbox.send(B, b"1")
            outbox.send(B, b"2")
            await trio.sleep(0.001)
            outbox.send(B, b"3")
            await trio.sleep(0.001)
            outbox.finish()
    assert [record.getMessage() for record in caplog.records] == ["writing failed; it is tried again"]
    assert b"".join(kernel.taken) == b"B1B2B3"


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([B, C]), st.binary(min_size=1, max_size=300)),
    st.tuples(st.just("put"), st.just(0), st.binary(min_size=2, max_size=2)),
    st.tuples(st.just("room"), st.sampled_from([0, 1, 7, 1000, 100_000]), st.just(b"")),
    st.tuples(st.sampled_from(["pass", "idle"]), st.just(0), st.just(b"")),
)


@given(steps=st.lists(STEPS, max_size=40))
def test_with_any_progress_of_the_kernel_all_frames_go_out_once_and_in_order(
    steps: list[tuple[str, int, bytes]],
) -> None:
    expected = bytearray()
    kernel = Kernel(10)
    outbox_made: list[Outbox] = []

    async def write(outbox: Outbox) -> None:
        while frames := await outbox.take():
            await trio.lowlevel.checkpoint()
            kernel.taken.append(bytes(frames))

    async def main() -> None:
        outbox = Outbox(kernel.offer)
        outbox_made.append(outbox)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, outbox)
            for kind, number, data in steps:
                match kind:
                    case "send":
                        outbox.send(number, data)
                        expected.extend(address_frames(number, data))
                    case "put":
                        outbox.put(data)
                        expected.extend(data)
                    case "room":
                        kernel.room = number
                    case "pass":
                        await trio.lowlevel.checkpoint()
                    case "idle":
                        await trio.sleep(0.0001)
            outbox.finish()

    trio.run(main)
    assert b"".join(kernel.taken) == bytes(expected)


@pytest.mark.parametrize("data", [[b"1"], [b"1", b"2"]], ids=["first data", "end of a burst"])
async def test_the_writer_is_woken_for_what_the_kernel_did_not_take_and_nothing_else_is_sent(data: list[bytes]) -> None:
    kernel = Kernel(2 * len(data) - 1)
    outbox = Outbox(kernel.offer)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            written: list[bytes] = []

            async def write() -> None:
                written.append(bytes(await outbox.take()))
                nursery.cancel_scope.cancel()

            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            for part in data:
                outbox.send(B, part)
            await trio.sleep_forever()
    assert b"".join([*kernel.taken, *written]) == b"B1B2"[: 2 * len(data)]
    assert len(written[0]) == 1


async def test_what_the_kernel_did_not_take_counts_as_what_waits() -> None:
    kernel = Kernel(OUTBOX_BYTES)
    outbox = Outbox(kernel.offer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.take)
        await wait_all_tasks_blocked()
        outbox.send(B, bytes(OUTBOX_BYTES - 1))
        assert outbox.has_room
        outbox.send(B, b"1")
        assert not outbox.has_room
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after it"])
async def test_an_interruption_neither_loses_nor_doubles_what_was_put(after: bool) -> None:
    written: list[bytes] = []

    def offer(frames: bytes | bytearray, taken: list[int]) -> None:
        if after:
            written.append(bytes(frames[:3]))
            taken.append(3)
        raise KeyboardInterrupt

    outbox = Outbox(offer)

    async def write() -> None:
        written.append(bytes(await outbox.take()))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            with pytest.raises(KeyboardInterrupt):
                outbox.put(b"B1B2")
    assert b"".join(written) == b"B1B2"
