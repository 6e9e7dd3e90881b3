"""The ids that are held, and by which sessions. Synchronous throughout: a look-up and what follows it are one step.

1. An id is free, held by one session, or shared by several. `Claims` ensures that the two kinds never mix.
2. The table of outboxes is a plain list indexed by id, because every piece of every chunk looks into it. It knows only
   ids that one client holds. Shared ids are in `shared`, where the router looks when the table has nothing.
3. Clients of other relays are `remote_holders`: one for each relay that has a holder of the id, with a queue to that
   relay. An id is of one kind, shared or not, at all relays.
4. Other clients see a shared id as held while it has a holder, here or elsewhere, that their policy lets them see.
"""

from collections.abc import Callable, Iterator

from ..protocol import ALL_IDS, EventCode, encode_event
from ._outbox import Outbox
from ._session import Session
from ._state import RemoteLease


class Registry:
    """The sessions of one relay.

    Attributes:
        outboxes: the outbox of each id that one client holds, else None; index 0 is always None.
        shared: the outboxes of the sessions and relays that share an id, in the order in which they came.
        lists: the answer to LIST since the last change, by session; None is every session that may send to all.
        remote_holders: the relays that have a holder, by id.
        subscribers: sessions that get events, observers included, in the order they came.
        dropped_sent: for each destination, the sources that got DROPPED and had no frame written there since.
        maybe_dropped: sources that may be in a `dropped_sent`, so that no others are looked for.
        watchers: called with JOINED or LEFT and the session, in the step in which that happens; observers left out.
    """

    def __init__(self) -> None:
        self.outboxes: list[Outbox | None] = [None] * 256
        self.subscribers: dict[Session, None] = {}
        self.dropped_sent: list[set[int]] = [set() for _ in range(256)]
        self.maybe_dropped: set[int] = set(ALL_IDS)
        self.watchers: set[Callable[[EventCode, Session], None]] = set()
        self.remote_holders: dict[int, list[RemoteLease]] = {}
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

    def seen_by(self, session: Session) -> set[int]:
        """Return the ids that are held, here or at other relays, and that `session` may know of."""
        present = {holder.id for holder in self if session.may_know(holder)}
        return present | {id for id, others in self.remote_holders.items() if any(map(session.may_know, others))}

    def presence(self, session: Session) -> bytes:
        """Return JOINED for each id that is held and that `session` may know of, its own included, and SYNCED."""
        key = None if session.to is None else session
        if key not in self.lists:
            joined = b"".join(encode_event(EventCode.JOINED, id) for id in sorted(self.seen_by(session)))
            self.lists[key] = joined + encode_event(EventCode.SYNCED, 0)
        return self.lists[key]

    def highest_free(self, allowed: frozenset[int]) -> int:
        """Return the highest id of 128 to 255 that is free and allowed, 0 if there is none."""
        taken = self._holders.keys() | self.shared.keys()
        free = (id for id in range(255, 127, -1) if id not in taken and self.outboxes[id] is None)
        return next((id for id in free if id in allowed), 0)

    def take(self, session: Session, id: int) -> None:
        """Give `id` to `session`: it is free, or `session` shares it with those that hold it."""
        self.lists.clear()
        self._holders.setdefault(id, []).append(session)
        self._place(session.outbox, shared=session.shared)

    def _place(self, outbox: Outbox, *, shared: bool) -> None:
        id = outbox.id
        if not shared:
            self.outboxes[id] = outbox
            return
        self.outboxes[id] = None
        outboxes = self.shared.setdefault(id, [])
        outboxes.append(outbox)
        if len(outboxes) == 1:
            # What is written to a shared id takes sources out of its queues' own lists only.
            outbox.dropped_sent |= self.dropped_sent[id]
            self.dropped_sent[id].clear()

    def remove_queue(self, outbox: Outbox) -> None:
        """Let no more frames for its id go into `outbox`. Idempotent."""
        id = outbox.id
        if self.outboxes[id] is outbox:
            self.outboxes[id] = None
        queues = self.shared.get(id, [])
        if outbox in queues:
            queues.remove(outbox)
            if not queues:
                del self.shared[id]

    def announce(self, session: Session) -> None:
        """Send JOINED for `session`, which has its id, to the others, if they know of no other holder of it."""
        self._forget_no_route(session.id)
        self._tell(EventCode.JOINED, session)

    def free(self, session: Session) -> None:
        """Take the id back from `session`, and send LEFT to the others, if they know of no other holder of it."""
        self.subscribers.pop(session, None)
        session.freed.set()
        holders = self._holders.get(session.id, [])
        if session not in holders:
            return
        self.lists.clear()
        holders.remove(session)
        self.remove_queue(session.outbox)
        if not holders:
            del self._holders[session.id]
            self.forget_dropped_sent(session.id)
        self._tell(EventCode.LEFT, session)

    def _tell(self, code: EventCode, holder: Session | RemoteLease) -> None:
        """Send JOINED or LEFT to the subscribers that may know of `holder`, and of no other holder of its id."""
        event = encode_event(code, holder.id)
        here = [one for one in self._holders.get(holder.id, ()) if one is not holder]
        elsewhere = [one for one in self.remote_holders.get(holder.id, ()) if one != holder]
        others: list[Session | RemoteLease] = [*here, *elsewhere]
        for subscriber in list(self.subscribers):
            if subscriber is not holder and subscriber.may_know(holder) and not any(map(subscriber.may_know, others)):
                subscriber.put_event(event, news=True)
        if isinstance(holder, Session) and not here:
            for watcher in list(self.watchers):
                watcher(code, holder)

    def _forget_no_route(self, id: int) -> None:
        for subscriber in self.subscribers:
            subscriber.no_route_sent.discard(id)

    def has_sent_dropped(self, source: int, destination: int) -> bool:
        """Return whether `source` got DROPPED for `destination`, and none of its frames was written there since."""
        queues = (outbox.dropped_sent for outbox in self.shared.get(destination, ()))
        return source in self.dropped_sent[destination] or any(source in sources for sources in queues)

    def note_dropped_sent(self, source: int, destination: int) -> None:
        """Note that `source` gets DROPPED for `destination`, for a frame that was in none of its queues."""
        queues = self.shared.get(destination)
        (queues[0].dropped_sent if queues else self.dropped_sent[destination]).add(source)

    def forget_dropped_sent(self, source: int) -> None:
        """Have `source` get DROPPED again, even if none of its frames is written before its next one is dropped."""
        if source not in self.maybe_dropped:
            return
        self.maybe_dropped.remove(source)
        for sources in (
            *self.dropped_sent,
            *(outbox.dropped_sent for outboxes in self.shared.values() for outbox in outboxes),
        ):
            sources.discard(source)

    def add_remote(self, other: RemoteLease, outbox: Outbox) -> None:
        """Note that another relay has a holder of an id, from now on or still; frames for it go into `outbox`.

        No session here may have it, but those that share it.
        """
        known = other in self.remote_holders.get(other.id, ())
        self.place_remote(other, outbox)
        self._forget_no_route(other.id)
        if not known:
            self._tell(EventCode.JOINED, other)

    def place_remote(self, other: RemoteLease, outbox: Outbox) -> None:
        """As `add_remote`, if clients here know of it already."""
        self.lists.clear()
        holders = self.remote_holders.setdefault(other.id, [])
        if other not in holders:
            holders.append(other)
        self._place(outbox, shared=other.shared)

    def remove_remote(self, other: RemoteLease) -> None:
        """Note that another relay has no holder of its id any more. Idempotent. Its queue stays."""
        holders = self.remote_holders.get(other.id, [])
        if other not in holders:
            return
        self.lists.clear()
        holders.remove(other)
        if not holders:
            del self.remote_holders[other.id]
        self._tell(EventCode.LEFT, other)
