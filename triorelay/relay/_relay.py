"""The relay's state, and the synchronous steps that change it. Tasks live in `_server` and `_session`.

Whatever puts frames or events into outboxes ends in a flush of those outboxes. The pump holds the flush back while it
goes through the clients that are ready, so that what several of them send to one destination leaves in one write;
everybody else gets one planned with the run loop, before it waits for input again.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..protocol import LARGE_CHUNK, CloseReason, DropReason, EventCode, Refusal, id_name
from ._buckets import Buckets
from ._config import PRIVATE_NETWORKS, Config
from ._connection import Connection, Peer
from ._hold import Hold
from ._interfaces import Remote, Sink
from ._ledger import Ledger
from ._log import Throttle, log
from ._outbox import Outbox
from ._pending import Pending, origin_of
from ._policy import Policy, Refused
from ._registry import Registry
from ._reload import reload
from ._router import Router
from ._snapshot import snapshot
from ._tls import CLIENT_BYTES, PENDING_BYTES, server_context

if TYPE_CHECKING:
    import ssl

    from ._listeners import Listener
    from ._pump import Pump
    from ._session import Session

_NOBODY_THERE = (DropReason.NO_ROUTE, DropReason.HOLD_EXPIRED, DropReason.CLUSTER_DOWN)
PLACES = 255
"""Sessions that may have a queue: clients, and as far as they leave room observers and clients that have left."""
OBSERVERS_OF_AN_ORIGIN = 32
"""More than anybody needs to look on; with fewer descriptors than `PLACES` the others still get theirs."""
RELAY_RESERVE = 512
"""Bytes that a session without an id may cost."""
WRONG_TOKENS_AT_ONCE = 10
"""From one origin; enough for a script with an old token that is tried by hand."""
WRONG_TOKEN_INTERVAL = 0.5
"""Seconds after which one more is looked at: 63 million a year, of 2**128."""


class Relay:
    """A running relay, handed out by `serve` once it listens.

    Attributes:
        config: its settings.
        addresses: where it listens, as addresses that clients understand.
        draining: whether it is shutting down.
        ledger: where every frame went.
        sessions_ended: how many sessions ended, by transport and outcome.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.addresses: list[str] = []
        self.listeners: Sequence[Listener] = ()
        self.start: Callable[[Connection], None]
        self.draining: bool = False
        self.started: float = time.monotonic()
        self.ledger: Ledger = Ledger()
        self.registry: Registry = Registry()
        self.hold: Hold = Hold(config.hold_frames, config.hold_time, self.drop)
        self.router: Router = Router(self)
        self.sessions_ended: Counter[tuple[str, str]] = Counter()
        self.policy: Policy = Policy(config)
        self.tls: ssl.SSLContext | None = None if config.tls_files is None else server_context(config.tls_files)
        self.handshakes: trio.Lock = trio.Lock()
        self.pending: Pending = Pending(config.max_pending, config.max_pending_per_address)
        self.sessions: set[Session] = set()
        self.pump: Pump
        self.remote: Remote | None = None
        self.wait_log: Throttle = Throttle(trio.current_time, interval=0.5, burst=20)
        self.client_log: Throttle = Throttle(trio.current_time, interval=0.1, burst=50)
        self.accept_log: Throttle = Throttle(trio.current_time, interval=1)
        self.refusal_log: Throttle = Throttle(trio.current_time, interval=0.5, burst=20)
        self.wrong_tokens: Buckets = Buckets(
            trio.current_time, interval=WRONG_TOKEN_INTERVAL, burst=WRONG_TOKENS_AT_ONCE
        )
        self._address_log = Throttle(trio.current_time, interval=0.5, burst=20)
        self._address_lines = Buckets(trio.current_time, interval=60)
        self._drain_asked = trio.Event()
        self._all_placed = trio.Event()
        self._to_flush: list[Outbox] = []
        self._flush_planned = False
        self._passes = [0]
        self._token = trio.lowlevel.current_trio_token()

    # -- outboxes

    def open_outbox(self, id: int, connection: Sink, on_broken: Callable[[], None]) -> Outbox:
        """Return a new outbox for `id`, which writes to `connection` and tells `on_broken` when that breaks."""
        return Outbox(
            id,
            connection,
            limit=self.config.queue_bytes,
            written=self.ledger.written_to(id),
            told=self.registry.told_dropped[id],
            drop=self.drop,
            plan_flush=self._plan_flush,
            passes=self._passes,
            on_broken=on_broken,
        )

    @property
    def outboxes(self) -> Iterator[Outbox]:
        """The outboxes of all sessions, of those too that have left and are still written to, and of ids elsewhere."""
        yield from (session.outbox for session in self.sessions)
        if self.remote is not None:
            yield from self.remote.outboxes

    def _plan_flush(self, outbox: Outbox) -> None:
        self._to_flush.append(outbox)
        if not self._flush_planned:
            self._flush_planned = True
            self._token.run_sync_soon(self.flush)

    def hold_flush(self) -> None:
        """Plan no flush: the caller will call `flush` before its next checkpoint."""
        self._flush_planned = True
        self._passes[0] += 1

    def flush(self) -> None:
        """Offer to the connections what was put into outboxes since the last flush."""
        while self._to_flush:
            outboxes, self._to_flush = self._to_flush, []
            for outbox in outboxes:
                outbox.flush()
        self._flush_planned = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step without a checkpoint, at whose end outboxes are flushed."""
        self.hold_flush()
        try:
            yield
        finally:
            self.flush()

    # -- clients

    def accept_waiting(self) -> None:
        """Accept those who wait to be: somebody may be meant who has just connected."""
        for listener in self.listeners:
            listener.accept_waiting(self)

    def make_room(self) -> None:
        """End a session that can be spared where more than `PLACES` have a queue, as `memory_ceiling` counts on.

        One that has left and is still written to goes before an observer, the oldest first.
        """
        spare = [session for session in self.sessions if session.can_be_spared]
        if spare and len(self.registry) + len(spare) > PLACES:
            min(spare, key=lambda session: (not session.freed.is_set(), session.since)).spare()

    def check_room_for_observer(self, peer: Peer) -> None:
        """Refuse one more observer where there is no place for it.

        Raises:
            Refused: clients have all places, or its address has as many as it may.
        """
        if len(self.registry) >= PLACES:
            raise Refused(Refusal.FULL, "clients have all places")
        origin = origin_of(peer)
        observers = [session for session in self.sessions if not session.id]
        if sum(origin_of(session.connection.peer) == origin for session in observers) >= OBSERVERS_OF_AN_ORIGIN:
            raise Refused(Refusal.FULL, "too many observers from this address")

    # -- frames

    def drop(self, source: int, destination: int, reason: DropReason, count: int) -> None:
        """Count `count` frames as dropped, and tell their source once, if it wants to know."""
        self.ledger.dropped[source, destination, reason] += count
        session = self.registry.holder(source)
        if session is None or not session.events or not destination:
            return
        if reason in _NOBODY_THERE:
            if destination not in session.told_no_route:
                session.told_no_route.add(destination)
                session.notify(EventCode.NO_ROUTE, destination)
        elif source not in self.registry.told_dropped[destination]:
            self.registry.told_dropped[destination].add(source)
            session.notify(EventCode.DROPPED, destination)

    def queued_frames(self) -> int:
        """Count the accepted frames that are neither written nor dropped."""
        return sum(outbox.queued_frames() for outbox in self.outboxes) + self.hold.queued_frames()

    def snapshot(self) -> dict[str, object]:
        """Return the status, taken in one step: the contents of `GET /status`."""
        return snapshot(self)

    # -- control

    @property
    def memory_ceiling(self) -> int:
        """Bytes of frames that clients can make the relay hold at the most."""
        config = self.config
        held = 255 * 2 * config.hold_frames
        tls = PLACES * CLIENT_BYTES + config.max_pending * PENDING_BYTES if config.tls else 0
        return PLACES * (config.queue_bytes + 2 * LARGE_CHUNK) + held + config.max_pending * RELAY_RESERVE + tls

    def reload(self, config: Config) -> None:
        """Take over policy, address filter, address map and TLS files from `config`; the rest takes a restart.

        Sessions that may not hold their id any more are closed. New connections get the new certificate.

        Raises:
            ConfigError: a file of `config` cannot be used; nothing has changed.
        """
        reload(self, config)

    def drain(self) -> None:
        """Begin to shut down; `serve` returns when that is done. Idempotent, and safe to call in any task."""
        if self.draining:
            return
        self.draining = True
        log(logging.INFO, "draining", clients=len(self.registry), deadline=self.config.drain_timeout)
        for listener in self.listeners:
            listener.close()
        self.hold.end(DropReason.DRAINING)
        self.pump.stop()
        for session in list(self.registry.listeners):
            session.notify(EventCode.DRAINING, 0)
        for session in list(self.sessions):
            session.wake()
        self.pending.cancel_all()
        self._drain_asked.set()

    async def all_placed(self) -> None:
        """Wait until no session has anything left that it read and could not place; for the drain."""
        self._look_whether_all_placed()
        await self._all_placed.wait()

    def _look_whether_all_placed(self) -> None:
        if self.draining and not any(session.blocked for session in self.sessions):
            self._all_placed.set()

    def ended(self, session: "Session", reason: CloseReason) -> None:
        """Forget a session whose outbox is discarded and whose id is free."""
        self.sessions.discard(session)
        self._look_whether_all_placed()
        transport = session.connection.peer.transport
        self.sessions_ended[transport, reason.label] += 1
        name = {"id": id_name(session.id)} if session.id else {}
        self.client_log.log(
            logging.INFO,
            "client left" if session.id else "observer left",
            **name,
            transport=transport,
            reason=reason.label,
        )

    def address_refused(self, peer: Peer) -> None:
        """Count, and for each address once a minute log, that somebody's address is not allowed."""
        self.sessions_ended[peer.transport, "address"] += 1
        origin = origin_of(peer)
        if not self._address_lines.wait(origin):
            self._address_lines.count(origin)
            # The first --allow replaces the default.
            default = "--allow private " if self.config.allow == PRIVATE_NETWORKS else ""
            mend = f"to let it in, add {default}--allow {peer.ip}"
            self._address_log.log(logging.WARNING, "address refused", address=peer.address, mend=mend)

    async def drain_asked(self) -> None:
        """Wait until `drain` is called."""
        await self._drain_asked.wait()

    def close_client(self, id: int) -> bool:
        """Close the session that holds `id`, for an operator; return whether there is one."""
        session = self.registry.holder(id)
        if session is None:
            return False
        session.close(CloseReason.CLOSED)
        return True
