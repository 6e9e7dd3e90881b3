"""Questions to the relay, and the events that answer them.

1. A question carries a number, and its answer carries it back. A number is in use until its answer comes, even if the
   task has given up: so a late answer never passes for that of another question.
2. There are 255 numbers, used in turn. A question whose number is still in use, by one of its kind, waits for it.
3. An answer takes effect when it arrives, even if no task waits for it any more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

import trio

from ..protocol import ConnectionLost, EventCode, encode_event
from ._outbox import Outbox

PROBE = 0
"""The number of questions whose answers are ignored."""


@dataclass(eq=False, slots=True)
class _Question:
    on_answer: Callable[[], None]
    answered: bool = False
    settled: trio.Event = field(default_factory=trio.Event)


class Requests:
    """The open questions of one connection.

    Args:
        outbox: what goes out on it.
        loss: makes the exception that reports its end.
    """

    def __init__(self, outbox: Outbox, loss: Callable[[], ConnectionLost]) -> None:
        self._outbox = outbox
        self._loss = loss
        self._open: dict[tuple[int, int], _Question] = {}
        self._numbers = cycle(range(PROBE + 1, 256))
        self._freed = trio.lowlevel.ParkingLot()
        self._broken = False

    async def ask(self, code: EventCode, on_answer: Callable[[], None]) -> None:
        """Ask, and wait for the answer.

        A cancelled question stays on its way, and `on_answer` is still called when the answer comes.

        Raises:
            ConnectionLost: the connection broke first.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        number = next(self._numbers)
        while (code, number) in self._open:
            await self._freed.park()
        if self._broken:
            raise self._loss()
        question = _Question(on_answer)
        self._open[code, number] = question
        self._outbox.put(encode_event(code, number))
        await question.settled.wait()
        if not question.answered:
            raise self._loss()

    def probe(self, code: EventCode = EventCode.PING) -> None:
        """Send a PING or a FLUSH and ignore its answer."""
        self._outbox.put(encode_event(code, PROBE))

    def answer(self, code: int, number: int) -> None:
        """Take an answer; ignore an answer without a request."""
        question = self._open.pop((code, number), None)
        if question is not None:
            question.answered = True
            question.on_answer()
            question.settled.set()
            self._freed.unpark_all()

    def break_off(self) -> None:
        """Note that no more answers come."""
        self._broken = True
        for question in self._open.values():
            question.settled.set()
        self._open.clear()
        self._freed.unpark_all()
