"""Calls: request and reply whose cancellation crosses the wire."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.client.conftest import check_ledger
from triorelay.client import Backoff, CallFailed, NotDelivered, PeerLeft, open_client
from triorelay.client._calls import ANSWER_DROPPED, SERVING_PATIENCE
from triorelay.client._inbox import CLAIM_BYTES
from triorelay.client._switchboard import Switchboard
from triorelay.protocol import (
    CallKind,
    CallMessage,
    ConnectionLost,
    Event,
    EventCode,
    FailReason,
    FrameReader,
    LocalProtocolError,
    MessageReader,
    address_frames,
    decode_call,
    encode_message,
)
from triorelay.relay import Config
from triorelay.testing import open_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from tests.client.conftest import Listen
    from tests.client.scripted import ScriptedRelay
    from triorelay.client import Calls, Client
    from triorelay.testing import MemoryRelay


async def double(source: str, payload: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return str(2 * int(payload)).encode()


async def never(source: str, payload: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def served(
    relay: MemoryRelay, handler: object = double, *, at_once: int = 32
) -> AsyncIterator[tuple[Calls, Calls]]:
    """The calls of A, and those of B, which serves."""
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        a.calls() as calling,
        b.calls() as serving,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(serving.serve, handler, at_once=at_once))  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        yield calling, serving
        nursery.cancel_scope.cancel()


def on_the_wire(message: CallMessage) -> bytes:
    """The frames of a message, as a client receives them from B."""
    return bytes(address_frames(ord("B"), encode_message(message.encode())))


def said(frames: bytes) -> CallMessage:
    """What a client sent, all to B."""
    assert set(frames[0::2]) == {ord("B")}
    (message,) = MessageReader().feed(frames[1::2])
    return decode_call(message)


async def read_message(script: object) -> CallMessage:
    frames = b""
    while frames.count(b"B\0") < 2:
        frame = await script.read(2)  # type: ignore[attr-defined]
        frames += frame if frame[0] else b""  # else a request to the relay
    return said(frames)


async def test_a_call_is_answered_by_what_the_handler_returns(relay: MemoryRelay) -> None:
    async with served(relay) as (calls, _):
        with assert_checkpoints():
            assert await calls.call("B", b"21") == b"42"
        assert await calls.call(66, bytearray(b"0")) == b"0"


async def test_the_handler_gets_the_caller_s_id(relay: MemoryRelay) -> None:
    async def who(source: str, payload: bytes) -> bytes:
        return source.encode() + payload

    async with served(relay, who) as (calls, own):
        assert await calls.call("B", b"") == b"A"
        assert await own.call("B", b"!") == b"B!"


async def test_calls_in_both_directions_at_once_find_their_answers(relay: MemoryRelay) -> None:
    async with served(relay, at_once=100) as (calls, own), trio.open_nursery() as nursery:
        nursery.start_soon(calls.serve, double)
        await wait_all_tasks_blocked()

        async def ask(calls: Calls, whom: str, number: int) -> None:
            assert await calls.call(whom, str(number).encode()) == str(2 * number).encode()

        with trio.fail_after(20):
            async with trio.open_nursery() as asking:
                for number in range(30):
                    asking.start_soon(ask, calls, "B", number)
                    asking.start_soon(ask, own, "A", number)
        nursery.cancel_scope.cancel()


async def test_a_cancelled_call_cancels_its_handler(relay: MemoryRelay) -> None:
    began, cancelled = trio.Event(), trio.Event()

    async def wait(source: str, payload: bytes) -> bytes:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with served(relay, wait) as (calls, serving):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(calls.call, "B", b"")
                await began.wait()
                nursery.cancel_scope.cancel()
            await cancelled.wait()
        await wait_all_tasks_blocked()
        assert (calls.ignored, serving.ignored) == (0, 0)


async def test_a_call_that_was_cancelled_before_it_was_sent_sends_nothing(relay: MemoryRelay) -> None:
    async with served(relay) as (calls, serving):
        with trio.CancelScope() as scope:
            scope.cancel()
            await calls.call("B", b"1")
        assert scope.cancelled_caught
        assert await calls.call("B", b"2") == b"4"
        assert serving.ignored == 0


@pytest.mark.parametrize(
    ("error", "text"), [(KeyError("lost"), "'lost'"), (ValueError("x" * 3000), "x" * 1024), (OSError(), "OSError")]
)
async def test_a_handler_that_raises_fails_that_call_alone_and_is_logged(
    relay: MemoryRelay, caplog: pytest.LogCaptureFixture, error: Exception, text: str
) -> None:
    async def fail(source: str, payload: bytes) -> bytes:
        if payload:
            raise error
        return b"fine"

    async with served(relay, fail) as (calls, _):
        with caplog.at_level(logging.ERROR, "triorelay.client"), pytest.raises(CallFailed) as caught:
            await calls.call("B", b"!")
        assert (caught.value.reason, caught.value.text) == (FailReason.FAILED, text)
        assert str(caught.value) == f"the call failed: its handler failed: {text}"
        assert [record.getMessage() for record in caplog.records] == ["the handler of a call of A failed"]
        assert await calls.call("B", b"") == b"fine"


@pytest.mark.parametrize("reply", ["text", None, bytes(2 << 20)])
async def test_a_reply_that_is_no_bytes_or_too_long_is_a_failure(
    relay: MemoryRelay, caplog: pytest.LogCaptureFixture, reply: object
) -> None:
    async def answer(source: str, payload: bytes) -> object:
        return reply

    async with served(relay, answer) as (calls, _):
        with pytest.raises(CallFailed, match=r"payload must be bytes|at most \d+ bytes") as caught:
            await calls.call("B", b"")
        assert caught.value.reason == FailReason.FAILED


async def test_a_handler_may_choose_the_error_of_its_caller(relay: MemoryRelay) -> None:
    async def refuse(source: str, payload: bytes) -> bytes:
        raise CallFailed(77, "not today")

    async with served(relay, refuse) as (calls, _):
        with pytest.raises(CallFailed, match=r"does not know \(77\): not today") as caught:
            await calls.call("B", b"")
        assert caught.value.reason == 77


async def test_a_client_that_serves_nothing_says_so(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client("B") as b, a.calls() as calls, b.calls():
        for _ in range(2):
            with trio.fail_after(5), pytest.raises(CallFailed, match="serves no calls") as caught:
                await calls.call("B", b"")
        assert caught.value.reason is FailReason.NOT_SERVED


async def test_more_calls_than_are_served_at_once_are_refused(relay: MemoryRelay) -> None:
    async with served(relay, never, at_once=2) as (calls, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.call, "B", b"1")
            nursery.start_soon(calls.call, "B", b"2")
            await wait_all_tasks_blocked()
            with trio.fail_after(5), pytest.raises(CallFailed, match="as many at once") as caught:
                await calls.call("B", b"3")
            assert caught.value.reason is FailReason.TOO_MANY
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.1) as scope:  # both places are free again
            await calls.call("B", b"4")
        assert scope.cancelled_caught


async def test_a_client_that_stops_serving_fails_its_callers(relay: MemoryRelay) -> None:
    async def ask(calls: Calls) -> None:
        with trio.fail_after(5), pytest.raises(CallFailed, match="stopped serving") as caught:
            await calls.call("B", b"")
        assert caught.value.reason is FailReason.ENDED

    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        a.calls() as calls,
        b.calls() as serving,
        trio.open_nursery() as asking,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serving.serve, never)
        await wait_all_tasks_blocked()
        asking.start_soon(ask, calls)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_call_that_is_cancelled_as_it_arrives_is_not_begun(scripted: ScriptedRelay) -> None:
    begun = []

    async def note(source: str, payload: bytes) -> bytes:
        begun.append(payload)
        return payload

    async with (
        scripted.client(b"B") as (client, script),
        client.calls() as calls,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(calls.serve, note)
        await wait_all_tasks_blocked()
        first, cancel = CallMessage(CallKind.CALL, 1, b"1"), CallMessage(CallKind.CANCEL, 1)
        await script.say(*map(on_the_wire, (first, cancel, CallMessage(CallKind.CALL, 2, b"2"))))
        assert (await read_message(script)).number == 2
        assert begun == [b"2"]
        nursery.cancel_scope.cancel()


async def test_a_call_that_waits_for_serving_counts_until_it_is_cancelled(
    scripted: ScriptedRelay, mock_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script), client.calls():
        board = client._inbox._rest
        assert isinstance(board, Switchboard)
        await script.say(on_the_wire(CallMessage(CallKind.CALL, 1, bytes(1000))))
        await wait_all_tasks_blocked()
        assert board.size > 1000
        await script.say(on_the_wire(CallMessage(CallKind.CANCEL, 1)))
        await wait_all_tasks_blocked()
        assert (board.size, board.ignored) == (0, 0)


async def test_a_failure_that_waits_is_forgotten_with_its_caller(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"BC") as (client, script), client.calls():
        board = client._inbox._rest
        assert isinstance(board, Switchboard)
        for caller in b"BC":
            board.fail_call((caller, 1), FailReason.NOT_SERVED)
        size = board.size
        board.tell(Event(EventCode.LEFT, ord("C")))
        assert board.size == size / 2
        assert (await read_message(script)).number == 1


async def test_a_handler_that_outlasts_serving_does_not_answer_a_second_time(scripted: ScriptedRelay) -> None:
    may_end, ended = trio.Event(), trio.Event()

    async def outlast(source: str, payload: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await may_end.wait()
        ended.set()
        return payload

    with trio.fail_after(5):
        async with (
            scripted.client(b"B") as (client, script),
            client.calls() as calls,
            trio.open_nursery() as nursery,
        ):
            serving = trio.CancelScope()

            async def serve() -> None:
                with serving:
                    await calls.serve(outlast)

            nursery.start_soon(serve)
            await script.say(on_the_wire(CallMessage(CallKind.CALL, 1, b"1")))
            await wait_all_tasks_blocked()
            serving.cancel()
            answer = await read_message(script)
            assert (answer.kind, answer.number, answer.reason) == (CallKind.FAIL, 1, FailReason.ENDED)
            may_end.set()
            await ended.wait()
            await wait_all_tasks_blocked()
            nursery.start_soon(partial(calls.call, "B", b"next"))
            assert (await read_message(script)).payload == b"next"
            nursery.cancel_scope.cancel()


async def test_an_absent_callee_is_reported_at_once_and_each_time(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.calls() as calls:
        for _ in range(3):
            with trio.fail_after(5), pytest.raises(NotDelivered, match="the id B") as caught:
                await calls.call("B", b"")
            assert (caught.value.id, caught.value.code) == ("B", EventCode.NO_ROUTE)
        async with relay.open_client("B") as b, b.calls() as serving, trio.open_nursery() as nursery:
            nursery.start_soon(serving.serve, double)
            await a.wait_for("B")
            await wait_all_tasks_blocked()
            assert await calls.call("B", b"2") == b"4"
            nursery.cancel_scope.cancel()


async def test_a_strict_client_gets_the_error_of_a_call_from_the_call_alone(relay: MemoryRelay) -> None:
    async with relay.open_client("A", strict=True) as a, a.calls() as calls:
        with pytest.raises(NotDelivered):
            await calls.call("B", b"")
        await a.flush()


async def test_many_calls_of_one_that_is_not_there_all_fail(relay: MemoryRelay) -> None:
    failed = 0

    async def ask(calls: Calls) -> None:
        nonlocal failed
        with pytest.raises(NotDelivered):
            await calls.call("B", b"")
        failed += 1

    with trio.fail_after(10):
        async with relay.open_client("A") as a, a.calls() as calls, trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask, calls)
    assert failed == 50


async def test_a_callee_that_leaves_before_it_answers_is_reported(relay: MemoryRelay) -> None:
    leaving = trio.CancelScope()

    async def leave(source: str, payload: bytes) -> bytes:
        leaving.cancel()
        return await never(source, payload)

    async def be_called() -> None:
        with leaving:
            async with relay.open_client("B") as b, b.calls() as serving:
                await serving.serve(leave)

    async with relay.open_client("A") as a, a.calls() as calls, trio.open_nursery() as nursery:
        nursery.start_soon(be_called)
        await a.wait_for("B")
        await wait_all_tasks_blocked()
        with trio.fail_after(5), pytest.raises(PeerLeft, match="B left before it answered") as caught:
            await calls.call("B", b"")
        assert caught.value.id == "B"


async def answered_by(scripted: ScriptedRelay, *answers: CallMessage) -> tuple[bytes, int]:
    """Call B, say `answers`, whose numbers count from the call's on, and return the reply and how much was ignored."""
    async with scripted.client(b"B") as (client, script), client.calls() as calls:
        result = b""
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                number = (await read_message(script)).number
                await script.say(*(on_the_wire(replace(answer, number=number + answer.number)) for answer in answers))

            nursery.start_soon(answer)
            result = await calls.call("B", b"x")
        return result, calls.ignored


async def test_replies_of_no_call_and_second_replies_are_ignored_and_counted(scripted: ScriptedRelay) -> None:
    reply = CallMessage(CallKind.REPLY, 0, b"right")
    with trio.fail_after(5):
        assert await answered_by(
            scripted,
            CallMessage(CallKind.REPLY, 1, b"wrong number"),
            CallMessage(CallKind.CANCEL, 0),
            reply,
            CallMessage(CallKind.FAIL, 0, reason=2, text="late"),
        ) == (b"right", 3)


async def test_clients_that_share_an_id_get_the_answers_to_their_own_calls(relay: MemoryRelay) -> None:
    answers: dict[int, bytes] = {}
    asked, all_asked = 0, trio.Event()

    async def answer_all_in_turn(source: str, payload: bytes) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 4:
            all_asked.set()
        await all_asked.wait()
        return b"answer to " + payload

    async def ask(calls: Calls, number: int) -> None:
        answers[number] = await calls.call("B", b"%d" % number)

    async with relay.open_client("B") as b, b.calls() as serving, AsyncExitStack() as stack:
        sharers = [await stack.enter_async_context(relay.open_client("N", shared=True)) for _ in range(4)]
        claims = [await stack.enter_async_context(sharer.calls()) for sharer in sharers]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serving.serve, answer_all_in_turn)
            with trio.fail_after(5):
                async with trio.open_nursery() as asking:
                    for number, calls in enumerate(claims):
                        asking.start_soon(ask, calls, number)
            nursery.cancel_scope.cancel()
    assert answers == {number: b"answer to %d" % number for number in range(4)}


async def test_an_answer_to_an_earlier_session_of_the_id_is_ignored(relay: MemoryRelay) -> None:
    numbers = set()
    async with relay.open_client("B") as b, b.messages() as received:
        for _ in range(3):
            async with relay.open_client("A") as a, a.calls() as calls, trio.open_nursery() as nursery:
                nursery.start_soon(calls.call, "B", b"")
                with trio.fail_after(5):
                    while (message := decode_call((await received.receive())[1])).kind is not CallKind.CALL:
                        pass
                numbers.add(message.number)
                nursery.cancel_scope.cancel()
    assert len(numbers) == 3


async def test_a_reply_of_another_client_is_no_reply(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"BC") as (client, script), client.calls() as calls:
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                number = (await read_message(script)).number
                forged = on_the_wire(CallMessage(CallKind.REPLY, number, b"forged"))
                await script.say(bytes(address_frames(ord("C"), forged[1::2])))
                await script.say(on_the_wire(CallMessage(CallKind.REPLY, number, b"true")))

            nursery.start_soon(answer)
            with trio.fail_after(5):
                assert await calls.call("B", b"x") == b"true"
        assert calls.ignored == 1


async def test_messages_that_are_no_calls_are_ignored_and_damaged_ones_discarded(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script), client.calls() as calls:
        await script.say(bytes(address_frames(ord("B"), encode_message(b"hello") + b"cut\0")))
        assert (calls.ignored, calls.discarded) == (1, 1)


async def test_a_dropped_call_is_reported(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script), client.calls() as calls, trio.open_nursery() as nursery:

        async def drop() -> None:
            await read_message(script)
            await script.say(b"\0\4\0B")

        nursery.start_soon(drop)
        with trio.fail_after(5), pytest.raises(NotDelivered) as caught:
            await calls.call("B", b"1")
        assert caught.value.code == EventCode.DROPPED


async def test_each_dropped_call_is_reported_though_the_relay_reports_a_gap_once(autojump_clock: MockClock) -> None:
    async with (
        open_relay(Config(overflow="drop", queue_bytes=200, stall_timeout=0), capacity=100) as relay,
        relay.open_client("A") as a,
        relay.connect("B") as unread,
        a.calls() as calls,
    ):
        await a.send("B", bytes(30_000))
        for _ in range(3):
            with trio.fail_after(5), pytest.raises(NotDelivered):
                await calls.call("B", b"1")
        await unread.aclose()


async def test_a_dropped_call_is_reported_though_another_client_of_the_id_got_the_report(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_relay(Config(overflow="drop", queue_bytes=200, stall_timeout=0), capacity=100) as relay,
        relay.open_client("A", shared=True) as earlier,
        relay.connect("B") as unread,
    ):
        events = earlier.events()
        await earlier.send("B", bytes(30_000))
        await earlier.send("B", bytes(30_000))
        while (await anext(events)).code != EventCode.DROPPED:
            pass
        async with relay.open_client("A", shared=True) as a, a.calls() as calls:
            with trio.fail_after(5), pytest.raises(NotDelivered):
                await calls.call("B", b"1")
            await unread.aclose()


class BareCaller:
    """A caller of B with the id A that reads only when the test says so."""

    def __init__(self, relay: MemoryRelay) -> None:
        self.stream = relay.connect("A")
        self._frames, self._messages = FrameReader(), MessageReader()
        self._answers = list[CallMessage]()

    async def call(self, number: int, payload: bytes = b"21") -> None:
        message = CallMessage(CallKind.CALL, number, payload)
        await self.stream.send_all(address_frames(ord("B"), encode_message(message.encode())))

    async def answer(self) -> CallMessage:
        """Return the next thing that B says."""
        while not self._answers:
            for item in self._frames.feed(await self.stream.receive_some()):
                if not isinstance(item, Event) and item[0] == ord("B"):
                    self._answers += map(decode_call, self._messages.feed(item[1]))
        return self._answers.pop(0)


@asynccontextmanager
async def one_that_takes_nothing() -> AsyncIterator[tuple[MemoryRelay, Client, Calls, BareCaller]]:
    """A relay that drops, B and its calls, and A, whose queue is full."""
    async with (
        open_relay(Config(overflow="drop", queue_bytes=200, stall_timeout=0), capacity=100) as relay,
        relay.open_client("B") as b,
        relay.open_client("C") as c,
        b.calls() as serving,
    ):
        caller = BareCaller(relay)
        async with caller.stream:
            await b.wait_for("A")
            await c.send("A", bytes(30_000))
            yield relay, b, serving, caller


async def test_the_caller_gets_a_failure_in_place_of_an_answer_that_the_relay_dropped(
    autojump_clock: MockClock,
) -> None:
    async with one_that_takes_nothing() as (relay, b, serving, caller), trio.open_nursery() as nursery:
        nursery.start_soon(serving.serve, double)
        for number in (1, 2, 3):
            await caller.call(number)
        await trio.sleep(10)
        dropped = sum(count for (source, *_), count in relay.relay.ledger.dropped.items() if source == ord("B"))
        assert 300 < dropped < 20_000, "it tries again, and not in a busy loop"
        failed = set[int]()
        with trio.fail_after(30):
            while failed < {1, 2, 3}:
                answer = await caller.answer()
                assert (answer.kind, answer.reason, answer.text) == (CallKind.FAIL, FailReason.ENDED, ANSWER_DROPPED)
                failed.add(answer.number)
            await caller.call(4)
            while (answer := await caller.answer()).kind is CallKind.FAIL:
                pass
            assert (answer.number, answer.payload) == (4, b"42")
        await trio.sleep(10)
        board = b._inbox._rest
        assert isinstance(board, Switchboard)
        assert not board.answers, "an answer that was written is forgotten"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("served", [True, False], ids=["ended", "refused"])
async def test_a_failure_that_the_relay_dropped_is_sent_again(autojump_clock: MockClock, served: bool) -> None:
    async with one_that_takes_nothing() as (_, _, serving, caller):
        await caller.call(1)
        with trio.move_on_after(3):
            if served:
                await serving.serve(never)
            await trio.sleep_forever()
        await trio.sleep(3)
        with trio.fail_after(30):
            failure = await caller.answer()
        assert (failure.kind, failure.number) == (CallKind.FAIL, 1)


async def test_dropped_answers_of_a_caller_that_left_are_not_sent_to_the_next_client_of_its_id(
    autojump_clock: MockClock,
) -> None:
    async with one_that_takes_nothing() as (relay, b, serving, caller), trio.open_nursery() as nursery:
        nursery.start_soon(serving.serve, double)
        await caller.call(1)
        await trio.sleep(1)
        events = b.events()
        await caller.stream.aclose()
        while (await anext(events)).code != EventCode.LEFT:
            pass
        async with relay.open_client("A") as a, a.calls() as calls:
            await trio.sleep(10)
            assert calls.ignored == 0
        nursery.cancel_scope.cancel()


async def test_a_lost_connection_fails_open_calls_and_cancels_handlers(scripted: ScriptedRelay) -> None:
    began, cancelled = trio.Event(), trio.Event()

    async def wait(source: str, payload: bytes) -> bytes:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    lost = 0
    with trio.fail_after(5):
        async with (
            scripted.client(b"B", reconnect=Backoff(first=0.01)) as (client, script),
            client.calls() as calls,
            trio.open_nursery() as nursery,
        ):

            async def call() -> None:
                nonlocal lost
                with pytest.raises(ConnectionLost):
                    await calls.call("B", b"1")
                lost += 1

            nursery.start_soon(calls.serve, wait)
            nursery.start_soon(call)
            nursery.start_soon(call)
            await read_message(script)
            await read_message(script)
            await script.say(on_the_wire(CallMessage(CallKind.CALL, 9, b"1")))
            await began.wait()
            await script.hang_up()
            await cancelled.wait()
            assert lost == 2
            again = await scripted.welcome(b"B")
            # What was open is not sent again: the first thing on the new connection is the next call.
            nursery.start_soon(partial(calls.call, "B", b"next"))
            assert (await read_message(again)).payload == b"next"
            nursery.cancel_scope.cancel()


async def test_calls_end_with_their_block_and_with_the_client(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        async with a.calls() as calls:
            pass
        with pytest.raises(trio.ClosedResourceError, match="open others"):
            await calls.call("A", b"")
        with pytest.raises(trio.ClosedResourceError):
            await calls.serve(double)
        async with a.calls() as again, trio.open_nursery() as nursery:
            nursery.start_soon(again.serve, double)
            await wait_all_tasks_blocked()
            assert await again.call("A", b"2") == b"4"
            nursery.cancel_scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        a.calls()


async def test_leaving_the_client_fails_a_call_that_waits(relay: MemoryRelay) -> None:
    async def ask(calls: Calls) -> None:
        with trio.fail_after(5), pytest.raises(trio.ClosedResourceError):
            await calls.call("B", b"")

    async with (
        served(relay, never),
        trio.open_nursery() as nursery,
        relay.open_client("C") as c,
        c.calls() as calls,
    ):
        nursery.start_soon(ask, calls)
        await wait_all_tasks_blocked()


async def test_what_is_not_allowed_is_refused(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.calls() as calls:
        with pytest.raises(LocalProtocolError, match="at most 1048571 bytes, not 2097152"):
            await calls.call("A", bytes(2 << 20))
        with pytest.raises(TypeError):
            await calls.call("A", "text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at_once must be at least 1, not 0"):
            await calls.serve(double, at_once=0)
        with pytest.raises(TypeError, match="at_once must be a whole number, not '1'"):
            await calls.serve(double, at_once="1")  # type: ignore[arg-type]
        with pytest.raises(trio.BusyResourceError):
            a.messages()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.serve, double)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="being served already"):
                await calls.serve(double)
            nursery.cancel_scope.cancel()
    async with relay.open_client("A") as a:
        with pytest.raises(ValueError, match="limit must be at least 0, not -1"):
            a.calls(limit=-1)
    async with relay.open_client(observer=True) as observer:
        with pytest.raises(LocalProtocolError, match="an observer cannot make calls"):
            observer.calls()


async def test_a_small_limit_leaves_room_for_the_reasons_of_failures(relay: MemoryRelay) -> None:
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        a.calls(limit=3) as calls,
        b.calls(limit=3) as serving,
        trio.open_nursery() as nursery,
    ):

        async def echo(source: str, payload: bytes) -> bytes:
            if payload == b"bad":
                raise CallFailed(FailReason.FAILED, "a text that is longer than three bytes")
            return payload

        nursery.start_soon(serving.serve, echo)
        await wait_all_tasks_blocked()
        assert await calls.call("B", b"123") == b"123"
        with pytest.raises(CallFailed, match="longer than three bytes"):
            await calls.call("B", b"bad")
        nursery.cancel_scope.cancel()


async def test_a_peer_that_floods_calls_and_takes_no_answer_is_not_read_any_further(
    scripted: ScriptedRelay,
) -> None:
    async with scripted.client(b"B") as (client, script), client.calls():
        go_on = script.take_no_more()
        frames = b"".join(on_the_wire(CallMessage(CallKind.CALL, number)) for number in range(4000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script.stream.send_all, frames)
            await wait_all_tasks_blocked()
            board = client._inbox._rest
            assert board is not None
            assert CLAIM_BYTES <= board.size < 2 * CLAIM_BYTES + 64 * 65536 // 24
            go_on()
            with trio.fail_after(60):
                refused = 0
                while refused < 4000:
                    assert (await read_message(script)).kind is CallKind.FAIL
                    refused += 1


async def test_calls_over_sockets_leave_a_ledger_that_balances(listen: Listen) -> None:
    listening = await listen()
    with trio.fail_after(60):
        async with (
            open_client(listening.unix, "A") as a,
            open_client(listening.tcp, "B") as b,
            a.calls() as calls,
            b.calls() as serving,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(serving.serve, double)
            await a.wait_for("B")
            await wait_all_tasks_blocked()
            for number in range(200):
                assert await calls.call("B", str(number).encode()) == str(2 * number).encode()
            nursery.cancel_scope.cancel()
    check_ledger(listening.relay)


async def test_calls_that_come_before_serving_began_wait_for_it(
    relay: MemoryRelay, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        a.calls() as calls,
        trio.open_nursery() as nursery,
    ):
        answers = []

        async def ask(number: int) -> None:
            answers.append(await calls.call("B", str(number).encode()))

        with trio.CancelScope() as cancelled:
            nursery.start_soon(ask, 1)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as inner:
                inner.start_soon(ask, 2)
                await wait_all_tasks_blocked()
                async with b.calls() as serving:
                    await wait_all_tasks_blocked()
                    inner.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await wait_all_tasks_blocked()
                        assert serving.ignored == 0
                        nursery.start_soon(ask, 3)
                        await trio.sleep(SERVING_PATIENCE / 2)
                        with trio.move_on_after(SERVING_PATIENCE):
                            await serving.serve(double)
        assert not cancelled.cancelled_caught
        assert sorted(answers) == [b"2", b"6"]


@pytest.mark.parametrize("leaves", ["caller", "callee"])
async def test_a_client_that_is_closed_while_a_call_is_open_has_lost_nothing(relay: MemoryRelay, leaves: str) -> None:
    ended = 0
    async with relay.open_client("A") as a, relay.open_client("B") as b, a.calls() as calling, b.calls() as serving:

        async def run(work: Callable[[], Awaitable[object]]) -> None:
            nonlocal ended
            with pytest.raises((CallFailed, PeerLeft, trio.ClosedResourceError)):
                await work()
            ended += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, partial(serving.serve, never))
            nursery.start_soon(run, partial(calling.call, "B", b"1"))
            await wait_all_tasks_blocked()
            await (a if leaves == "caller" else b).aclose()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert ended == {"caller": 1, "callee": 2}[leaves]
