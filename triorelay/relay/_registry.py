"""The ids that are held, and by which sessions. Synchronous throughout: a look-up and what follows it are one step.

1. An id is free, held by one session, or shared by several. `Claims` ensures that the two kinds never mix.
2. The table of outboxes is a plain list indexed by id, because every piece of every chunk looks into it. It knows only
   ids that one client holds. Shared ids are in `shared`, where the router looks when the table has nothing.
3. Other clients see a shared id as held while it has a holder that their policy lets them see.
"""

from collections.abc import Callable, Iterator

from ..protocol import EventCode, encode_event
from ._outbox import Outbox
from ._session import RemoteHolder, Session


class Registry:
    """The sessions of one relay.

    Attributes:
        outboxes: the outbox of each id that one client holds, else None; index 0 is always None.
        shared: the outboxes of the sessions that share an id, in the order in which they came.
        lists: the answer to LIST since the last change, by session; None is every session that may send to all.
        remote_holders: the clients of other relays, by id.
        subscribers: sessions that get events, observers included.
        dropped_sent: for each destination, the sources that got DROPPED and had no frame written there since.
        watchers: called with JOINED or LEFT and the session, in the step in which that happens; observers left out.
    """

    def __init__(self) -> None:
        self.outboxes: list[Outbox | None] = [None] * 256
        self.subscribers: set[Session] = set()
        self.dropped_sent: list[set[int]] = [set() for _ in range(256)]
        self.watchers: set[Callable[[EventCode, Session], None]] = set()
        self.remote_holders: dict[int, RemoteHolder] = {}
        self.lists: dict[Session | None, bytes] = {}
        self.shared: dict[int, list[Outbox]] = {}
        self._holders: dict[int, list[Session]] = {}

    def holder(self, id: int) -> Session | None:
        """Return the session that holds `id`, the first one of those that share it."""
        return next(iter(self._holders.get(id, ())), None)

    def holders(self, id: int) -> tuple[Session, ...]:
        """Return the sessions that hold `id`: none, one, or those that share it."""
        return tuple(self._holders.get(id, ()))

    def ids(self) -> list[int]:
        """Return the ids that are held, in order."""
        return sorted(self._holders)

    def __iter__(self) -> Iterator[Session]:
        """Return the sessions that hold an id, by id."""
        return iter([session for id in self.ids() for session in self._holders[id]])

    def __len__(self) -> int:
        """Return how many sessions hold an id."""
        return sum(map(len, self._holders.values()))

    def highest_free(self, allowed: frozenset[int]) -> int:
        """Return the highest id of 128 to 255 that is free and allowed, 0 if there is none."""
        held = (id in self._holders or self.outboxes[id] is not None for id in range(255, 127, -1))
        free = (id for id, is_held in zip(range(255, 127, -1), held, strict=True) if not is_held)
        return next((id for id in free if id in allowed), 0)

    def take(self, session: Session, id: int) -> None:
        """Give `id` to `session`: it is free, or `session` shares it with those that hold it."""
        self.lists.clear()
        self._holders.setdefault(id, []).append(session)
        if session.shared:
            outboxes = self.shared.setdefault(id, [])
            outboxes.append(session.outbox)
            if len(outboxes) == 1:
                # What is written to a shared id takes sources out of its queues' own lists only.
                session.outbox.dropped_sent |= self.dropped_sent[id]
                self.dropped_sent[id].clear()
        else:
            self.outboxes[id] = session.outbox

    def announce(self, session: Session) -> None:
        """Send JOINED for `session` to the others, if they know of no other holder of its id."""
        others = [holder for holder in self._holders[session.id] if holder is not session]
        joined = encode_event(EventCode.JOINED, session.id)
        for subscriber in list(self.subscribers):
            subscriber.no_route_sent.discard(session.id)
            if subscriber is not session and _knows_first(subscriber, session, others):
                subscriber.notify_of_news(joined)
        for watcher in list(self.watchers) if not others else ():
            watcher(EventCode.JOINED, session)

    def free(self, session: Session) -> None:
        """Take the id back from `session`, and send LEFT to the others, if they know of no other holder of it."""
        self.subscribers.discard(session)
        session.freed.set()
        holders = self._holders.get(session.id, [])
        if session not in holders:
            return
        self.lists.clear()
        holders.remove(session)
        if session.shared:
            self.shared[session.id].remove(session.outbox)
        if not holders:
            del self._holders[session.id]
            self.shared.pop(session.id, None)
            self.outboxes[session.id] = None
            self._forget_drops_of(session.id)
        left = encode_event(EventCode.LEFT, session.id)
        for subscriber in list(self.subscribers):
            if _knows_first(subscriber, session, holders):
                subscriber.notify_of_news(left)
        for watcher in list(self.watchers) if not holders else ():
            watcher(EventCode.LEFT, session)

    def has_sent_dropped(self, source: int, destination: int) -> bool:
        """Return whether `source` got DROPPED for `destination`, and none of its frames was written there since."""
        queues = (outbox.dropped_sent for outbox in self.shared.get(destination, ()))
        return source in self.dropped_sent[destination] or any(source in sources for sources in queues)

    def note_dropped_sent(self, source: int, destination: int) -> None:
        """Note that `source` gets DROPPED for `destination`, for a frame that was in none of its queues."""
        queues = self.shared.get(destination)
        (queues[0].dropped_sent if queues else self.dropped_sent[destination]).add(source)

    def _forget_drops_of(self, source: int) -> None:
        for sources in (
            *self.dropped_sent,
            *(outbox.dropped_sent for outboxes in self.shared.values() for outbox in outboxes),
        ):
            sources.discard(source)

    def add_remote(self, other: RemoteHolder, outbox: Outbox) -> None:
        """Note that a client of another relay holds an id, from now on or still; frames for it go into `outbox`.

        No session here may have it.
        """
        known = other.id in self.remote_holders
        self.lists.clear()
        self.remote_holders[other.id] = other
        self.outboxes[other.id] = outbox
        joined = encode_event(EventCode.JOINED, other.id)
        for subscriber in list(self.subscribers):
            subscriber.no_route_sent.discard(other.id)
            if not known and subscriber.may_know(other):
                subscriber.notify_of_news(joined)

    def remove_remote(self, id: int) -> None:
        """Note that the holder of `id` at another relay left."""
        self.lists.clear()
        other = self.remote_holders.pop(id)
        if id not in self._holders:
            self.outboxes[id] = None
        self._forget_drops_of(id)
        left = encode_event(EventCode.LEFT, id)
        for subscriber in list(self.subscribers):
            if subscriber.may_know(other):
                subscriber.notify_of_news(left)


def _knows_first(subscriber: Session, session: Session, others: list[Session]) -> bool:
    """Return whether `subscriber` may know of `session`, and of none of the other holders of its id."""
    return subscriber.may_know(session) and not (others and any(map(subscriber.may_know, others)))
