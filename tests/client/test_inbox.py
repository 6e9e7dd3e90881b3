"""Who gets what arrives, and how much may wait for each."""

from __future__ import annotations

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triorelay.client._inbox import CLAIM_BYTES, Inbox, Receiver
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


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(lambda: None)


async def test_unclaimed_data_of_one_source_is_joined_and_kept_in_order(inbox: Inbox) -> None:
    for source, data in ((A, b"1"), (A, b"23"), (B, b"4"), (A, b"5")):
        inbox.deliver(source, data)
    with assert_checkpoints():
        assert await inbox.receive() == (A, b"123")
    assert await inbox.receive() == (B, b"4")
    assert await inbox.receive() == (A, b"5")


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
    assert await inbox.receive() == (B, b"2")


async def test_a_second_claim_is_refused(inbox: Inbox) -> None:
    inbox.claim(A, Noted())
    with pytest.raises(trio.BusyResourceError, match="A is claimed by an open stream; close that one first"):
        inbox.claim(A, Noted())
    inbox.claim_rest(Noted())
    with pytest.raises(trio.BusyResourceError, match="close it first"):
        inbox.claim_rest(Noted())


async def test_a_released_claim_hears_no_more(inbox: Inbox) -> None:
    of_a, rest = Noted(), Noted()
    inbox.claim(A, of_a)
    inbox.claim_rest(rest)
    inbox.release(of_a)
    inbox.deliver(A, b"1")
    assert (of_a.heard, rest.heard) == ([], [(A, b"1")])
    inbox.release(rest)
    inbox.deliver(A, b"2")
    assert await inbox.receive() == (A, b"2")
    assert inbox.holder(A) is None


async def test_events_reach_whoever_holds_their_subject(inbox: Inbox) -> None:
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


async def test_it_is_full_while_any_claim_is(inbox: Inbox, nursery: trio.Nursery) -> None:
    claim = Noted()
    inbox.claim(A, claim)
    inbox.deliver(A, bytes(CLAIM_BYTES - 1))
    assert not inbox.is_full
    inbox.deliver(A, b"1")
    inbox.deliver(B, bytes(CLAIM_BYTES))
    await inbox.receive()
    assert inbox.is_full
    nursery.start_soon(inbox.wait_relief)
    await wait_all_tasks_blocked()
    inbox.release(claim)
    assert not inbox.is_full


async def test_whatever_is_taken_out_is_a_relief(inbox: Inbox, nursery: trio.Nursery) -> None:
    inbox.deliver(A, b"1")
    nursery.start_soon(inbox.wait_relief)
    await wait_all_tasks_blocked()
    await inbox.receive()


async def test_a_closing_inbox_keeps_nothing_and_is_never_full(inbox: Inbox, nursery: trio.Nursery) -> None:
    inbox.deliver(A, bytes(CLAIM_BYTES))
    nursery.start_soon(inbox.wait_relief)
    await wait_all_tasks_blocked()
    inbox.discard()
    assert not inbox.is_full
    inbox.deliver(A, b"1")
    with trio.move_on_after(0):
        await inbox.receive()
        raise AssertionError("something was kept")


async def test_one_task_receives_at_a_time(inbox: Inbox, nursery: trio.Nursery) -> None:
    nursery.start_soon(inbox.receive)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError, match="one task receives"):
        await inbox.receive()
    inbox.deliver(A, b"1")


async def test_a_cancelled_receiver_takes_nothing(inbox: Inbox) -> None:
    inbox.deliver(A, b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.receive()
    assert await inbox.receive() == (A, b"1")


async def test_a_receiver_is_told_of_the_end_once_everything_is_received() -> None:
    def over() -> None:
        raise KeyError("over")

    inbox = Inbox(over)
    inbox.deliver(A, b"1")
    assert await inbox.receive() == (A, b"1")
    with pytest.raises(KeyError, match="over"):
        await inbox.receive()
