"""One task that reads for all clients (Linux).

The main cost of small messages is waking tasks: Trio arms a descriptor again for each wait, and each pass of its
scheduler costs more than relaying a frame. So the descriptors of all clients stay armed in one separate epoll. Trio
waits for the descriptor of that epoll, and one pass serves every client that is ready.

1. A round reads each ready client once, at most one chunk. Clients that send little always come first. Clients whose
   last chunk was large share `BULK_A_PASS` reads between two checkpoints; the client that has waited longest comes
   first. So a single message waits for a few large chunks at most, however many clients flood. When `READS_A_PASS`
   clients were ready since the last checkpoint, there is the next one.
2. A round first reads all clients that send little, and then routes what they sent. So the clients that get the frames
   run beside the relay in one go, and are woken less often. What is read and not routed is in `Session.rest`.
   Outboxes are flushed after that, so that frames of several clients for one destination leave in one write.
3. When no client is ready, the pump may linger: it looks for the next message `SPINS` times, and then waits for it, for
   at most `LINGER`. This saves the pass through the scheduler, and halves the time of a round trip. Other tasks of the
   process wait meanwhile, at most half a millisecond in `LINGERS_A_PASS` times. It lingers while that succeeds, and not
   while a task of a session has something to do.
4. A client that must not be read (its destination is full, it ended, it broke) is disarmed entirely, because epoll
   would report a hung-up socket in every round; its own task takes over.
5. A descriptor is armed only inside `reading`, whose end disarms it, before its session can close it.

Measured on two cores, 64 clients in 32 pairs that answer each message: 61 k messages a second with a task that waits
for each client, 165 k with one pass of the scheduler a round, 316 k with this. A round trip on one core: 35, 22, 9 µs.
"""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Protocol

import trio

from ..protocol import LARGE_CHUNK, CloseReason, id_name
from ._log import Throttle
from ._round import Round
from ._router import Router
from ._session import Session

READS_A_PASS = 256
"""Some 0.7 ms, with one frame each; a round that has begun is finished, so there may be twice as many."""
LINGERS_A_PASS = 8
READY_A_ROUND = 256
"""Events asked for at once: all, so that clients that send little are found among those that flood."""
FEW = 80
"""Events asked for at first: for more, Python asks malloc for a buffer above 1,032 bytes, which takes it longer."""
BULK_A_PASS = 8
"""Large chunks for one destination, which take 0.06 ms each; one for more counts as one more for each `PIECES`."""
PIECES = 16
LINGER = 50e-6
"""Seconds that the pump waits for the next message itself: longer than most clients take to answer one."""
SPINS = 40
"""Looks before it waits, some 10 µs in all: less than it costs to sleep and to be woken, half of what it costs with the
timer on a virtual machine. None where the relay has one processor, which the client needs in order to answer."""
LINGER_AGAIN = 32
"""After it lingered without success, the pump lingers again in one pass of so many."""
FD_SETSIZE = 1024


class Watched(Protocol):
    """Something with a descriptor that shows when there is input."""

    @property
    def fileno(self) -> int: ...


class Source(Watched, Protocol):
    """Something beside the sessions that the pump reads for, such as the way to other relays."""

    def receive(self) -> bool:
        """Take what has arrived, without waiting; return whether more may come. It must not raise."""


class Poller(Protocol):
    """Reports which connections have input."""

    poll: Callable[[float, int], list[tuple[int, int]]]
    """Called with a timeout and a maximum: (descriptor, events) of connections that have input."""

    def register(self, connection: Watched) -> None: ...
    def unregister(self, connection: Watched) -> None: ...
    async def wait(self) -> None:
        """Wait until a connection has input."""

    def linger(self) -> list[tuple[int, int]]:
        """Wait for that a moment, while no other task runs; return what `poll` would after it."""

    def close(self) -> None:
        """Watch nothing more."""


class EpollPoller:
    """A poller on the kernel's epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._descriptor = self._epoll.fileno()
        self.poll: Callable[[float, int], list[tuple[int, int]]] = self._epoll.poll
        self._spins = SPINS if len(os.sched_getaffinity(0)) > 1 else 0

    def register(self, connection: Watched) -> None:
        self._epoll.register(connection.fileno, select.EPOLLIN)

    def unregister(self, connection: Watched) -> None:
        self._epoll.unregister(connection.fileno)

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._descriptor)

    def linger(self) -> list[tuple[int, int]]:
        for _ in range(self._spins):
            if ready := self.poll(0, FEW):
                return ready
        # Only select(2) waits for less than a millisecond; it works with descriptors below 1024.
        if self._descriptor < FD_SETSIZE and select.select((self._descriptor,), (), (), LINGER)[0]:
            return self.poll(0, FEW)
        return []

    def close(self) -> None:
        self._epoll.close()


class Pump:
    """Reads for the sessions that are inside `reading`."""

    def __init__(self, router: Router, round: Round, poller: Poller) -> None:
        """Make a pump whose input goes to `router`; the caller closes the poller when no session is left."""
        self._router = router
        self._round = round
        self._poller = poller
        # By descriptor. A list, because looking into a dictionary takes three times as long, which each message pays.
        self._sessions: list[Session | None] = []
        self._sources: dict[int, Source] = {}
        self._bulk_left = BULK_A_PASS
        self._bug_log = Throttle(interval=1, burst=5)

    @contextmanager
    def reading(self, session: Session) -> Iterator[None]:
        """Read for `session` until it is woken, or this ends."""
        self._poller.register(session.connection)
        descriptor = session.connection.fileno
        self._sessions.extend([None] * (descriptor + 1 - len(self._sessions)))
        self._sessions[descriptor] = session
        try:
            yield
        finally:
            self._disarm(session)

    @contextmanager
    def watching(self, source: Source) -> Iterator[None]:
        """Read for `source` for the length of the block, through a drain too."""
        self._poller.register(source)
        self._sources[source.fileno] = source
        try:
            yield
        finally:
            self._unwatch(source.fileno)

    def _unwatch(self, descriptor: int) -> None:
        source = self._sources.pop(descriptor, None)
        if source is not None:
            self._poller.unregister(source)

    def _disarm(self, session: Session) -> None:
        descriptor = session.connection.fileno
        if 0 <= descriptor < len(self._sessions) and self._sessions[descriptor] is session:
            self._sessions[descriptor] = None
            self._poller.unregister(session.connection)

    def stop(self) -> None:
        """Read for no session any more."""
        for session in self._sessions:
            if session is not None:
                self._disarm(session)

    async def run(self) -> None:
        """Read until cancelled."""
        poller, passes, lingering = self._poller, 0, True
        while True:
            await poller.wait()
            passes += 1
            lingering = lingering or passes % LINGER_AGAIN == 0
            self._bulk_left = BULK_A_PASS
            reads_left, lingers_left = READS_A_PASS, LINGERS_A_PASS
            while reads_left > 0:
                ready = poller.poll(0, FEW)
                if len(ready) == FEW:
                    ready = poller.poll(0, READY_A_ROUND)
                if not ready and lingering and lingers_left > 0:
                    lingers_left -= 1
                    ready = poller.linger()
                    lingering = bool(ready)
                if not ready:
                    break
                reads_left -= len(ready)
                if self._serve(ready):
                    break

    def _serve(self, ready: list[tuple[int, int]]) -> bool:
        """Read the ready clients once and flush; return whether a session's own task has something to do."""
        router, sessions = self._router, self._sessions
        woken = False
        have_read: list[Session] = []
        bulk: list[Session] = []
        self._round.begin()
        for descriptor, _ in ready:
            session = sessions[descriptor] if descriptor < len(sessions) else None
            if session is None:
                source = self._sources.get(descriptor)
                if source is not None and not source.receive():
                    self._unwatch(descriptor)
                continue
            if session.chunk_size == LARGE_CHUNK:
                bulk.append(session)
                continue
            try:
                if router.read(session):
                    have_read.append(session)
                    continue
            except Exception as error:
                self._note_bug(session, error)
            self._hand_back(session)
            woken = True
        for session in have_read:
            try:
                if router.take(session):
                    continue
            except Exception as error:
                self._note_bug(session, error)
            self._hand_back(session)
            woken = True
        if bulk:
            woken = self._serve_bulk(bulk) or woken
        self._round.end()
        return woken

    def _serve_bulk(self, bulk: list[Session]) -> bool:
        """Read some of the clients that send much; return whether other tasks have to run before the next ones."""
        if len(bulk) > 1:
            bulk.sort(key=attrgetter("turn"))
        woken, router = False, self._router
        for session in bulk:
            if self._bulk_left <= 0:
                break
            before = router.pieces
            session.turn = self._round.number
            try:
                goes_on = router.receive(session)
            except Exception as error:
                self._note_bug(session, error)
                goes_on = False
            self._bulk_left -= 1 + (router.pieces - before) // PIECES
            if not goes_on:
                self._hand_back(session)
                woken = True
        return woken or self._bulk_left <= 0

    def _hand_back(self, session: Session) -> None:
        self._disarm(session)
        session.wake()

    def _note_bug(self, session: Session, error: Exception) -> None:
        self._bug_log.bug(error, "bug in a session", id=id_name(session.id))
        session.close(CloseReason.ERROR)
