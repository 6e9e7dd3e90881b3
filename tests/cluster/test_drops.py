"""What the relay of a destination drops is reported to the sender, at whatever relay that is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cluster.realm import Member, open_realm
from triorelay.client import NotDelivered, open_client
from triorelay.protocol import (
    CallKind,
    CallMessage,
    Event,
    EventCode,
    FailReason,
    FrameReader,
    HelloOption,
    MessageReader,
    address_frames,
    decode_call,
    encode_event,
    encode_message,
)
from triorelay.relay import Config

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio.testing import MockClock

    from triorelay.client import Client
    from triorelay.testing._memory import MemoryStream

DROPPING = Config(overflow="drop", queue_bytes=200, stall_timeout=0)
MORE_THAN_FITS = bytes(200_000)


def at(member: Member, id: str) -> AbstractAsyncContextManager[Client]:
    """A Trio client of one relay."""

    async def connect() -> MemoryStream:
        return member.connect().stream

    return open_client(connect, id)


async def double(source: str, payload: bytes) -> bytes:
    return payload * 2


async def test_the_sender_gets_dropped_of_another_relay_and_again_after_a_flush(autojump_clock: MockClock) -> None:
    async with open_realm(1) as realm:
        one, two = *realm.members, await realm.add(DROPPING)
        a, _ = await one.claim("A", HelloOption.EVENTS)
        await two.join("B")
        await realm.agree("AB")
        events = FrameReader()
        with trio.fail_after(60):
            for _ in range(3):
                await a.send(bytes(address_frames(ord("B"), MORE_THAN_FITS)), encode_event(EventCode.FLUSH, 1))
                while Event(EventCode.DROPPED, ord("B")) not in events.feed(await a.stream.receive_some()):
                    pass
        assert two.dropped()["queue_full"] > 0
        assert one.dropped().get("queue_full", 0) == 0


async def test_only_the_relay_of_the_destination_is_believed(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        one, two, three = realm.members
        async with at(one, "A") as a:
            await two.join("B")
            await realm.agree("AB")
            await a.wait_for("B")
            events = a.events()
            three.cluster.imports._dropped_here(ord("A"), ord("B"))
            await trio.sleep(1)
            two.cluster.imports._dropped_here(ord("A"), ord("B"))
            await trio.sleep(1)
            assert await anext(events) == Event(EventCode.DROPPED, ord("B"))
            with trio.move_on_after(1) as nothing_more:
                await anext(events)
            assert nothing_more.cancelled_caught


async def test_a_call_that_another_relay_dropped_fails(autojump_clock: MockClock) -> None:
    async with open_realm(1) as realm:
        one, two = *realm.members, await realm.add(DROPPING)
        async with at(one, "A") as a, a.calls() as calls:
            await two.join("B")
            await realm.agree("AB")
            await a.send("B", MORE_THAN_FITS)
            for _ in range(3):
                with trio.fail_after(60), pytest.raises(NotDelivered) as caught:
                    await calls.call("B", b"1")
                assert caught.value.code == EventCode.DROPPED


async def test_a_caller_gets_a_failure_in_place_of_an_answer_that_another_relay_dropped(
    autojump_clock: MockClock,
) -> None:
    async with open_realm(1) as realm:
        one, two = *realm.members, await realm.add(DROPPING)
        a = await two.join("A")
        async with at(one, "B") as b, b.calls() as serving, trio.open_nursery() as nursery:
            nursery.start_soon(partial(serving.serve, double))
            await realm.agree("AB")
            await b.send("A", MORE_THAN_FITS)
            call = encode_message(CallMessage(CallKind.CALL, 1, b"1").encode())
            await a.send(bytes(address_frames(ord("B"), call)))
            await trio.sleep(5)
            frames, messages, said = FrameReader(), MessageReader(), list[CallMessage]()
            with trio.fail_after(60):
                while not said:
                    for item in frames.feed(await a.stream.receive_some()):
                        assert not isinstance(item, Event)
                        said += map(decode_call, messages.feed(item[1]))
            assert (said[0].kind, said[0].number, said[0].reason) == (CallKind.FAIL, 1, FailReason.ENDED)
            nursery.cancel_scope.cancel()
