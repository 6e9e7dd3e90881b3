"""What a client has still to write, and the one task that writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.testing import wait_all_tasks_blocked

from triorelay.client._outbox import OUTBOX_BYTES, Outbox

if TYPE_CHECKING:
    import trio


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


async def test_finishing_wakes_an_idle_writer(nursery: trio.Nursery) -> None:
    outbox = Outbox()
    nursery.start_soon(outbox.take)
    await wait_all_tasks_blocked()
    outbox.finish()


async def test_a_broken_outbox_drops_what_waits_and_takes_no_more(nursery: trio.Nursery) -> None:
    outbox = Outbox()
    outbox.put(b"B1" * OUTBOX_BYTES)
    nursery.start_soon(outbox.wait_room)
    await wait_all_tasks_blocked()
    outbox.break_off()
    outbox.put(b"B1")
    outbox.finish()
    assert not outbox.has_room
    assert await outbox.take() == b""
