"""Messages that arrive: assembled at once, one buffer for each source, and kept as whole messages."""

from abc import abstractmethod
from collections import deque

from .._mypyc import mypyc_attr
from ..protocol import Event, EventCode, MessageReader, id_text
from ._inbox import Receiver

MESSAGE_COST = 64
"""Bytes that a waiting message counts beside its payload, about its cost in Python, so that empty ones are bounded
too."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Assembly(Receiver):
    """Assembles whole messages, one buffer for each source, and gives them to `take`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._readers: dict[int, MessageReader] = {}

    @property
    def discarded(self) -> int:
        """Blocks discarded so far: cut, damaged or over the limit."""
        return sum(reader.discarded for reader in self._readers.values())

    def deliver(self, source: int, data: bytes) -> None:
        reader = self._readers.get(source)
        if reader is None:
            reader = self._readers[source] = MessageReader(limit=self._limit)
        payloads = reader.feed(data)
        if payloads:
            self.take(source, payloads)

    @abstractmethod
    def take(self, source: int, payloads: list[bytes]) -> None:
        """Take messages of `source`."""

    def tell(self, event: Event) -> None:
        if event.code == EventCode.LEFT and event.argument in self._readers:
            self._readers[event.argument].abandon()

    def lose(self) -> None:
        for reader in self._readers.values():
            reader.abandon()


@mypyc_attr(allow_interpreted_subclasses=True)
class Arrivals(Assembly):
    """Messages that arrived and were not yet received."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._messages: deque[tuple[str, bytes]] = deque()

    def take(self, source: int, payloads: list[bytes]) -> None:
        name = id_text(source)
        self._messages.extend([(name, payload) for payload in payloads])
        self.size += sum(map(len, payloads)) + MESSAGE_COST * len(payloads)
        self.wake()

    def pop(self) -> tuple[str, bytes] | None:
        """Return the oldest message, or None."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self.size -= len(message[1]) + MESSAGE_COST
        return message
