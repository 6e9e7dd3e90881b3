"""Messages that arrive: assembled at once, one buffer for each source, and kept as whole messages."""

from collections import deque
from collections.abc import Callable
from typing import final

from .._mypyc import mypyc_attr
from ..protocol import Event, EventCode, MessageReader, id_text
from ._inbox import Inbox, Queue

MESSAGE_COST = 64
"""Bytes that a waiting message counts beside its payload, about its cost in Python, so that empty ones are bounded
too."""


@final
class Assembler:
    """Assembles whole messages, one buffer for each source."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._readers: dict[int, MessageReader] = {}

    @property
    def discarded(self) -> int:
        """Blocks discarded so far: cut, damaged or over the limit."""
        return sum(reader.discarded for reader in self._readers.values())

    def feed(self, source: int, data: bytes) -> list[bytes]:
        """Take data of `source`; return the messages that it completes."""
        reader = self._readers.get(source)
        if reader is None:
            reader = self._readers[source] = MessageReader(limit=self._limit)
        return reader.feed(data)

    def tell(self, event: Event) -> None:
        """Discard what a session has begun that left."""
        if event.code == EventCode.LEFT and event.argument in self._readers:
            self._readers[event.argument].abandon()

    def lose(self) -> None:
        """Discard all that has begun."""
        for reader in self._readers.values():
            reader.abandon()


@mypyc_attr(allow_interpreted_subclasses=True)
class Arrivals(Queue[tuple[str, bytes]]):
    """Messages that arrived and were not yet received.

    Attributes:
        assembler: makes them from what arrives.
    """

    def __init__(self, limit: int, inbox: Inbox, check: Callable[[], None]) -> None:
        super().__init__(inbox, check, "another task is receiving from this channel; one task receives at a time")
        self.assembler: Assembler = Assembler(limit)
        self._messages: deque[tuple[str, bytes]] = deque()

    def deliver(self, source: int, data: bytes) -> None:
        payloads = self.assembler.feed(source, data)
        if payloads:
            name = id_text(source)
            self._messages.extend([(name, payload) for payload in payloads])
            self.size += sum(map(len, payloads)) + MESSAGE_COST * len(payloads)
            self.wake()

    def tell(self, event: Event) -> None:
        self.assembler.tell(event)

    def lose(self) -> None:
        self.assembler.lose()

    def pop(self) -> tuple[str, bytes] | None:
        if not self._messages:
            return None
        message = self._messages.popleft()
        self.size -= len(message[1]) + MESSAGE_COST
        return message

    def clear(self) -> None:
        self._messages.clear()
        self.size = 0
