"""Questions to the relay, and the events that answer them.

1. A question carries a number, and its answer carries it back. A number is in use until its answer comes, even if the
   task has given up: so a late answer never passes for that of another question.
2. There are 255 numbers for each kind of question. A task that finds none free waits for one.
3. An answer takes effect when it arrives, even if no task waits for it any more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ..protocol import EventCode, encode_event
from ._outbox import Outbox

PROBE = 0
"""The number of questions whose answers are ignored."""


@dataclass(eq=False, slots=True)
class _Question:
    on_answer: Callable[[], None]
    answered: bool = False
    settled: trio.Event = field(default_factory=trio.Event)


class Requests:
    """The open questions of one connection."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._open: dict[tuple[int, int], _Question] = {}
        self._last = 0
        self._freed = trio.lowlevel.ParkingLot()
        self._broken = False

    async def ask(self, code: EventCode, on_answer: Callable[[], None]) -> bool:
        """Ask, wait for the answer, and return whether it came: False once the connection broke.

        A cancelled question stays on its way, and `on_answer` is still called when the answer comes.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while (number := self._free_number(code)) is None:
            await self._freed.park()
        if self._broken:
            return False
        question = _Question(on_answer)
        self._open[code, number] = question
        self._outbox.put(encode_event(code, number))
        await question.settled.wait()
        return question.answered

    def _free_number(self, code: int) -> int | None:
        for step in range(1, 257):
            number = (self._last + step) & 0xFF
            if number != PROBE and (code, number) not in self._open:
                self._last = number
                return number
        return None

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
