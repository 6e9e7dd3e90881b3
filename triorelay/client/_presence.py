"""Which clients are connected, and what happened to frames that did not arrive.

1. The relay reports which clients joined and left, in order with the frames. `Presence` keeps the set and passes the
   events on.
2. Each subscriber has a bounded queue. A subscriber that falls behind gets an exception and blocks no other, because
   events are worth less than data, and the set of connected clients can always be read again.
3. The relay sends NO_ROUTE once for an absent id, so a strict client remembers it until that id joins. It sends DROPPED
   once for each gap. The next send, flush or end of the block raises each of them once.
4. When the connection is lost, no client is known to be connected any more. Subscribers get `ConnectionEvent.LOST`,
   DROPPED for each id whose frames were not confirmed, and LEFT for each id that was held.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import IntEnum
from typing import final
from weakref import WeakSet

import trio

from ..protocol import RELAY, CloseReason, Event, EventCode, id_text
from ._errors import NotDelivered
from ._exclusive import Exclusive

EVENTS_KEPT = 1024
"""Events that may wait in one iterator: all 255 ids joining and leaving twice, in one burst."""


class ConnectionEvent(IntEnum):
    """Codes of events that the client itself makes. They are over 255, where no code of a relay can be."""

    LOST = 256
    """The connection broke, and the client reconnects; the argument is a `CloseReason`."""
    RESTORED = 257
    """The client is connected again, with the same id."""


@final
class Events(AsyncIterator[Event]):
    """The relay's events, from the moment at which this was made.

    Iterating raises `trio.ClosedResourceError` when the client is closed, `ConnectionLost` when it lost its relay
    finally, and `trio.BrokenResourceError` after 1,024 unread events.
    """

    def __init__(self, presence: "Presence") -> None:
        self._presence = presence
        self._events: deque[Event] = deque()
        self._overrun = False
        self._one_reader = Exclusive("another task reads these events; each task can call events() for itself")

    def _publish(self, event: Event) -> None:
        if len(self._events) >= EVENTS_KEPT:
            self._overrun = True
        elif not self._overrun:
            self._events.append(event)

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> Event:
        with self._one_reader:
            await trio.lowlevel.checkpoint()
            while not self._events:
                if self._overrun:
                    raise trio.BrokenResourceError(
                        f"{EVENTS_KEPT} events were not read and more came; call events() again and look at peers"
                    )
                self._presence.check()
                await self._presence.changed.park()
            event = self._events.popleft()
            if event.code == ConnectionEvent.LOST:
                self._presence.loss_reported()
            return event


class Presence:
    """The other clients, as one client knows them.

    Args:
        check: raises if the client was closed, or has failed.
        loss_reported: called when the program reads that the connection was lost.

    Attributes:
        own: the id that this client holds; 0 for an observer.
        there: the ids that clients hold, this client included.
        changed: where tasks wait for an event, and for a change of the client's state.
    """

    def __init__(self, check: Callable[[], None], loss_reported: Callable[[], None]) -> None:
        self.check = check
        self.loss_reported = loss_reported
        self.own: int = RELAY
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.there: set[int] = set()
        self._no_route: set[int] = set()
        self._undelivered: dict[int, EventCode] = {}
        self._subscribers: WeakSet[Events] = WeakSet()

    @property
    def peers(self) -> frozenset[str]:
        """The others, as one-character strings."""
        return frozenset(map(id_text, self.there - {self.own}))

    def subscribe(self) -> Events:
        """Return an iterator over what happens from now on."""
        events = Events(self)
        self._subscribers.add(events)
        return events

    def apply(self, event: Event) -> None:
        """Apply an event of the relay and pass it on."""
        id = event.argument
        match event.code:
            case EventCode.JOINED:
                self.there.add(id)
                self._no_route.discard(id)
            case EventCode.LEFT:
                self.there.discard(id)
            case EventCode.NO_ROUTE:
                self._no_route.add(id)
                self._undelivered[id] = EventCode.NO_ROUTE
            case EventCode.DROPPED:
                self._undelivered[id] = EventCode.DROPPED
        if id != self.own or event.code not in (EventCode.JOINED, EventCode.LEFT):
            self.publish(event)

    def publish(self, event: Event) -> None:
        """Give an event to every subscriber."""
        for events in list(self._subscribers):
            events._publish(event)
        self.changed.unpark_all()

    def lose(self, reason: CloseReason, unconfirmed: list[int]) -> None:
        """Note that the connection is lost, and with it perhaps the frames sent to the ids `unconfirmed`."""
        self.publish(Event(ConnectionEvent.LOST, reason))
        for id in unconfirmed:
            self.apply(Event(EventCode.DROPPED, id))
        self._no_route.clear()
        self.forget()

    def forget(self) -> None:
        """Report all ids as free."""
        for id in sorted(self.there):
            self.apply(Event(EventCode.LEFT, id))

    def check_delivered(self, destination: int | None = None) -> None:
        """Raise what happened to frames sent before, the oldest report first.

        Args:
            destination: where the next frames go, if there are some. The relay reports an absent id only once, so it
                is refused here until it joins.

        Raises:
            NotDelivered: no client held the destination, or frames were dropped.
        """
        if self._undelivered:
            id = next(iter(self._undelivered))
            raise NotDelivered(id_text(id), self._undelivered.pop(id))
        if destination is not None:
            self.check_route(destination)

    def check_route(self, destination: int) -> None:
        """Raise if the relay has reported that no client holds `destination`, as it reports that only once.

        Raises:
            NotDelivered: no client holds it.
        """
        if destination in self._no_route and destination not in self.there:
            raise NotDelivered(id_text(destination), EventCode.NO_ROUTE)

    def drop_reported(self, destination: int) -> None:
        """Note that an exception has reported the frames to `destination` that were not delivered."""
        self._undelivered.pop(destination, None)
