"""What a cluster needs of an engine: messages by subject, and a table of keys that changes by compare-and-set.

1. Messages are delivered at most once. Those of one relay under one subject arrive in the order they were published in.
2. A key has a revision, which grows with each change of any key. A key that was not written for the length of a lease
   is deleted; the engine does not report that.
3. A connected relay gets every change of a key, in order, beginning with the keys that exist.
4. Every call of a `Receiver` is a step without a checkpoint.
5. A connection ends once and for good: it calls `Receiver.lost`, and every call on it then raises `EngineAway`. The
   relay makes a new connection, so nothing of the old one can be sent late.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from ..relay import Source


class EngineAway(Exception):
    """The engine cannot be used now; the message is the reason.

    Attributes:
        hint: what to do about it; empty if the relay can only wait.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class Receiver(Protocol):
    """Gets the messages that come over a connection."""

    def key_changed(self, key: str, value: bytes | None, revision: int) -> None:
        """Note that `key` has this value now; None: it was deleted."""

    def caught_up(self) -> None:
        """Note that `key_changed` has reported all keys that existed when the connection was made. Idempotent."""

    def message(self, subject: str, payload: bytes | memoryview) -> None:
        """Take a message."""

    def drained(self) -> None:
        """Note that the connection is congested no more."""

    def lost(self, reason: str) -> None:
        """Note that the connection is lost."""


class Engine(Protocol):
    """A connection to an engine. Every method that waits raises `EngineAway` if the connection is lost meanwhile.

    Attributes:
        max_payload: bytes that a message may have.
    """

    max_payload: int

    @property
    def congested(self) -> bool:
        """Whether so many bytes are unsent that callers should publish no frames before `Receiver.drained`."""

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish a message, after all that was asked of the engine before."""

    async def subscribe(self, subject: str) -> None:
        """Receive messages under `subject`; in effect when this returns."""

    async def create(self, key: str, value: bytes) -> int:
        """Set a key that does not exist; return its revision, 0 if it exists."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Set a key whose revision is `revision`; return its new one, 0 if it is another."""

    async def delete(self, key: str, revision: int) -> int:
        """Delete a key whose revision is `revision`; return that of the change, 0 if the key has another.

        It comes after all messages that were published before.
        """

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision of a key; None if it does not exist."""

    async def ping(self) -> None:
        """Return once the engine has answered."""


Reading = Callable[[Source], AbstractContextManager[None]]
"""Has a source read for the length of a block."""


class Backplane(Protocol):
    """A way to reach an engine."""

    def connect(self, receiver: Receiver, reading: Reading) -> AbstractAsyncContextManager[Engine]:
        """Connect for the length of the block, and read by `reading`.

        Raises:
            EngineAway: it cannot be reached, refuses us, or has a table that does not suit.
        """
