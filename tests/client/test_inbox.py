"""Who gets what arrives, and how much may wait for each."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.client.waiting import woken
from triorelay.client._inbox import CLAIM_BYTES, PATIENCE, WORTH_WAITING, Inbox, Receiver
from triorelay.protocol import Event, EventCode

A, B, C = b"ABC"


class Noted(Receiver):
    """A claim that writes down what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def deliver(self, source: int, data: bytes) -> None:
        self.heard.append((source, data))
        self.size += len(data)

    def tell(self, event: Event) -> None:
        self.heard.append(event)

    def lose(self) -> None:
        self.heard.append("lost")

    def clear(self) -> None:
        self.heard.append("clear")


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(lambda: None, trio.lowlevel.ParkingLot.unpark_all)


async def test_unclaimed_data_of_one_source_is_joined_and_kept_in_order(inbox: Inbox) -> None:
    for source, data in ((A, b"1"), (A, b"23"), (B, b"4"), (A, b"5")):
        inbox.deliver(source, data)
    with assert_checkpoints():
        assert await inbox.unclaimed.receive() == (A, b"123")
    assert await inbox.unclaimed.receive() == (B, b"4")
    assert await inbox.unclaimed.receive() == (A, b"5")


async def test_a_source_goes_to_its_claim_and_the_others_to_the_rest(inbox: Inbox) -> None:
    of_a, rest = Noted(), Noted()
    inbox.claim(A, of_a)
    inbox.deliver(B, b"1")
    inbox.claim_rest(rest)
    inbox.deliver(A, b"2")
    inbox.deliver(C, b"3")
    assert of_a.heard == [(A, b"2")]
    assert rest.heard == [(B, b"1"), (C, b"3")]


async def test_a_claim_takes_over_what_has_come_for_it_and_leaves_the_others(inbox: Inbox) -> None:
    for source, data in ((A, b"1"), (B, b"2"), (A, b"3")):
        inbox.deliver(source, data)
    claim = Noted()
    inbox.claim(A, claim)
    assert claim.heard == [(A, b"1"), (A, b"3")]
    assert await inbox.unclaimed.receive() == (B, b"2")


async def test_a_second_claim_is_refused(inbox: Inbox) -> None:
    inbox.claim(A, Noted())
    with pytest.raises(trio.BusyResourceError, match="A is claimed by an open stream or channel; close that one first"):
        inbox.claim(A, Noted())
    inbox.claim_rest(Noted())
    with pytest.raises(trio.BusyResourceError, match="close it first"):
        inbox.claim_rest(Noted())


async def test_a_released_claim_gets_nothing_more(inbox: Inbox) -> None:
    of_a, rest = Noted(), Noted()
    inbox.claim(A, of_a)
    inbox.claim_rest(rest)
    inbox.release(of_a)
    inbox.deliver(A, b"1")
    assert (of_a.heard, rest.heard) == (["clear"], [(A, b"1")])
    inbox.release(rest)
    inbox.deliver(A, b"2")
    assert await inbox.unclaimed.receive() == (A, b"2")
    assert rest.heard[1:] == ["clear"]
    assert inbox.by_source.get(A) is None


async def test_events_reach_the_claim_of_their_subject(inbox: Inbox) -> None:
    of_a, rest = Noted(), Noted()
    inbox.tell(Event(EventCode.LEFT, A))
    inbox.claim(A, of_a)
    inbox.claim_rest(rest)
    inbox.deliver(A, b"1")
    inbox.tell(Event(EventCode.LEFT, A))
    inbox.tell(Event(EventCode.DROPPED, B))
    inbox.lose()
    assert of_a.heard == [(A, b"1"), Event(EventCode.LEFT, A), "lost"]
    assert rest.heard == [Event(EventCode.DROPPED, B), "lost"]


async def test_it_is_full_while_any_claim_is(inbox: Inbox) -> None:
    claim = Noted()
    inbox.claim(A, claim)
    inbox.deliver(A, bytes(CLAIM_BYTES - 1))
    assert not inbox.is_full
    inbox.deliver(A, b"1")
    inbox.deliver(B, bytes(CLAIM_BYTES))
    await inbox.unclaimed.receive()
    assert inbox.is_full
    async with woken(inbox.wait_relief):
        inbox.release(claim)
    assert not inbox.is_full


@pytest.mark.parametrize("nowait", [False, True])
async def test_everything_that_is_taken_out_makes_room(inbox: Inbox, nowait: bool) -> None:
    inbox.deliver(A, b"1")
    async with woken(inbox.wait_relief):
        assert (inbox.unclaimed.receive_nowait() if nowait else await inbox.unclaimed.receive()) == (A, b"1")


async def test_a_claim_that_takes_over_what_waited_is_a_relief(inbox: Inbox) -> None:
    inbox.deliver(A, b"1")
    async with woken(inbox.wait_relief):
        inbox.claim_rest(Noted())


async def test_a_closing_inbox_keeps_nothing_and_is_never_full(inbox: Inbox) -> None:
    inbox.deliver(A, bytes(CLAIM_BYTES))
    async with woken(inbox.wait_relief):
        inbox.discard()
    assert not inbox.is_full
    inbox.deliver(A, b"1")
    with pytest.raises(trio.WouldBlock):
        inbox.unclaimed.receive_nowait()


async def test_data_wakes_a_receiver_and_so_does_a_change_of_the_client(inbox: Inbox) -> None:
    async with woken(inbox.unclaimed.receive):
        inbox.deliver(A, b"1")
    claim = Noted()
    inbox.claim(B, claim)
    async with woken(claim.arrived.park):
        inbox.wake()


async def test_a_receiver_that_takes_is_let_empty_its_claim_before_more_is_read(inbox: Inbox) -> None:
    inbox.deliver(A, bytes(WORTH_WAITING))
    inbox.deliver(B, bytes(WORTH_WAITING))
    await inbox.let_receive()  # none takes anything, so this does not wait
    inbox.unclaimed.receive_nowait()
    async with woken(inbox.let_receive):
        inbox.unclaimed.receive_nowait()
    await inbox.let_receive()


async def test_a_receiver_that_stops_taking_holds_up_reading_for_a_moment_only(
    inbox: Inbox, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(2):
        inbox.deliver(A, bytes(WORTH_WAITING))
        inbox.deliver(B, bytes(WORTH_WAITING))
    inbox.unclaimed.receive_nowait()
    start = trio.current_time()
    await inbox.let_receive()
    assert trio.current_time() - start == pytest.approx(PATIENCE)
    await inbox.let_receive()
    assert trio.current_time() - start == pytest.approx(PATIENCE)


async def test_one_task_receives_at_a_time(inbox: Inbox, nursery: trio.Nursery) -> None:
    nursery.start_soon(inbox.unclaimed.receive)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError, match="one task receives"):
        await inbox.unclaimed.receive()
    inbox.deliver(A, b"1")


async def test_a_cancelled_receiver_takes_nothing(inbox: Inbox) -> None:
    inbox.deliver(A, b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.unclaimed.receive()
    assert await inbox.unclaimed.receive() == (A, b"1")


async def test_a_receiver_gets_the_end_after_everything_is_received() -> None:
    def over() -> None:
        raise KeyError("over")

    inbox = Inbox(over, trio.lowlevel.ParkingLot.unpark_all)
    inbox.deliver(A, b"1")
    assert await inbox.unclaimed.receive() == (A, b"1")
    with pytest.raises(KeyError, match="over"):
        await inbox.unclaimed.receive()
