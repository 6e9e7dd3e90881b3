"""One connection, from the hello to its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.client.scripted import Script, ScriptedRelay, event
from triorelay.client import Backoff, ConnectionEvent, open_client
from triorelay.client._inbox import CLAIM_BYTES
from triorelay.client._session import LAST_WORDS
from triorelay.protocol import (
    CloseReason,
    ConnectionLost,
    Event,
    EventCode,
    HelloRefused,
    Refusal,
    RemoteProtocolError,
    address_frames,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client.conftest import Listen

A, B = b"AB"
SYNCED = event(EventCode.SYNCED)


def say(*parts: bytes) -> Callable[[Script], Awaitable[None]]:
    return lambda script: script.say(*parts)


def answer_hello(*parts: bytes) -> Callable[[Script], Awaitable[None]]:
    async def answer(script: Script) -> None:
        await script.read(2)
        await script.say(*parts)

    return answer


async def hear_goodbye(script: Script) -> None:
    await script.goodbye()


async def welcome(script: Script) -> None:
    await script.welcome()


async def open_briefly(relay: ScriptedRelay, **options: object) -> None:
    async with open_client(relay.connect, **options):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("options", "hello", "welcome"),
    [
        ({"id": "A"}, b"A\x82", b"A"),
        ({"id": 255}, b"\xff\x82", b"\xff"),
        ({}, b"\0\x83", b"\xff"),
        ({"observer": True}, b"\0\x82", b"\0"),
        ({"id": b"A", "token": "secret"}, b"A\x86\x06secret", b"A"),
        ({"token": b"\xff"}, b"\0\x87\x01\xff", b"\x80"),
    ],
)
async def test_the_hello_asks_for_what_is_wanted(
    scripted: ScriptedRelay, nursery: trio.Nursery, options: dict[str, object], hello: bytes, welcome: bytes
) -> None:
    scripted.serve(lambda script: script.welcome(welcome, hello=hello), hear_goodbye)
    await open_briefly(scripted, **options)


async def test_an_answer_may_come_in_any_split(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    async def answer(script: Script) -> None:
        await script.read(2)
        for byte in b"A\0" + event(EventCode.JOINED, A) + event(EventCode.JOINED, B) + SYNCED:
            await script.say(bytes((byte,)))
            await wait_all_tasks_blocked()

    scripted.serve(answer, hear_goodbye)
    await open_briefly(scripted, id="A")


async def test_it_counts_as_open_once_everybody_present_is_known(
    scripted: ScriptedRelay, nursery: trio.Nursery
) -> None:
    opened = []

    async def run() -> None:
        async with open_client(scripted.connect, "A") as client:
            opened.append(client.peers)

    nursery.start_soon(run)
    script = await scripted.accept()
    await script.say(b"A\0", event(EventCode.JOINED, A), event(EventCode.JOINED, B))
    await wait_all_tasks_blocked()
    assert not opened
    await script.say(SYNCED)
    await wait_all_tasks_blocked()
    assert opened == [{"B"}]
    await script.goodbye()


@pytest.mark.parametrize("code", [*range(1, 8), 77])
async def test_a_refusal_names_id_and_reason(scripted: ScriptedRelay, nursery: trio.Nursery, code: int) -> None:
    scripted.serve(answer_hello(bytes((A, code))))
    with pytest.raises(HelloRefused, match="refused id A: ") as caught:
        await open_briefly(scripted, id="A")
    assert (caught.value.id, caught.value.code) == ("A", code)


async def test_a_refusal_of_any_id(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    scripted.serve(answer_hello(bytes((0, Refusal.FULL))))
    with pytest.raises(HelloRefused, match="refused id any: the relay is full"):
        await open_briefly(scripted)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400", b"B\0", b"SSH-2.0", b"\0\0"])
async def test_another_server_is_no_relay(scripted: ScriptedRelay, nursery: trio.Nursery, answer: bytes) -> None:
    scripted.serve(answer_hello(answer))
    with pytest.raises(RemoteProtocolError, match="what answered is no relay"):
        await open_briefly(scripted, id="A")


@pytest.mark.parametrize(("options", "answer"), [({}, b"\0\0"), ({"observer": True}, b"A\0")])
async def test_only_an_observer_is_welcomed_without_an_id(
    scripted: ScriptedRelay, nursery: trio.Nursery, options: dict[str, object], answer: bytes
) -> None:
    scripted.serve(answer_hello(answer))
    with pytest.raises(RemoteProtocolError, match="is no answer to a hello"):
        await open_briefly(scripted, **options)


@pytest.mark.parametrize("said", [b"", b"A", b"A\0", b"A\0\0\x01"])
async def test_a_relay_that_hangs_up_before_its_welcome(
    scripted: ScriptedRelay, nursery: trio.Nursery, said: bytes
) -> None:
    scripted.serve(answer_hello(said))
    with pytest.raises(ConnectionLost, match="before the welcome; the relay's log says why"):
        await open_briefly(scripted, id="A")


async def test_a_connection_that_breaks_during_the_hello(scripted: ScriptedRelay) -> None:
    async def connect() -> trio.abc.HalfCloseableStream:
        stream = await scripted.connect()
        await (await scripted.accept()).stream.aclose()
        return stream

    with pytest.raises(ConnectionLost):
        async with open_client(connect, "A"):
            pass


async def test_frames_that_come_with_the_welcome_are_received(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    scripted.serve(say(b"A\0", event(EventCode.JOINED, A), SYNCED, b"B1B"), say(b"2"), hear_goodbye)
    async with open_client(scripted.connect, "A") as client:
        assert await client.receive() == ("B", b"1")
        assert await client.receive() == ("B", b"2")


async def test_events_of_codes_unknown_to_it_are_passed_on(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script):
        events = client.events()
        await script.say(event(200, 7), event(EventCode.DRAINING))
        assert await anext(events) == Event(200, 7)
        assert await anext(events) == Event(EventCode.DRAINING, 0)


@pytest.mark.parametrize(
    ("said", "reason", "text"),
    [
        (event(EventCode.CLOSING, CloseReason.SLOW_CONSUMER), CloseReason.SLOW_CONSUMER, "ended: slow consumer"),
        (event(EventCode.CLOSING, 250), CloseReason.RESET, "closed by the relay"),
        (b"", CloseReason.RESET, "closed by the relay"),
        (b"\0\x01B1", CloseReason.RESET, "between the two frames of an event"),
    ],
)
async def test_a_loss_has_the_reason_that_the_relay_gave(
    scripted: ScriptedRelay, nursery: trio.Nursery, said: bytes, reason: CloseReason, text: str
) -> None:
    scripted.serve(welcome, say(said))
    with pytest.raises(ConnectionLost, match=text) as caught:
        async with open_client(scripted.connect, "A") as client:
            await client.receive()
    assert caught.value.reason == reason


async def test_data_that_came_before_a_loss_is_received(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    scripted.serve(welcome, say(b"B1C2"))
    async with open_client(scripted.connect, "A") as client:
        assert await client.receive() == ("B", b"1")
        assert await client.receive() == ("C", b"2")
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await client.receive()


async def test_what_the_relay_said_before_writing_failed_is_read(scripted: ScriptedRelay) -> None:
    async with scripted.client(goodbye=False) as (client, script):
        flood = bytes(address_frames(B, bytes(3 * CLAIM_BYTES)))
        await script.say(flood, event(EventCode.CLOSING, CloseReason.CLOSED))
        await script.hang_up()
        await client.send("B", b"1")
        with pytest.raises(ConnectionLost) as caught:
            await client.flush()
    assert caught.value.reason == CloseReason.CLOSED


async def test_a_relay_that_gives_up_on_a_full_claim_is_noticed(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triorelay.client._session.PROBE_INTERVAL", 0.1)
    listening = await listen(stall_timeout=0.2)
    async with (
        open_client(listening.unix, "A") as a,
        open_client(listening.unix, "C") as c,
        trio.open_nursery() as flooding,
    ):
        flooding.start_soon(c.send, "A", bytes(1_000_000))
        with pytest.raises(ConnectionLost):
            await a.wait_for("Z")
        flooding.cancel_scope.cancel()


async def test_a_relay_that_takes_nothing_and_never_ends_is_given_up(
    scripted: ScriptedRelay, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def stop_reading(script: Script) -> None:
        await script.welcome()
        await script.stream.receive_stream.aclose()
        await trio.sleep_forever()

    scripted.serve(stop_reading)
    async with open_client(scripted.connect, "A") as client:
        await wait_all_tasks_blocked()
        start = trio.current_time()
        with pytest.raises(ConnectionLost):
            await client.ping()
        assert trio.current_time() - start == LAST_WORDS
    nursery.cancel_scope.cancel()


async def test_the_socket_is_not_read_while_a_claim_is_full(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script):
        events = client.events()
        await script.say(bytes(address_frames(B, bytes(2 * CLAIM_BYTES))), event(EventCode.JOINED, B))
        await wait_all_tasks_blocked()
        assert client.peers == frozenset()
        received = 0
        while received < 2 * CLAIM_BYTES:
            source, data = await client.receive()
            received += len(data)
            assert source == "B"
        assert (await anext(events)).id == "B"
        assert client.peers == {"B"}


async def test_a_flush_confirms_what_was_sent_before_it(scripted: ScriptedRelay, nursery: trio.Nursery) -> None:
    async with scripted.client() as (client, script):
        await client.send("B", b"1")
        nursery.start_soon(client.flush)
        await wait_all_tasks_blocked()
        await client.send("C", b"2")
        session = client._link._session
        assert session is not None
        assert await script.answer_flush() == b"B1"
        await wait_all_tasks_blocked()
        assert list(session.unconfirmed) == [ord("C")]


async def test_a_flush_that_no_task_waits_for_any_more_still_confirms(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script):
        await client.send("B", b"1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.flush)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        session = client._link._session
        assert session is not None
        assert session.unconfirmed
        await script.answer_flush()
        await wait_all_tasks_blocked()
        assert not session.unconfirmed


async def test_losses_without_receiving_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triorelay.client._session.PROBE_INTERVAL", 0.01)
    sent, accept = trio.open_memory_channel[trio.SocketStream](1)
    made: list[trio.socket.SocketType] = []

    async def connect() -> trio.SocketStream:
        ours, theirs = trio.socket.socketpair()
        made.extend((ours, theirs))
        await sent.send(trio.SocketStream(ours))
        return trio.SocketStream(theirs)

    async def lose(flood: bool) -> None:
        async with await accept.receive() as relay:
            await relay.send_all(b"A\0" + event(EventCode.SYNCED))
            with trio.move_on_after(0.1 if flood else math.inf):
                while flood:
                    await relay.send_all(b"B1" * 32768)
                await relay.send_all(b"B2")
                await trio.sleep_forever()

    sizes = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, True)
            async with open_client(connect, "A", reconnect=Backoff(first=0.01)) as client:
                events = client.events()
                for _ in range(5):
                    nursery.start_soon(lose, True)
                    while (await anext(events)).code != ConnectionEvent.LOST:
                        pass
                    sizes.append(client._inbox.unclaimed.size)
                assert sizes[0] >= CLAIM_BYTES
                assert sizes == [sizes[0]] * 5
                nursery.start_soon(lose, False)
                received = b""
                while not received.endswith(b"2"):
                    received += (await client.receive())[1]
                client._link.abandon()
                nursery.cancel_scope.cancel()
    # The last connection may have been cancelled while it was made.
    for socket in made:
        socket.close()


async def test_a_full_claim_notices_the_end_of_a_tcp_connection_with_a_closed_window(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triorelay.client._session.PROBE_INTERVAL", 0.1)
    monkeypatch.setattr("triorelay.client._session.INTERVAL", 0.1)
    listening = await listen(stall_timeout=1, queue_bytes=1 << 20)
    with trio.fail_after(60):
        async with open_client(listening.tcp, "C") as c, trio.open_nursery() as flooding:
            async with open_client(listening.tcp, "A") as a:
                flooding.start_soon(c.send, "A", bytes(20_000_000))
                with pytest.raises(ConnectionLost):
                    await a.wait_for("Z")
            flooding.cancel_scope.cancel()
