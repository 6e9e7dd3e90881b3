"""Which receiver gets what arrives, and how much may wait for each.

1. A claim is one receiver's share of what arrives. A source that was claimed by name goes to that claim, any other
   to the claim of all the rest where there is one (`messages()`), else to the unclaimed queue (`receive()`).
2. A new claim takes over what had already arrived for it and was not yet received.
3. Each claim has a bound of its own, `CLAIM_BYTES`. A chunk is delivered whole; then the socket is not read while any
   claim is full. So the pressure reaches the relay, which pauses the senders, and all claims wait for the
   fullest. A claim that no task can empty any more keeps nothing. A queue is a claim that one task empties.
4. Data and events reach a claim in the order in which the relay sent them: LEFT after the last byte.
5. While the client is closing, everything is discarded and nothing is full.
"""

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from .._mypyc import mypyc_attr
from ..protocol import Event, id_name
from ._exclusive import Exclusive

_T = TypeVar("_T")

CLAIM_BYTES = 131072
"""Bytes that may wait in one claim before the client stops reading: twice the data of one read."""

WORTH_WAITING = 2048
"""Bytes in a claim from which waiting for its receiver costs less than reading more, a little at a time, meanwhile."""

NOT_WAITING = -1
"""Less than any claim has: the reader does not wait for one to be emptied."""

PATIENCE = 0.0005
"""Seconds for which a receiver may empty its claim before more is read: a hundred small messages take that long."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver(ABC):
    """One receiver's share.

    Attributes:
        size: bytes that wait in it.
        arrived: where its receiver waits; woken when something came or the client's state changed.
        on_wake: called then too, for a receiver that is no task.
        released: whether the claim has ended.
    """

    def __init__(self) -> None:
        self.size: int = 0
        self.arrived: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.on_wake: Callable[[], object] | None = None
        self.released: bool = False

    @abstractmethod
    def deliver(self, source: int, data: bytes) -> None:
        """Take data bytes of `source`."""

    @abstractmethod
    def tell(self, event: Event) -> None:
        """Take JOINED, LEFT, NO_ROUTE or DROPPED of a source that this claim holds."""

    def wake(self) -> None:
        """Let the receiver check the client's state again."""
        if self.arrived:
            self.arrived.unpark_all()
        if self.on_wake is not None:
            self.on_wake()

    @abstractmethod
    def lose(self) -> None:
        """The connection was lost: frames may be missing, and clients may be gone."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what waits: no task can receive it any more."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Queue(Receiver, Generic[_T]):
    """A share that one task at a time takes out, item by item.

    Args:
        inbox: where the claim is.
        check: called while nothing waits; raises if nothing can come any more.
        busy: the text of the exception for a second task.
    """

    def __init__(self, inbox: "Inbox", check: Callable[[], None], busy: str) -> None:
        super().__init__()
        self._inbox = inbox
        self._check = check
        self._one_receiver = Exclusive(busy)

    @abstractmethod
    def pop(self) -> _T | None:
        """Remove and return the oldest item, or return None."""

    async def receive(self) -> _T:
        """Wait for an item and return it. Cancelled, nothing was taken."""
        with self._one_receiver:
            await trio.lowlevel.checkpoint_if_cancelled()
            if (found := self.pop()) is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
            while found is None:
                self._check()
                await self.arrived.park()
                found = self.pop()
            self._inbox.took(self)
            return found

    def receive_nowait(self) -> _T:
        """Return an item, or raise WouldBlock."""
        self._one_receiver.check()
        found = self.pop()
        if found is None:
            self._check()
            raise trio.WouldBlock
        self._inbox.took(self)
        return found


class Unclaimed(Queue[tuple[int, bytes]]):
    """Unclaimed data, by source, in order of arrival; adjacent data of one source is joined."""

    def __init__(self, inbox: "Inbox", check: Callable[[], None]) -> None:
        super().__init__(
            inbox, check, "another task is receiving from this client; one task receives, others can claim a stream"
        )
        self._runs: deque[tuple[int, list[bytes]]] = deque()

    def deliver(self, source: int, data: bytes) -> None:
        if self._runs and self._runs[-1][0] == source:
            self._runs[-1][1].append(data)
        else:
            self._runs.append((source, [data]))
        self.size += len(data)
        self.wake()

    def tell(self, event: Event) -> None:
        pass

    def lose(self) -> None:
        pass

    def pop(self) -> tuple[int, bytes] | None:
        if not self._runs:
            return None
        source, parts = self._runs.popleft()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.size -= len(data)
        return source, data

    def clear(self) -> None:
        self._runs.clear()
        self.size: int = 0


class Inbox:
    """Gives what arrives to the claim that it belongs to.

    Args:
        check: raises if the client was closed, or has failed.
        wake: wakes the tasks in a lot, from wherever something is received.

    Attributes:
        unclaimed: what arrived without a claim.
        by_source: the claims on sources by name.
    """

    def __init__(self, check: Callable[[], None], wake: Callable[[trio.lowlevel.ParkingLot], object]) -> None:
        self._wake = wake
        self.unclaimed: Unclaimed = Unclaimed(self, check)
        self.by_source: dict[int, Receiver] = {}
        self._rest: Receiver | None = None
        self._relieved = trio.lowlevel.ParkingLot()
        self._relieving_size = NOT_WAITING
        self._is_taking = False
        self._open = True

    def claim(self, source: int, claim: Receiver) -> None:
        """Give all that comes from `source` to `claim`, beginning with what has come already.

        Raises:
            trio.BusyResourceError: there is a claim on `source`.
        """
        if source in self.by_source:
            raise trio.BusyResourceError(
                f"{id_name(source)} is claimed by an open stream or channel; close that one first"
            )
        self.by_source[source] = claim
        self._hand_over()

    def claim_rest(self, claim: Receiver) -> None:
        """Give all that no source's claim takes to `claim`, beginning with what has come already.

        Raises:
            trio.BusyResourceError: there is such a claim.
        """
        if self._rest is not None:
            raise trio.BusyResourceError("messages() or calls() is open already; use that one, or close it first")
        self._rest = claim
        self._hand_over()

    def _hand_over(self) -> None:
        for source, data in list(iter(self.unclaimed.pop, None)):
            self.deliver(source, data)
        self.relieve()

    def release(self, claim: Receiver) -> None:
        """Remove a claim, and forget what waits in it."""
        self.by_source = {source: held for source, held in self.by_source.items() if held is not claim}
        if self._rest is claim:
            self._rest = None
        claim.released = True
        claim.clear()
        claim.wake()
        self.relieve()

    def deliver(self, source: int, data: bytes) -> None:
        """Pass on what came from `source`."""
        if self._open:
            (self.by_source.get(source) or self._rest or self.unclaimed).deliver(source, data)

    def tell(self, event: Event) -> None:
        """Pass on an event about `event.argument` to the claims that hold it."""
        (self.by_source.get(event.argument) or self._rest or self.unclaimed).tell(event)

    def lose(self) -> None:
        """Tell every claim that the connection was lost."""
        for claim in self._claims():
            claim.lose()

    def wake(self) -> None:
        """Let every waiting receiver look at the client's state again."""
        for claim in self._claims():
            claim.wake()

    def discard(self) -> None:
        """Keep nothing from now on."""
        self._open = False
        for claim in self._claims():
            claim.clear()
        self.relieve()

    def relieve(self) -> None:
        """Check again whether the socket may be read, after a claim gave data out or ended."""
        self._relieved.unpark_all()

    def took(self, claim: Receiver) -> None:
        """As `relieve`, after a receiver took data out of its claim."""
        self._is_taking = True
        if claim.size <= self._relieving_size:
            self._wake(self._relieved)

    @property
    def is_full(self) -> bool:
        """Whether any claim is full, so that no more should be read."""
        return self._open and any(claim.size >= CLAIM_BYTES for claim in self._claims())

    async def let_receive(self) -> None:
        """Let a receiver that takes what comes empty its claim, so that more comes meanwhile and is read at once."""
        if self._is_taking and any(claim.size >= WORTH_WAITING for claim in self._claims()):
            self._is_taking = False
            with trio.move_on_after(PATIENCE):
                await self.wait_relief(0)

    async def wait_relief(self, size: int = sys.maxsize) -> None:
        """Wait until `relieve` is called, or a receiver has left no more than `size` in its claim."""
        self._relieving_size = size
        try:
            await self._relieved.park()
        finally:
            self._relieving_size = NOT_WAITING

    def _claims(self) -> list[Receiver]:
        rest = () if self._rest is None else (self._rest,)
        return [self.unclaimed, *rest, *self.by_source.values()]
