"""Sending, losing the relay, coming back, leaving."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.client.scripted import Script, ScriptedRelay, event
from triorelay.client import Backoff, Client, ConnectionEvent, Events, NotDelivered, open_client
from triorelay.client._link import CLOSE_TIMEOUT, PIECE
from triorelay.client._reconnect import SETTLED, TAKEN_PATIENCE
from triorelay.protocol import (
    CallKind,
    CallMessage,
    CloseReason,
    ConnectionLost,
    Event,
    EventCode,
    HelloRefused,
    Refusal,
    RemoteProtocolError,
    address_frames,
    encode_message,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from triorelay.testing import MemoryRelay

A, B, C = b"ABC"
AGAIN = Backoff(first=1, factor=2, maximum=8, jitter=0)


def closing(reason: CloseReason) -> bytes:
    return event(EventCode.CLOSING, reason)


# -- sending


async def test_frames_of_any_number_arrive_in_order(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    data = bytes(range(256)) * 1024
    async with scripted.client() as (client, script):
        nursery.start_soon(client.send, "B", data)
        found = await script.read(2 * len(data))
        assert found[0::2] == b"B" * len(data)
        assert found[1::2] == data


async def test_several_tasks_send_without_mixing_frames(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    async with scripted.client() as (client, script):
        for id in b"BCD":
            nursery.start_soon(client.send, id, bytes((id,)) * 3 * PIECE)
        found = await script.read(2 * 9 * PIECE)
        assert found[0::2] == found[1::2]
        assert all(found.count(id) == 2 * 3 * PIECE for id in b"BCD")


async def test_a_cancelled_send_leaves_whole_frames_and_a_usable_client(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script):
        resume = script.take_no_more()
        async with trio.open_nursery() as sender:
            sender.start_soon(client.send, "B", bytes(10 * PIECE))
            await wait_all_tasks_blocked()
            sender.cancel_scope.cancel()
        resume()
        await client.send("B", b"\x01")
        sent = bytearray()
        while not sent.endswith(b"B\x01"):
            sent += await script.read(2)
        assert set(sent[0::2]) == {B}
        assert 2 * PIECE < len(sent) < 2 * 10 * PIECE


async def test_a_small_send_that_is_cancelled_at_once_sends_nothing(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script), client.messages() as messages:
        for send in (client.send, messages.send):
            with trio.CancelScope() as scope:
                scope.cancel()
                await send("B", b"1")
            with assert_checkpoints():
                await send("C", b"2")
        assert await script.read(2) == b"C2"
        message = address_frames(C, b"\0" + encode_message(b"2"))
        assert await script.read(len(message)) == message


async def test_messages_wait_for_room(scripted: ScriptedRelay) -> None:
    async with scripted.client(goodbye=False) as (client, script), client.messages() as messages:
        script.take_no_more()
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < 100:
                await messages.send("B", bytes(PIECE))
                sent += 1

        async with trio.open_nursery() as sending:
            sending.start_soon(send)
            await wait_all_tasks_blocked()
            assert sent < 10
            sending.cancel_scope.cancel()
        await script.hang_up()
        with pytest.raises(ConnectionLost):
            messages.send_nowait("B", b"1")


async def test_messages_after_a_dropped_one_ask_no_flush(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script), client.messages() as messages:
        await script.say(event(EventCode.DROPPED, B))
        await messages.send("B", b"1")
        message = address_frames(B, b"\0" + encode_message(b"1"))
        assert await script.read(len(message)) == message


# -- losing the relay for good


async def drain_events(client: Client) -> None:
    async for _ in client.events():
        pass


@pytest.mark.parametrize(
    "wait",
    [
        Client.receive,
        Client.flush,
        Client.ping,
        drain_events,
        lambda client: client.wait_for("Z"),
        lambda client: client.messages().receive(),
        lambda client: client.send("B", bytes(10 * PIECE)),
    ],
    ids=["receive", "flush", "ping", "events", "wait_for", "messages", "send"],
)
async def test_a_task_that_waits_when_the_relay_ends_gets_an_error(
    scripted: ScriptedRelay, wait: Callable[[Client], Awaitable[object]]
) -> None:
    async with scripted.client(goodbye=False) as (client, script):
        script.take_no_more()
        async with trio.open_nursery() as waiting:

            async def run() -> None:
                with pytest.raises(ConnectionLost):
                    await wait(client)

            waiting.start_soon(run)
            await wait_all_tasks_blocked()
            await script.hang_up()
        with pytest.raises(ConnectionLost):
            await client.send("B", b"1")


async def test_leaving_reports_unconfirmed_frames_that_were_not_reported_before(scripted: ScriptedRelay) -> None:
    async def run() -> None:
        async with scripted.client(goodbye=False) as (client, script):
            await client.send("B", b"1")
            await script.hang_up()

    with pytest.raises(ConnectionLost):
        await run()


async def test_leaving_says_nothing_where_everything_was_confirmed(
    scripted: ScriptedRelay, nursery: trio.Nursery
) -> None:
    async with scripted.client(goodbye=False) as (client, script):
        await client.send("B", b"1")
        nursery.start_soon(script.answer_flush)
        await client.flush()
        await script.hang_up()


async def test_leaving_does_not_tell_twice(scripted: ScriptedRelay) -> None:
    async with scripted.client(goodbye=False) as (client, script):
        await client.send("B", b"1")
        await script.hang_up()
        with pytest.raises(ConnectionLost):
            await client.receive()


async def test_the_relay_that_goes_while_the_client_leaves(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    async def go(script: Script) -> None:
        await script.read(4)
        await script.say(closing(CloseReason.DRAINING))
        await script.hang_up()

    async def run() -> None:
        async with scripted.client(goodbye=False) as (client, script):
            await client.send("B", b"1")
            nursery.start_soon(go, script)

    with pytest.raises(ConnectionLost) as caught:
        await run()
    assert caught.value.reason == CloseReason.DRAINING


# -- coming back


async def heard(events: Events, count: int) -> list[Event]:
    return [await anext(events) for _ in range(count)]


async def test_the_same_id_is_claimed_again_after_growing_pauses(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B", reconnect=AGAIN) as (client, script):
        events = client.events()
        scripted.refusing = True
        lost = trio.current_time()
        await script.hang_up()
        assert client.peers == frozenset()
        await trio.sleep(6.5)
        scripted.refusing = False
        await scripted.welcome(b"C")
        assert trio.current_time() - lost == 1 + 2 + 4
        assert client.peers == {"C"}
        assert await heard(events, 4) == [
            Event(ConnectionEvent.LOST, CloseReason.RESET),
            Event(EventCode.LEFT, B),
            Event(EventCode.JOINED, C),
            Event(ConnectionEvent.RESTORED, A),
        ]


async def test_an_id_that_the_relay_chose_is_claimed_again(
    scripted: ScriptedRelay, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def lose_and_welcome_back() -> None:
        script = await scripted.accept()
        await script.welcome(b"\xff", hello=b"\0\x83")
        await script.hang_up()
        script = await scripted.accept()
        await script.welcome(b"\xff", hello=b"\xff\x82", present=b"Z")
        await script.goodbye()

    nursery.start_soon(lose_and_welcome_back)
    async with open_client(scripted.connect, reconnect=AGAIN) as client:
        await client.wait_for("Z")
        assert client.id == "\xff"


async def test_a_send_waits_for_the_next_connection(
    scripted: ScriptedRelay, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        await script.hang_up()
        nursery.start_soon(client.send, "B", b"1")
        await wait_all_tasks_blocked()
        script = await scripted.welcome()
        assert await script.read(2) == b"B1"


async def test_a_send_fails_meanwhile_if_asked_to(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    async with scripted.client(reconnect=Backoff(sends="fail")) as (client, script):
        await script.hang_up()
        for call in (client.send("B", b"1"), client.flush()):
            with pytest.raises(ConnectionLost, match="nothing of this was sent"):
                await call
        script = await scripted.welcome()
        await client.send("B", b"2")
        assert await script.read(2) == b"B2"


async def test_frames_that_were_queued_are_never_carried_over(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        events = client.events()
        script.take_no_more()
        for id in (B, C):
            await client.send(id, b"1")
        await script.hang_up()
        script = await scripted.welcome()
        await client.send("B", b"2")
        assert await script.read(2) == b"B2"
        assert await heard(events, 3) == [
            Event(ConnectionEvent.LOST, CloseReason.RESET),
            Event(EventCode.DROPPED, B),
            Event(EventCode.DROPPED, C),
        ]
        with pytest.raises(ConnectionLost):
            await client.flush()


async def test_a_send_that_had_begun_fails(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        script.take_no_more()
        async with trio.open_nursery() as sending:

            async def send() -> None:
                with pytest.raises(ConnectionLost, match="part of the data may have arrived"):
                    await client.send("B", bytes(10 * PIECE))

            sending.start_soon(send)
            await wait_all_tasks_blocked()
            await script.hang_up()
        await scripted.welcome()
        with pytest.raises(ConnectionLost):
            await client.flush()


async def test_a_send_fails_with_the_last_words_of_a_relay_that_reads_no_more(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=Backoff(sends="fail")) as (client, script):
        caught: dict[str, ConnectionLost] = {}

        async def send(text: str, data: bytes) -> None:
            with pytest.raises(ConnectionLost, match=text) as raised:
                await client.send("B", data)
            caught[text] = raised.value

        resume = script.take_no_more()
        async with trio.open_nursery() as sending:
            sending.start_soon(send, "part of the data may have arrived", bytes(20 * PIECE))
            await wait_all_tasks_blocked()
            script.stream.receive_stream.close()
            resume()
            await wait_all_tasks_blocked()
            sending.start_soon(send, "nothing of this was sent", b"1")
            await wait_all_tasks_blocked()
            assert not caught
            await script.say(closing(CloseReason.DRAINING))
            await script.hang_up()
        assert caught["part of the data may have arrived"].reason == CloseReason.DRAINING
        assert caught["nothing of this was sent"].when == 0
        await scripted.welcome()


async def test_a_strict_send_reports_what_may_be_lost_and_then_continues(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN, strict=True) as (client, script):
        await client.send("B", b"1")
        await script.hang_up()
        script = await scripted.welcome()
        with pytest.raises(NotDelivered, match="frames to B were lost"):
            await client.send("C", b"2")
        await client.send("C", b"3")
        assert await script.read(2) == b"C3"
        with pytest.raises(ConnectionLost):
            await client.flush()


async def test_receiving_continues(scripted: ScriptedRelay, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        received: list[tuple[str, bytes]] = []

        async def receive() -> None:
            received.append(await client.receive())
            received.append(await client.receive())

        nursery.start_soon(receive)
        await script.say(b"B1C")
        await script.hang_up()
        script = await scripted.welcome()
        await script.say(b"B2")
        assert received == [("B", b"1"), ("B", b"2")]


async def test_an_id_that_is_still_taken_is_claimed_for_forty_seconds(
    scripted: ScriptedRelay, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def refuse_forever() -> None:
        while True:
            await (await scripted.accept()).say(bytes((A, Refusal.TAKEN)))

    async with scripted.client(goodbye=False, reconnect=AGAIN) as (client, script):
        await trio.sleep(100)
        lost = trio.current_time()
        await script.hang_up()
        nursery.start_soon(refuse_forever)
        with pytest.raises(HelloRefused) as caught:
            await client.receive()
        assert (caught.value.id, caught.value.code) == ("A", Refusal.TAKEN)
        assert TAKEN_PATIENCE <= trio.current_time() - lost <= TAKEN_PATIENCE + AGAIN.maximum
        with pytest.raises(HelloRefused):
            await client.send("B", b"1")


async def test_a_relay_that_welcomes_and_hangs_up_at_once_is_asked_after_growing_pauses(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (_, script):
        pauses = []
        for _ in range(6):
            lost = trio.current_time()
            await script.hang_up()
            script = await scripted.welcome()
            pauses.append(trio.current_time() - lost)
        assert pauses == [1, 2, 4, 8, 8, 8]


async def test_after_a_session_that_lasted_the_pauses_are_short_again(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (_, script):
        pauses = []
        for _ in range(3):
            await trio.sleep(SETTLED)
            lost = trio.current_time()
            await script.hang_up()
            script = await scripted.welcome()
            pauses.append(trio.current_time() - lost)
        assert pauses == [1, 1, 1]


async def test_a_replaced_client_does_not_come_back(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    async with scripted.client(goodbye=False, reconnect=AGAIN) as (client, script):
        await script.say(closing(CloseReason.REPLACED))
        await script.hang_up()
        for call in (client.receive(), client.send("B", b"1"), client.flush()):
            with pytest.raises(ConnectionLost) as caught:
                await call
            assert caught.value.reason == CloseReason.REPLACED
        with trio.move_on_after(100) as none_came:
            await scripted.accept()
        assert none_came.cancelled_caught


@pytest.mark.parametrize("refusal", [Refusal.NOT_ALLOWED, Refusal.AUTHENTICATION])
async def test_a_client_that_a_new_policy_denied_waits_for_one_that_allows_it(
    scripted: ScriptedRelay, autojump_clock: MockClock, refusal: Refusal
) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        await script.say(closing(CloseReason.DENIED))
        await script.hang_up()
        with trio.fail_after(100):
            for _ in range(10):
                await (await scripted.accept()).say(bytes((A, refusal)))
            script = await scripted.welcome()
        await client.send("B", b"1")
        assert await script.read(2) == b"B1"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(bytes((A, Refusal.NOT_ALLOWED)), HelloRefused), (b"HTTP", RemoteProtocolError)],
    ids=["refused", "no relay"],
)
async def test_a_lasting_refusal_ends_the_client(
    scripted: ScriptedRelay, autojump_clock: MockClock, answer: bytes, error: type[Exception]
) -> None:
    async with scripted.client(goodbye=False, reconnect=AGAIN) as (client, script):
        await script.hang_up()
        scripted.serve(lambda script: script.say(answer))
        for _ in range(2):
            with pytest.raises(error):
                await client.receive()


async def test_an_attempt_that_fails_half_way_leaves_no_client_present(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        await script.hang_up()
        script = await scripted.accept()
        await script.say(b"A\0", event(EventCode.JOINED, B))
        assert client.peers == {"B"}
        await script.hang_up()
        assert client.peers == frozenset()
        await scripted.welcome(b"C")
        assert client.peers == {"C"}


async def test_leaving_while_away_does_not_wait(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    async with scripted.client(goodbye=False, reconnect=AGAIN) as (_, script):
        await script.hang_up()
        start = trio.current_time()
    assert trio.current_time() == start


async def test_leaving_while_away_tells_of_unconfirmed_frames(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async def run() -> None:
        async with scripted.client(goodbye=False, reconnect=AGAIN) as (client, script):
            await client.send("B", b"1")
            await script.hang_up()

    with pytest.raises(ConnectionLost):
        await run()


# -- leaving


async def test_leaving_flushes_shuts_the_sending_side_and_reads_to_the_end(
    scripted: ScriptedRelay, nursery: trio.Nursery
) -> None:
    steps = []

    async def take_leave(script: Script) -> None:
        assert await script.read(6) == b"B1" + event(EventCode.FLUSH, 1)
        await script.say(bytes(2 * PIECE), event(EventCode.FLUSHED, 1))
        assert await script.stream.receive_some() == b""
        await script.say(b"B2")
        steps.append("relay ends")
        await script.hang_up()

    async with scripted.client(goodbye=False) as (client, script):
        await client.send("B", b"1")
        nursery.start_soon(take_leave, script)
    steps.append("client left")
    assert steps == ["relay ends", "client left"]


async def test_leaving_is_bounded_and_reports_unconfirmed_frames(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    with pytest.raises(ConnectionLost, match=r"not all written within 30 s; flush\(\) before leaving waits longer"):
        async with scripted.client(goodbye=False) as (client, _):
            await client.send("B", b"1")
    assert trio.current_time() - start == CLOSE_TIMEOUT


async def test_leaving_is_silent_where_only_the_end_of_file_is_missing(
    scripted: ScriptedRelay, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    async with scripted.client(goodbye=False) as (client, script):
        await client.send("B", b"1")
        nursery.start_soon(script.answer_flush)
    assert trio.current_time() - start == CLOSE_TIMEOUT


async def test_a_full_claim_does_not_hold_up_leaving(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (_, script):
        await script.say(b"B1" * 200_000)


async def test_while_the_client_leaves_nothing_more_is_sent(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    async with scripted.client(goodbye=False) as (client, script), client.messages() as messages:
        await client.send("B", b"1")
        nursery.start_soon(client.aclose)
        await wait_all_tasks_blocked()
        for call in (client.send("B", b"2"), messages.send("B", b"2"), client.flush(), client.ping()):
            with trio.fail_after(5), pytest.raises(trio.ClosedResourceError):
                await call
        assert await script.goodbye() == b"B1"


async def test_everything_is_closed_after_leaving(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, _):
        events, channel, stream = client.events(), client.messages(), client.stream("B")
    calls: list[Callable[[], object]] = [
        lambda: client.send("B", b"1"),
        client.receive,
        client.flush,
        client.ping,
        lambda: client.wait_for("A"),
        lambda: anext(events),
        channel.receive,
        lambda: channel.send("B", b"1"),
        lambda: stream.send_all(b"1"),
        stream.receive_some,
    ]
    for call in calls:
        with pytest.raises(trio.ClosedResourceError):
            await call()  # type: ignore[misc]
    for open_again in (client.messages, lambda: client.stream("C")):
        with pytest.raises(trio.ClosedResourceError):
            open_again()
    await client.aclose()


@pytest.mark.parametrize(
    "wait",
    [
        Client.receive,
        drain_events,
        lambda client: client.wait_for("Z"),
        lambda client: client.messages().receive(),
        lambda client: client.channel("B").receive(),
        lambda client: client.stream("B").receive_some(),
    ],
    ids=["receive", "events", "wait_for", "messages", "channel", "stream"],
)
async def test_a_task_that_waits_when_the_client_leaves_gets_an_error(
    scripted: ScriptedRelay, wait: Callable[[Client], Awaitable[object]]
) -> None:
    told = False

    async def run() -> None:
        nonlocal told
        with pytest.raises(trio.ClosedResourceError):
            await wait(client)
        told = True

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, scripted.client(b"B") as (client, _):
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
    assert told


async def test_a_strict_client_gets_the_error_when_it_leaves(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    async def lose(script: Script) -> None:
        await script.read(2)
        await script.say(event(EventCode.NO_ROUTE, B))
        await script.goodbye()

    async def run() -> None:
        async with scripted.client(goodbye=False, strict=True) as (client, script):
            await client.send("B", b"1")
            nursery.start_soon(lose, script)

    with pytest.raises(NotDelivered):
        await run()


# -- what leaving tells, and what it leaves to others


@pytest.mark.parametrize("flushes", [False, True])
async def test_leaving_tells_when_it_was_and_that_the_connection_stands_again(
    scripted: ScriptedRelay, autojump_clock: MockClock, flushes: bool
) -> None:
    async def run() -> None:
        async with scripted.client(reconnect=AGAIN) as (client, script):
            await client.send("B", b"1")
            await script.hang_up()
            script = await scripted.welcome()
            await trio.sleep(1)
            await client.send("B", b"2")
            await script.hang_up()
            await scripted.welcome()
            if flushes:
                await client.flush()

    with pytest.raises(ConnectionLost) as caught:
        await run()
    # Of the two losses it tells of the first, after which the pauses were 1 s and 2 s.
    assert (round(caught.value.when), caught.value.restored) == (4, True)
    assert re.fullmatch(
        r"the connection to the relay ended 4\.\d s ago: it was closed by the relay or on the way to it, and was made "
        "again; what was sent before may not have arrived",
        str(caught.value),
    )


async def test_a_loss_that_is_reported_late_says_when_it_was(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(goodbye=False) as (client, script):
        await script.hang_up()
        await trio.sleep(3)
        for ago in (3, 5):
            with pytest.raises(ConnectionLost, match=f"ended {ago}\\.0 s ago: ") as caught:
                await client.receive()
            assert (round(caught.value.when), caught.value.restored) == (ago, False)
            await trio.sleep(2)


async def test_leaving_does_not_report_a_loss_that_an_event_reported(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        events = client.events()
        await client.send("B", b"1")
        await script.hang_up()
        await scripted.welcome()
        assert (await anext(events)).code == ConnectionEvent.LOST


async def test_leaving_does_not_report_a_loss_that_an_exception_reported(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=Backoff(first=1, jitter=0, sends="fail")) as (client, script):
        await client.send("B", b"1")
        await script.hang_up()
        with pytest.raises(ConnectionLost):
            await client.send("B", b"2")
        await scripted.welcome()


async def test_leaving_does_not_report_a_loss_that_a_send_in_the_middle_reported(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=AGAIN) as (client, script):
        script.take_no_more()
        async with trio.open_nursery() as sending:

            async def send() -> None:
                with pytest.raises(ConnectionLost):
                    await client.send("B", bytes(10 * PIECE))

            sending.start_soon(send)
            await wait_all_tasks_blocked()
            await script.hang_up()
        await scripted.welcome()


@pytest.mark.parametrize("later", [b"", b"later"])
async def test_a_reply_proves_that_what_was_sent_before_arrived_and_nothing_of_what_came_later(
    scripted: ScriptedRelay, autojump_clock: MockClock, later: bytes
) -> None:
    async def run() -> None:
        async with scripted.client(b"B", reconnect=AGAIN) as (client, script), client.calls() as calls:
            await client.send("B", b"1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(calls.call, "B", b"question")
                await wait_all_tasks_blocked()
                await client.send("B", later)
                (number,) = calls._board.open
                reply = encode_message(CallMessage(CallKind.REPLY, number, b"answer").encode())
                await script.say(bytes(address_frames(B, reply)))
            await script.hang_up()
            await scripted.welcome(b"B")

    if later:
        with pytest.raises(ConnectionLost):
            await run()
    else:
        await run()


async def test_a_client_that_comes_back_keeps_asking_what_has_arrived(relay: MemoryRelay) -> None:
    async with relay.open_client("A", reconnect=Backoff()) as a, relay.open_client("B"):
        session = a._link._session
        assert session is not None
        for _ in range(2):
            await a.send("B", b"1")
            assert session.unconfirmed
            with trio.fail_after(5):
                while session.unconfirmed:
                    await a.ping()
    async with relay.open_client("A") as a, relay.open_client("B"):
        await a.send("B", b"1")
        await a.ping()
        session = a._link._session
        assert session is not None
        assert session.unconfirmed


# -- the first connection


async def test_the_first_connection_is_tried_once_without_initial(scripted: ScriptedRelay) -> None:
    scripted.refusing = True
    with trio.fail_after(60), pytest.raises(OSError, match="no relay listens"):
        async with open_client(scripted.connect, "A", reconnect=Backoff(first=0)):
            raise AssertionError


async def test_the_first_connection_is_tried_again_with_initial(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    scripted.refusing = True
    opened = trio.Event()

    async def run() -> None:
        async with open_client(scripted.connect, "A", reconnect=Backoff(first=1, jitter=0, initial=True)):
            opened.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(10)
            assert not opened.is_set()
            scripted.refusing = False
            script = await scripted.accept()
            await script.read(2)
            await script.say(b"A", bytes((Refusal.FULL,)))
            script = await scripted.welcome()
            await opened.wait()
            await script.goodbye()


@pytest.mark.parametrize("code", [Refusal.AUTHENTICATION, Refusal.NOT_ALLOWED, Refusal.BAD_HELLO])
async def test_a_lasting_refusal_ends_the_first_connection_too(
    scripted: ScriptedRelay, autojump_clock: MockClock, code: Refusal
) -> None:
    async def refuse(script: Script) -> None:
        await script.read(2)
        await script.say(b"A", bytes((code,)))

    scripted.serve(refuse)
    with trio.fail_after(60), pytest.raises(HelloRefused):
        async with open_client(scripted.connect, "A", reconnect=Backoff(initial=True)):
            raise AssertionError


async def test_two_hundred_clients_come_back_without_a_storm(relay: MemoryRelay, autojump_clock: MockClock) -> None:
    away, attempts = False, list[float]()

    async def connect() -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        if away:
            attempts.append(trio.current_time())
            raise ConnectionRefusedError("no relay listens")
        return relay.connect()

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_client(connect, id, reconnect=Backoff(maximum=5)))
            for id in range(1, 201)
        ]
        away, gone = True, trio.current_time()
        for client in clients:
            relay.relay.close_client(ord(client.id))
        await trio.sleep(30)
        away = False
        # By then each comes every 5 s, give or take a fifth: of 200, about 4 in a tenth of a second.
        tenths = Counter(int(10 * (time - gone)) for time in attempts if time - gone > 15)
        assert max(tenths.values()) <= 20
        assert len(attempts) <= 200 * (8 + 30 / 4)
        with trio.fail_after(20):
            for client in clients:
                await client.ping()
