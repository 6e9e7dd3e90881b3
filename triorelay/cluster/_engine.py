"""What a cluster needs of an engine: messages by subject, and a table of keys that changes by compare-and-set.

1. Messages are delivered at most once. Those of one relay under one subject arrive in the order they were published in.
2. A key has a revision, which grows with each change of any key. A key that was not written for the length of a lease
   is gone; nobody is told.
3. Whoever is connected is told of every change of a key, in order, beginning with the keys that are there.
4. Whatever is told to a `Receiver` is told in steps without a checkpoint.
5. A connection ends for good: it is told by `Receiver.lost`, and everything asked of it then raises `EngineAway`. To
   come back is to connect anew, so that nothing of the old connection can be sent late.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class EngineAway(Exception):
    """The engine cannot be used now; the message is the reason.

    Attributes:
        mend: what to do about it; empty where waiting is all.
    """

    def __init__(self, reason: str, mend: str = "") -> None:
        super().__init__(reason)
        self.mend = mend


def no_matter() -> None:
    """Be told that a message was taken, where nothing waits for that."""


class Receiver(Protocol):
    """Whoever is connected to an engine."""

    def key_changed(self, key: str, value: bytes | None, revision: int) -> None:
        """Note that `key` has this value now; None: it was deleted."""

    def caught_up(self) -> None:
        """Note that `key_changed` has told all that was there when the connection was made."""

    def message(self, subject: str, payload: bytes) -> None:
        """Take a message."""

    def lost(self, reason: str) -> None:
        """Note that the connection is lost."""


class Engine(Protocol):
    """A connection to an engine. Everything that waits raises `EngineAway` where the connection is lost meanwhile.

    Attributes:
        max_payload: bytes that a message may have.
    """

    max_payload: int

    def publish(self, subject: str, payload: bytes, taken: Callable[[], None]) -> bool:
        """Publish a message; return whether that is done. If not, it waits, and `taken` is called once it does not."""

    async def subscribe(self, subject: str) -> None:
        """Receive messages under `subject`; effective before anything that is asked of the engine afterwards."""

    async def unsubscribe(self, subject: str) -> None:
        """Receive them no more."""

    async def create(self, key: str, value: bytes) -> int:
        """Set a key that does not exist; return its revision, 0 where it exists."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Set a key whose revision is `revision`; return its new one, 0 where it is another."""

    async def delete(self, key: str, revision: int) -> None:
        """Delete a key if its revision is `revision`, after all messages that were published before."""

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision of a key; None where it does not exist."""

    async def ping(self) -> None:
        """Return once the engine has answered."""


class Backplane(Protocol):
    """How to reach an engine."""

    def connect(self, receiver: Receiver) -> AbstractAsyncContextManager[Engine]:
        """Connect for the length of the block.

        Raises:
            EngineAway: it cannot be reached, refuses us, or has a table that does not suit.
        """
