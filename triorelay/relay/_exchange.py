"""All that routing changes: the ids that are held, the queues, the held frames, and the ledger of where frames went.

It has no task and no socket, and of the settings only the bounds. Every method is a step without a checkpoint.
`_router` puts frames of clients in, a cluster those of other relays. Every drop goes through `drop`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ..protocol import CloseReason, DropReason, EventCode, HelloOption
from ._config import Config
from ._connection import Connection, Sink
from ._hold import Hold
from ._ledger import Ledger
from ._outbox import SEVERAL, Outbox
from ._policy import Grant
from ._registry import Registry
from ._round import Round
from ._session import Session

PLACES = 255
"""Sessions that may have a queue: clients first, then observers and clients that have left."""

DROPS_KEPT = 65536
"""Pairs and reasons of which drops are counted on their own, about 200 bytes each; the rest is summed up by reason."""

_ABSENT = (DropReason.NO_ROUTE, DropReason.HOLD_EXPIRED, DropReason.CLUSTER_DOWN)


class Exchange:
    """The queues of all clients, and where each frame went.

    Attributes:
        round: flushes the outboxes at the end of each step.
        ledger: where every frame went.
        registry: which session holds which id.
        hold: frames for absent ids.
        sessions: all sessions in the order they came, those too that have left and are still written to.
        on_foreign_drop: called with source and destination when the destination's queue was too full for frames of a
            source that is not here; None for nothing.
    """

    def __init__(self, config: Config, elsewhere: Callable[[], Iterable[Outbox]]) -> None:
        """Make an empty exchange with the bounds of `config`; `elsewhere` gives the queues for ids at other relays."""
        self.round: Round = Round()
        self.ledger: Ledger = Ledger()
        self.registry: Registry = Registry()
        self.hold: Hold = Hold(config.hold_frames, config.hold_time, self.open_outbox)
        self.sessions: dict[Session, None] = {}
        self.on_foreign_drop: Callable[[int, int], None] | None = None
        self._queue_bytes = config.queue_bytes
        self._drop_when_full = config.overflow == "drop"
        self._elsewhere = elsewhere

    @property
    def outboxes(self) -> Iterator[Outbox]:
        """The outboxes of all sessions, of ids elsewhere and of absent ids."""
        yield from (session.outbox for session in self.sessions)
        yield from self._elsewhere()
        yield from self.hold.queues.values()

    def open_outbox(self, id: int, sink: Sink, *, shared: bool = False, lossy: bool = False) -> Outbox:
        """Return a new outbox for `id`, which writes to `sink`."""
        dropped_sent: set[int] = set() if shared else self.registry.dropped_sent[id]
        return Outbox(
            id,
            sink,
            limit=self._queue_bytes,
            written=self.ledger.written_to(id),
            dropped_sent=dropped_sent,
            drop=partial(self.drop, dropped_sent=dropped_sent) if shared else self.drop,
            round=self.round,
            lossy=lossy or self._drop_when_full,
        )

    def open_session(
        self,
        id: int,
        connection: Connection,
        grant: Grant,
        options: HelloOption,
        *,
        mapped: bool = False,
        has_left: bool = False,
    ) -> Session:
        """Return a new session of `id`, which is free or shared, or of an observer; no event is sent yet.

        One that `has_left` is only written to, and does not take the id.
        """
        session = Session(
            id,
            connection,
            self.open_outbox(id, connection, shared=HelloOption.SHARE in options, lossy=HelloOption.LOSSY in options),
            grant,
            options,
            waited_by_id=self.ledger.waited,
            mapped=mapped,
        )
        if id and not has_left:
            self.registry.take(session, id)
        if session.events and not has_left:
            self.registry.subscribers[session] = None
        self.sessions[session] = None
        self._make_room()
        return session

    def _make_room(self) -> None:
        # If more than `PLACES` sessions have a queue, the relay ends one: first those that have left and are still
        # written to, then observers; the oldest first.
        left = [one for one in self.sessions if one.freed.is_set() and not one.scope.cancel_called]
        observers = [one for one in self.sessions if not one.id and one.ended is None]
        if len(self.registry) + len(left) + len(observers) <= PLACES:
            return
        if left:
            left[0].end(CloseReason.SLOW_CONSUMER)
        elif observers:
            observers[0].close(CloseReason.CROWDED_OUT)

    def hand_over(self, outbox: Outbox) -> None:
        """Put frames that were held for the id of `outbox` into it."""
        if (held := self.hold.queues.get(outbox.id)) is not None:
            held.move_to(outbox)
            self.note_places(outbox)

    def note_places(self, outbox: Outbox) -> None:
        """Tell sessions with events where their last frames in `outbox` are, after frames were put there in bulk."""
        asking = [session for session in self.sessions if session.events] if outbox.queued_bytes else ()
        places = outbox.last_places([session.id for session in asking])
        for session in asking:
            if session.id in places:
                session.sent_to[outbox] = places[session.id]

    def offer(self, outbox: Outbox, frames: bytes | bytearray, source: int = SEVERAL) -> bool:
        """Put `frames` into an outbox, or drop them where it is full and lossy; return False where they must wait.

        `source` is as in `Outbox.put`.
        """
        if outbox.full:
            # What was put there in this step may not have been offered to the connection yet.
            outbox.flush()
        if not outbox.full:
            outbox.put(frames, source)
        elif outbox.lossy:
            outbox.drop(frames, DropReason.QUEUE_FULL)
        else:
            return False
        return True

    def drop(
        self, source: int, destination: int, reason: DropReason, count: int, *, dropped_sent: set[int] | None = None
    ) -> None:
        """Count `count` frames as dropped, and tell their source once, if it gets events.

        It gets NO_ROUTE if no client is there, and DROPPED if other holders of a shared id got their copies.

        `dropped_sent` are the sources that got DROPPED for the same queue, by default those of the destination.
        """
        dropped, pair = self.ledger.dropped, (source, destination, reason)
        if pair not in dropped and len(dropped) >= DROPS_KEPT:
            pair = (0, 0, reason)
        dropped[pair] = dropped.get(pair, 0) + count
        subscribers = [session for session in self.registry.holders(source) if session.events]
        if not destination:
            return
        if not subscribers:
            # For all other reasons the sender gets LEFT, or is not who it was.
            is_full = reason is DropReason.QUEUE_FULL
            if is_full and self.on_foreign_drop is not None and not self.registry.holders(source):
                self.on_foreign_drop(source, destination)
            return
        if reason in _ABSENT:
            for session in [one for one in subscribers if not self._reaches(one, destination)]:
                subscribers.remove(session)
                if destination not in session.no_route_sent:
                    session.no_route_sent.add(destination)
                    session.notify(EventCode.NO_ROUTE, destination)
            if not subscribers:
                return
        self._report_drop(subscribers, source, destination, dropped_sent)

    def dropped_elsewhere(self, source: int, destination: int) -> None:
        """Tell a client here that another relay, which has `destination`, dropped frames of it."""
        subscribers = [session for session in self.registry.holders(source) if session.events]
        if subscribers:
            self._report_drop(subscribers, source, destination, None)

    def _report_drop(
        self, subscribers: list[Session], source: int, destination: int, dropped_sent: set[int] | None
    ) -> None:
        already_sent = self.registry.has_sent_dropped(source, destination)
        self.registry.maybe_dropped.add(source)
        if dropped_sent is None:
            self.registry.note_dropped_sent(source, destination)
        else:
            dropped_sent.add(source)
        if not already_sent:
            for session in subscribers:
                session.notify(EventCode.DROPPED, destination)

    def _reaches(self, session: Session, destination: int) -> bool:
        """Return whether another holder of a shared id gets the frames that `session` sends there."""
        queues = self.registry.shared.get(destination, ())
        return any(not outbox.broken for outbox in queues if outbox is not session.outbox)

    def queued_frames(self) -> int:
        """Count the accepted frames that are neither written nor dropped."""
        return sum(outbox.queued_frames() for outbox in self.outboxes)
