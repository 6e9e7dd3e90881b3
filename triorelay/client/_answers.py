"""Which answers to calls the relay may still drop, and which it has dropped.

1. The relay reports a dropped answer to the callee only, once for each gap, and by id: not which one. So an answer is
   kept, as its number, until a FLUSH that was asked after it has proved that it was written. Answers are counted, so
   that no FLUSH proves a later answer of the same number.
2. If a report comes first, all answers to that caller that are kept may be lost. The callee sends a FAIL in place of
   each, which is an answer again. The caller ignores it if its answer came after all.
3. A caller that left is forgotten, because the next client of its id may use the same numbers.
"""

from collections.abc import Container

import trio

LOST_KEPT = 1024
"""Lost answers of which one caller is still told: more than it has calls open, unless it floods."""

Key = tuple[int, int]
"""A caller and the number that it gave its call."""


class Answers:
    """The answers of one client to the calls of others.

    Attributes:
        noted: where the task waits that settles them; woken when there is one.
        count: how many were sent.
    """

    def __init__(self) -> None:
        self.noted: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.count: int = 0
        self._sent: dict[int, dict[int, int]] = {}
        self._lost: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sent.values())) + sum(map(len, self._lost.values()))

    def sent(self, answer: Key) -> None:
        """Note that an answer was sent."""
        caller, number = answer
        self.count += 1
        self._sent.setdefault(caller, {})[number] = self.count
        if self.noted:
            self.noted.unpark_all()

    def dropped(self, caller: int) -> None:
        """Note that the relay has dropped something to `caller`."""
        lost = self._lost.setdefault(caller, [])
        lost += self._sent.pop(caller, ())
        del lost[:-LOST_KEPT]

    def forget(self, gone: Container[int]) -> None:
        """Note that these callers left."""
        self._sent = {caller: numbers for caller, numbers in self._sent.items() if caller not in gone}
        self._lost = {caller: numbers for caller, numbers in self._lost.items() if caller not in gone}

    def prove(self, count: int) -> None:
        """Note that the first `count` were written, unless they were dropped meanwhile."""
        for numbers in self._sent.values():
            for number in [number for number, place in numbers.items() if place <= count]:
                del numbers[number]

    def take_lost(self) -> list[Key]:
        """Remove and return the answers that were dropped."""
        lost, self._lost = self._lost, {}
        return [(caller, number) for caller, numbers in lost.items() for number in numbers]
