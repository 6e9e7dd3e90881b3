"""Who is there, and what became of frames that did not arrive."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.client.waiting import woken
from triorelay.client import ConnectionEvent, Events, NotDelivered
from triorelay.client._presence import EVENTS_KEPT, Presence
from triorelay.protocol import CloseReason, Event, EventCode

A, B, C = b"ABC"


def joined(id: int) -> Event:
    return Event(EventCode.JOINED, id)


def left(id: int) -> Event:
    return Event(EventCode.LEFT, id)


def no_route(id: int) -> Event:
    return Event(EventCode.NO_ROUTE, id)


def dropped(id: int) -> Event:
    return Event(EventCode.DROPPED, id)


@pytest.fixture
def presence() -> Presence:
    presence = Presence(lambda: None, lambda: None)
    presence.own = A
    return presence


def subscribe(presence: Presence) -> Events:
    return presence.subscribe()


def test_peers_are_the_other_connected_clients(presence: Presence) -> None:
    for event in (joined(A), joined(B), joined(C), left(B)):
        presence.apply(event)
    assert presence.peers == {"C"}
    assert A in presence.there
    assert B not in presence.there


async def test_every_subscriber_gets_the_events_from_then_on(presence: Presence) -> None:
    presence.apply(joined(B))
    one, other = subscribe(presence), subscribe(presence)
    presence.apply(left(B))
    presence.apply(Event(EventCode.DRAINING, 0))
    for events in (one, other):
        with assert_checkpoints():
            assert await anext(events) == left(B)
        assert await anext(events) == Event(EventCode.DRAINING, 0)


async def test_its_own_join_and_leave_are_no_events(presence: Presence) -> None:
    events = subscribe(presence)
    presence.apply(joined(A))
    presence.apply(joined(B))
    assert await anext(events) == joined(B)


async def test_a_subscriber_waits_for_events(presence: Presence) -> None:
    events, heard = subscribe(presence), list[Event]()

    async def wait() -> None:
        heard.append(await anext(aiter(events)))

    async with woken(wait):
        presence.apply(joined(B))
    assert heard == [joined(B)]


async def test_a_join_wakes_the_tasks_that_wait_for_it(presence: Presence) -> None:
    async with woken(presence.changed.park):
        presence.apply(joined(B))


async def test_one_task_reads_an_iterator(presence: Presence, nursery: trio.Nursery) -> None:
    events = subscribe(presence)
    nursery.start_soon(anext, events)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError, match=r"call events\(\) for itself"):
        await anext(events)
    presence.apply(joined(B))


async def test_a_subscriber_that_falls_behind_gets_what_was_kept_and_an_error(presence: Presence) -> None:
    events = subscribe(presence)
    for _ in range(EVENTS_KEPT + 1):
        presence.apply(joined(B))
    assert await anext(events) == joined(B)
    presence.apply(left(B))
    for _ in range(EVENTS_KEPT - 1):
        assert await anext(events) == joined(B)
    with pytest.raises(trio.BrokenResourceError, match="look at peers"):
        await anext(events)


def test_a_forgotten_subscriber_costs_nothing(presence: Presence) -> None:
    subscribe(presence)
    gc.collect()
    presence.apply(joined(B))
    assert not list(presence._subscribers)


async def test_a_loss_reports_unconfirmed_frames_and_all_clients_that_were_connected(presence: Presence) -> None:
    for id in (A, B, C):
        presence.apply(joined(id))
    events = subscribe(presence)
    presence.lose(CloseReason.RESET, [C])
    told = [await anext(events) for _ in range(4)]
    assert told == [Event(ConnectionEvent.LOST, CloseReason.RESET), dropped(C), left(B), left(C)]
    assert presence.peers == frozenset()


async def test_a_loss_counts_as_reported_when_it_is_read_and_not_before() -> None:
    reported = list[str]()
    presence = Presence(lambda: None, lambda: reported.append("loss"))
    events = presence.subscribe()
    presence.apply(joined(B))
    presence.lose(CloseReason.RESET, [])
    assert await anext(events) == joined(B)
    assert reported == []
    assert await anext(events) == Event(ConnectionEvent.LOST, CloseReason.RESET)
    assert reported == ["loss"]
    assert await anext(events) == left(B)
    assert reported == ["loss"]


def test_a_new_relay_is_asked_again_for_an_id_that_no_client_held(presence: Presence) -> None:
    presence.apply(no_route(B))
    with pytest.raises(NotDelivered):
        presence.check_delivered()
    presence.lose(CloseReason.RESET, [])
    presence.check_delivered(B)


def test_lost_frames_are_raised_once_each_in_order(presence: Presence) -> None:
    presence.check_delivered(B)
    presence.apply(dropped(C))
    presence.apply(no_route(B))
    for id, code in (("C", EventCode.DROPPED), ("B", EventCode.NO_ROUTE)):
        with pytest.raises(NotDelivered) as caught:
            presence.check_delivered()
        assert (caught.value.id, caught.value.code) == (id, code)
    presence.check_delivered()


def test_what_an_exception_has_reported_is_not_raised_again(presence: Presence) -> None:
    presence.apply(dropped(B))
    presence.apply(dropped(C))
    presence.drop_reported(B)
    presence.drop_reported(A)
    with pytest.raises(NotDelivered) as caught:
        presence.check_delivered()
    assert caught.value.id == "C"
    presence.check_delivered()


async def test_every_waiting_task_checks_the_state_again_when_it_is_woken() -> None:
    is_closed = False

    def check() -> None:
        if is_closed:
            raise trio.ClosedResourceError

    presence = Presence(check, lambda: None)
    events = presence.subscribe()

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await anext(events)

    async with woken(read, presence.changed.park):
        is_closed = True
        presence.changed.unpark_all()


def test_an_absent_id_is_refused_until_a_client_joins(presence: Presence) -> None:
    presence.apply(no_route(B))
    for _ in range(3):
        with pytest.raises(NotDelivered, match="no client holds the id B"):
            presence.check_delivered(B)
    presence.check_delivered(C)
    presence.apply(joined(B))
    presence.check_delivered(B)
    presence.apply(left(B))
    presence.check_delivered(B)


def test_an_id_that_is_there_is_not_refused(presence: Presence) -> None:
    presence.apply(joined(B))
    presence.apply(no_route(B))
    with pytest.raises(NotDelivered):
        presence.check_delivered(B)
    presence.check_delivered(B)


def test_no_codes_of_its_own_can_be_a_relays() -> None:
    assert all(code > 255 for code in ConnectionEvent)


def test_what_the_client_itself_tells_reads_like_what_the_relay_tells() -> None:
    assert str(Event(ConnectionEvent.LOST, CloseReason.DRAINING)) == "LOST draining"
    assert str(Event(ConnectionEvent.RESTORED, A)) == "RESTORED A"
