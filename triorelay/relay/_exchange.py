"""All that routing changes: the ids that are held, the queues, the held frames, and the ledger of where frames went.

No task, no socket, and of the settings only bounds. Every method is a step without a checkpoint. `_router` puts frames
of clients in, a cluster those of other relays; all that is dropped anywhere goes through `drop`.
"""

from collections.abc import Callable, Iterable, Iterator

from ..protocol import DropReason, EventCode, source_counts
from ._config import Config
from ._connection import Connection
from ._hold import Hold
from ._ledger import Ledger
from ._outbox import Outbox, Sink
from ._policy import Grant
from ._registry import Registry
from ._round import Round
from ._session import Session

PLACES = 255
"""Sessions that may have a queue: clients, and as far as they leave room observers and clients that have left."""

_ABSENT = (DropReason.NO_ROUTE, DropReason.HOLD_EXPIRED, DropReason.CLUSTER_DOWN)


class Exchange:
    """What waits for which client, and where each frame went.

    Attributes:
        round: flushes the outboxes at the end of each step.
        ledger: where every frame went.
        registry: which session holds which id.
        hold: frames for absent ids.
        sessions: all sessions, those too that have left and are still written to.
    """

    def __init__(self, config: Config, elsewhere: Callable[[], Iterable[Outbox]]) -> None:
        """Make an empty exchange with the bounds of `config`; `elsewhere` gives the queues for ids at other relays."""
        self.round: Round = Round()
        self.ledger: Ledger = Ledger()
        self.registry: Registry = Registry()
        self.hold: Hold = Hold(config.hold_frames, config.hold_time, self.drop)
        self.sessions: set[Session] = set()
        self._queue_bytes = config.queue_bytes
        self._drop_when_full = config.overflow == "drop"
        self._elsewhere = elsewhere

    @property
    def outboxes(self) -> Iterator[Outbox]:
        """The outboxes of all sessions and of ids elsewhere."""
        yield from (session.outbox for session in self.sessions)
        yield from self._elsewhere()

    def open_outbox(self, id: int, sink: Sink) -> Outbox:
        """Return a new outbox for `id`, which writes to `sink`."""
        return Outbox(
            id,
            sink,
            limit=self._queue_bytes,
            written=self.ledger.written_to(id),
            told=self.registry.told_dropped[id],
            drop=self.drop,
            round=self.round,
        )

    def open_session(
        self, id: int, connection: Connection, grant: Grant, *, events: bool = False, mapped: bool = False
    ) -> Session:
        """Return a new session of `id`, which nobody has, or of an observer; others are not told yet."""
        outbox = self.open_outbox(id, connection)
        waited = self.ledger.waited
        session = Session(id, connection, outbox, grant, waited_by_id=waited, events=events, mapped=mapped)
        if id:
            self.registry.take(session, id)
        self.sessions.add(session)
        self._make_room()
        return session

    def _make_room(self) -> None:
        # Where more than `PLACES` have a queue one that has left and is still written to goes before an observer, the
        # oldest first.
        evictable = [session for session in self.sessions if session.evictable]
        if evictable and len(self.registry) + len(evictable) > PLACES:
            min(evictable, key=lambda session: (not session.freed.is_set(), session.since)).evict()

    def offer(self, outbox: Outbox, frames: bytes | bytearray) -> bool:
        """Put `frames` into an outbox, or drop them where it is full and no sender waits; return False to wait."""
        if outbox.full:
            # What was put there in this very step may not have been offered to the connection yet.
            outbox.flush()
        if not outbox.full:
            outbox.put(frames)
        elif self._drop_when_full:
            for source, count in source_counts(frames[0::2]):
                self.drop(source, outbox.id, DropReason.QUEUE_FULL, count)
        else:
            return False
        return True

    def drop(self, source: int, destination: int, reason: DropReason, count: int) -> None:
        """Count `count` frames as dropped, and tell their source once, if it gets events."""
        self.ledger.dropped[source, destination, reason] += count
        session = self.registry.holder(source)
        if session is None or not session.events or not destination:
            return
        if reason in _ABSENT:
            if destination not in session.told_no_route:
                session.told_no_route.add(destination)
                session.notify(EventCode.NO_ROUTE, destination)
        elif source not in self.registry.told_dropped[destination]:
            self.registry.told_dropped[destination].add(source)
            session.notify(EventCode.DROPPED, destination)

    def queued_frames(self) -> int:
        """Count the accepted frames that are neither written nor dropped."""
        return sum(outbox.queued_frames() for outbox in self.outboxes) + self.hold.queued_frames()
