"""The ids that are held, and by which session. Synchronous throughout: a look-up and what follows it are one step.

The table of outboxes is a plain list indexed by id, because every piece of every chunk looks into it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ..protocol import EventCode
from ._outbox import Outbox
from ._session import RemoteHolder, Session


class Registry:
    """The sessions of one relay.

    Attributes:
        outboxes: the outbox of each id, None where no client holds it; index 0 is always None.
        remote_holders: the clients of other relays, by id.
        subscribers: sessions that get events, observers included.
        told_dropped: for each destination the sources that were told of a drop and not yet of a frame written.
        watchers: called with JOINED or LEFT and the session, in the step in which that happens; observers left out.
    """

    def __init__(self) -> None:
        self.outboxes: list[Outbox | None] = [None] * 256
        self.subscribers: set[Session] = set()
        self.told_dropped: list[set[int]] = [set() for _ in range(256)]
        self.watchers: set[Callable[[EventCode, Session], None]] = set()
        self.remote_holders: dict[int, RemoteHolder] = {}
        self._holders: dict[int, Session] = {}
        self._reserved: dict[int, trio.Event] = {}

    def holder(self, id: int) -> Session | None:
        """Return the session that holds `id`."""
        return self._holders.get(id)

    def ids(self) -> list[int]:
        """Return the ids that are held, in order."""
        return sorted(self._holders)

    def __iter__(self) -> Iterator[Session]:
        """Return the sessions that hold an id, by id."""
        return iter([self._holders[id] for id in self.ids()])

    def __len__(self) -> int:
        return len(self._holders)

    def highest_free(self, allowed: frozenset[int]) -> int:
        """Return the highest id of 128 to 255 that is free and allowed, 0 where there is none."""
        taken = (id in self._reserved or self.outboxes[id] is not None for id in range(255, 127, -1))
        free = (id for id, is_taken in zip(range(255, 127, -1), taken, strict=True) if not is_taken)
        return next((id for id in free if id in allowed), 0)

    @contextmanager
    def reserve(self, id: int) -> Iterator[None]:
        """Let no other claim of `id` begin here for as long as other relays are asked for it."""
        self._reserved[id] = trio.Event()
        try:
            yield
        finally:
            self._reserved.pop(id).set()

    def reservation(self, id: int) -> trio.Event | None:
        """Return what is set when the claim of `id` that is under way is decided, None where none is."""
        return self._reserved.get(id)

    def take(self, session: Session, id: int) -> None:
        """Give the free `id` to `session`."""
        self._holders[id] = session
        self.outboxes[id] = session.outbox

    def announce(self, session: Session) -> None:
        """Tell the others that `session` got its id."""
        for subscriber in list(self.subscribers):
            subscriber.told_no_route.discard(session.id)
            if subscriber is not session and subscriber.may_know(session):
                subscriber.notify(EventCode.JOINED, session.id)
        for watcher in list(self.watchers):
            watcher(EventCode.JOINED, session)

    def free(self, session: Session) -> None:
        """Take the id back from `session` and tell the others; not where another session has it by now."""
        self.subscribers.discard(session)
        session.freed.set()
        if self._holders.get(session.id) is not session:
            return
        del self._holders[session.id]
        self.outboxes[session.id] = None
        for told in self.told_dropped:
            told.discard(session.id)
        for subscriber in list(self.subscribers):
            if subscriber.may_know(session):
                subscriber.notify(EventCode.LEFT, session.id)
        for watcher in list(self.watchers):
            watcher(EventCode.LEFT, session)

    def add_remote(self, other: RemoteHolder, outbox: Outbox) -> None:
        """Note that a client of another relay holds an id, from now on or still; frames for it go into `outbox`.

        No session here may have it.
        """
        known = other.id in self.remote_holders
        self.remote_holders[other.id] = other
        self.outboxes[other.id] = outbox
        for subscriber in list(self.subscribers):
            subscriber.told_no_route.discard(other.id)
            if not known and subscriber.may_know(other):
                subscriber.notify(EventCode.JOINED, other.id)

    def remove_remote(self, id: int) -> None:
        """Note that the holder of `id` at another relay left."""
        other = self.remote_holders.pop(id)
        if id not in self._holders:
            self.outboxes[id] = None
        for told in self.told_dropped:
            told.discard(id)
        for subscriber in list(self.subscribers):
            if subscriber.may_know(other):
                subscriber.notify(EventCode.LEFT, id)
