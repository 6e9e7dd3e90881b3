"""What a session waits for before it is read again: room in outboxes, or an answer to one of its FLUSHes."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._outbox import Outbox


class Waiting(ABC):
    """The waiting side of a session.

    Attributes:
        id: its id.
        waits: how many things it waits for.
        flushes: how many FLUSHes are not answered yet.
        waiting_since: when it began to wait for an outbox.
        wait_told: whether the log was told so.
    """

    id: int

    def __init__(self, waited_by_id: list[float]) -> None:
        self.waits: int = 0
        self.flushes: int = 0
        self.waiting_since: float = 0.0
        self.wait_told: bool = False
        self._waited_by_id = waited_by_id
        self._waits_for: list[Outbox] = []
        self._waits_for_flush = False

    @abstractmethod
    def wake(self) -> None:
        """Let the session's task look at what has changed."""

    @property
    def waiting_for(self) -> int | None:
        """The id of the destination that it waits for, None if it does not."""
        return self._waits_for[0].id if self._waits_for else None

    def pause_for(self, outbox: "Outbox", frames: bytes | bytearray) -> None:
        """Wait until there is room for `frames` in `outbox`."""
        if not self._waits_for:
            self.waiting_since = trio.current_time()
            self.wait_told = False
        self.waits += 1
        self._waits_for.append(outbox)
        outbox.pause(self, frames)

    def unpause(self, outbox: "Outbox") -> None:
        """What was left with `outbox` was placed or dropped."""
        self._waits_for.remove(outbox)
        if not self._waits_for:
            self._count_waited()
        self._waited()

    def wait_for_flush(self) -> None:
        """Wait until one of its FLUSHes is answered."""
        if not self._waits_for_flush:
            self._waits_for_flush = True
            self.waits += 1

    def flushed(self) -> None:
        """One of its FLUSHes was answered."""
        self.flushes -= 1
        if self._waits_for_flush:
            self._waits_for_flush = False
            self._waited()
        self.wake()

    def _count_waited(self) -> None:
        self._waited_by_id[self.id] += trio.current_time() - self.waiting_since

    def _waited(self) -> None:
        self.waits -= 1
        if not self.waits:
            self.wake()

    def give_up_waiting(self) -> "list[tuple[Outbox, bytes | bytearray]]":
        """Take back what was left with outboxes, and wait for nothing more."""
        given_back = [(outbox, frames) for outbox in set(self._waits_for) for frames in outbox.withdraw(self)]
        if self._waits_for:
            self._count_waited()
        self._waits_for.clear()
        self.waits = 0
        return given_back
