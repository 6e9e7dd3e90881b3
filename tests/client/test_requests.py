"""Numbered questions to the relay and their answers."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from triorelay.client._outbox import Outbox
from triorelay.client._requests import PROBE, Requests
from triorelay.protocol import CloseReason, ConnectionLost, EventCode, encode_event


class Asker:
    """Questions asked at the same time, and what became of them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.outbox = Outbox()
        self.requests = Requests(self.outbox, partial(ConnectionLost, CloseReason.RESET))
        self.answered: list[int] = []
        self.returned: dict[int, bool] = {}
        self._nursery = nursery

    async def ask(self, name: int, code: EventCode = EventCode.PING) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    await self.requests.ask(code, lambda: self.answered.append(name))
                except ConnectionLost:
                    self.returned[name] = False
                else:
                    self.returned[name] = True

        self._nursery.start_soon(run)
        await wait_all_tasks_blocked()
        return scope


@pytest.fixture
def asker(nursery: trio.Nursery) -> Asker:
    return Asker(nursery)


async def test_an_answer_ends_its_own_question_only(asker: Asker) -> None:
    await asker.ask(1)
    await asker.ask(2)
    await asker.ask(3, EventCode.FLUSH)
    asker.requests.answer(EventCode.PONG, 2)
    await wait_all_tasks_blocked()
    assert asker.returned == {2: True}
    asker.requests.answer(EventCode.FLUSHED, 3)
    asker.requests.answer(EventCode.PONG, 1)
    await wait_all_tasks_blocked()
    assert asker.returned == {1: True, 2: True, 3: True}
    assert await asker.outbox.take() == b"".join(
        encode_event(code, number) for code, number in ((EventCode.PING, 1), (EventCode.PING, 2), (EventCode.FLUSH, 3))
    )


async def test_an_answer_without_a_request_answers_no_question(asker: Asker) -> None:
    await asker.ask(1)
    asker.requests.probe()
    for code, number in ((EventCode.PONG, 77), (EventCode.FLUSHED, 1), (EventCode.PONG, PROBE)):
        asker.requests.answer(code, number)
    await wait_all_tasks_blocked()
    assert (asker.answered, asker.returned) == ([], {})
    asker.requests.answer(EventCode.PONG, 1)
    await wait_all_tasks_blocked()
    assert (asker.answered, asker.returned) == ([1], {1: True})
    asker.requests.answer(EventCode.PONG, 1)
    await wait_all_tasks_blocked()
    assert asker.answered == [1]


async def test_a_cancelled_question_keeps_its_number_and_its_meaning(asker: Asker) -> None:
    scope = await asker.ask(1)
    scope.cancel()
    await wait_all_tasks_blocked()
    for number in range(2, 256):
        await asker.ask(number)
    await asker.ask(256)
    assert len(await asker.outbox.take()) == 4 * 255
    asker.requests.answer(EventCode.PONG, 1)
    await wait_all_tasks_blocked()
    assert asker.answered == [1]
    assert asker.returned == {}
    assert await asker.outbox.take() == encode_event(EventCode.PING, 1)
    asker.requests.break_off()


async def test_a_broken_connection_answers_no_question(asker: Asker) -> None:
    await asker.ask(1)
    asker.requests.break_off()
    await asker.ask(2)
    assert asker.returned == {1: False, 2: False}
    assert asker.answered == []
