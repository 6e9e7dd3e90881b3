"""One connection of one client, from its id to its end. The task that runs it owns the connection.

1. The session's task arms the pump, which then reads for it. It goes on when it is woken: by the client's end of file,
   a full destination, a broken connection, the drain.
2. The writer (`_writer`) is its child.
3. Anybody may ask for the end by `close`, which cancels the session's own scope and nothing else.
4. However it ends, `_tear_down` runs without a checkpoint: what it had left with others is dropped as
   `source_closed`, what waited for it with the reason of its end, then the id is free and the connection closed.
"""

from collections import deque
from typing import TYPE_CHECKING

import trio

from ..protocol import LARGE_CHUNK, CloseReason, DropReason, EventCode, encode_event
from ._connection import Connection
from ._policy import Grant
from ._waiting import Waiting
from ._writer import write

if TYPE_CHECKING:
    from ._interfaces import Elsewhere
    from ._outbox import Outbox
    from ._relay import Relay

SMALL_CHUNK = 256
"""What a client that sends little is read by: asking for more costs a larger allocation, a tenth of the read."""
SETTLED_CHUNKS = 16
"""More than a Unix socket holds for a client that has hung up; after so many its task goes on."""
EVENTS_NOT_TAKEN = 8192 // 4
"""Unasked events that may wait in a session's queue; with more it is closed."""

_QUEUE_DROPPED_AS = {
    CloseReason.SLOW_CONSUMER: DropReason.SLOW_CONSUMER,
    CloseReason.DRAINING: DropReason.DRAINING,
    CloseReason.DENIED: DropReason.DENIED,
    CloseReason.FENCED: DropReason.FENCED,
}


class Session(Waiting):
    """A client that holds an id, or an observer.

    Attributes:
        id: its id; 0 for an observer.
        name_byte: its id as the source of a frame.
        plain: whether it may send whatever it likes to whomever it likes.
        events: whether it gets events.
        mapped: whether it has its id without a hello.
        grant: what the policy lets it do.
        principal: who it has proved to be, for people; empty where it proved nothing.
        to: the ids it may send to; None for all.
        connection: its connection.
        outbox: what waits for it.
        half: bytes of a frame or a request whose other half has not come yet.
        rest: the part of a chunk that is not routed yet.
        told_no_route: ids of which it was told that nobody is there.
        since: when it got its id.
        freed: set once its id is free.
    """

    def __init__(
        self,
        relay: "Relay",
        connection: Connection,
        id: int,
        grant: Grant,
        *,
        events: bool = False,
        mapped: bool = False,
    ) -> None:
        super().__init__(relay.ledger.waited)
        self.id = id
        self.name_byte: bytes = bytes((id,))
        self.events = events
        self.mapped = mapped
        self.become(grant)
        self.connection = connection
        self.half = b""
        self.rest = b""
        self.told_no_route: set[int] = set()
        self.since: float = trio.current_time()
        self.freed: trio.Event = trio.Event()
        self._relay = relay
        self._receive = connection.recv_nowait
        self._router = relay.router
        self._outboxes = relay.registry.outboxes
        self._accepted = relay.ledger.accepted
        self._size = SMALL_CHUNK
        self._event_marks: deque[int] = deque()
        self._ended: CloseReason | None = None
        self._woken = trio.Event()
        self._scope = trio.CancelScope()
        self._patience: trio.CancelScope | None = None
        self.outbox: Outbox = relay.open_outbox(id, connection, self.wake)

    # -- called by others, in steps without a checkpoint

    @property
    def ended(self) -> CloseReason | None:
        """Why it ends; None while it does not."""
        return self._ended

    @property
    def blocked(self) -> bool:
        """Whether it must not be read now."""
        return bool(self.waits or self.rest)

    def become(self, grant: Grant) -> None:
        """Let it do what `grant` says from now on."""
        self.grant = grant
        self.principal: str = grant.principal
        self.to: frozenset[int] | None = grant.to
        self.plain: bool = bool(self.id) and grant.to is None

    def may_know(self, other: "Session | Elsewhere") -> bool:
        """Return whether it may send to `other` or hear from it; an observer, whether its principal may."""
        if self.to is None or other.id in self.to or other.to is None:
            return True
        return self.id in other.to if self.id else not self.grant.ids.isdisjoint(other.to)

    def receive(self) -> bool:
        """Read once and route what came; return whether to go on reading."""
        try:
            chunk = self._receive(self._size)
        except BlockingIOError:
            return True
        except OSError:
            self._ended = self._ended or CloseReason.RESET
            return False
        if not chunk:
            self._ended = self._ended or CloseReason.LEFT
            return False
        if len(chunk) == 2 and self.plain and not self.half:
            # The shortest way, for the frame that comes alone to somebody who waits for it: as `Router.feed` would do.
            outbox = self._outboxes[chunk[0]]
            if outbox is not None:
                frame = self.name_byte + chunk[1:]
                if outbox.hand_over(frame):
                    self._accepted[self.id] += 1
                    if self._router.tap is not None:
                        self._router.tap(self.id, chunk[0], frame)
                    return True
        self._size = LARGE_CHUNK if len(chunk) >= SMALL_CHUNK else SMALL_CHUNK
        self._router.feed(self, chunk)
        return not (self.waits or self.rest)

    def wake(self) -> None:
        """Let its task look at what has changed."""
        self._woken.set()

    def notify(self, code: EventCode, argument: int) -> None:
        """Queue an event that it did not ask for; close it where it takes none of them."""
        outbox = self.outbox
        if outbox.broken:
            return
        marks = self._event_marks
        while marks and marks[0] <= outbox.taken_bytes:
            marks.popleft()
        if len(marks) >= EVENTS_NOT_TAKEN:
            self.close(CloseReason.SLOW_CONSUMER)
            return
        outbox.put(encode_event(code, argument))
        marks.append(outbox.put_bytes)

    def close(self, reason: CloseReason) -> None:
        """End it from outside, for `reason`; nothing is written to it any more. Idempotent.

        Its id is free once its task has run.
        """
        if self._scope.cancel_called or self.freed.is_set():
            return
        if self.events and not self.outbox.broken:
            self.outbox.put(encode_event(EventCode.CLOSING, reason))
            self.outbox.flush()
        self._ended = reason
        self._scope.cancel()
        self.outbox.seal()

    def settle(self) -> None:
        """Take what its client, which has hung up, sent before, and free its id where that is all."""
        for _ in range(SETTLED_CHUNKS):
            if self.blocked or self._ended is not None or not self.connection.input_waits():
                break
            self.receive()
        if self._ended in (CloseReason.LEFT, CloseReason.RESET) and not self.blocked:
            self._relay.router.finish(self, DropReason.SOURCE_CLOSED)
            if self._ended is CloseReason.RESET:
                self.outbox.discard(DropReason.PEER_GONE)
            self._free()
        self.wake()

    @property
    def can_be_spared(self) -> bool:
        """Whether it may be ended to make room: an observer, or one that has left and is still written to."""
        if self._patience is not None:
            return not self._patience.cancel_called
        return not self.id and self._ended is None

    def spare(self) -> None:
        """End it to make room."""
        if self._patience is not None:
            self._patience.cancel()
        else:
            self.close(CloseReason.CROWDED_OUT)

    # -- its own task

    async def run(self) -> None:
        """Live until the client leaves or is closed. The id is taken before, and free afterwards."""
        relay = self._relay
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write, relay, self)
                    await self._read()
                    if relay.draining:
                        await self._finish_drain()
                    elif self._ended is CloseReason.LEFT:
                        await self._finish()
                    nursery.cancel_scope.cancel()
        except Exception:
            self._ended = CloseReason.ERROR
            raise
        finally:
            self._tear_down()

    async def _read(self) -> None:
        relay = self._relay
        while True:
            self._woken = trio.Event()
            if self.waits:
                await self._woken.wait()
            elif self.rest:
                relay.router.resume(self)
                await trio.lowlevel.checkpoint()
            elif self._ended is not None or relay.draining:
                return
            elif self.outbox.broken:
                self._read_what_is_there()
                await trio.lowlevel.checkpoint()
            else:
                with relay.pump.reading(self):
                    await self._woken.wait()

    def _read_what_is_there(self) -> None:
        # The connection is of no more use, but what its client sent before is.
        if self.connection.input_waits():
            with self._relay.step():
                self.receive()
        else:
            self._ended = CloseReason.RESET

    async def _finish(self) -> None:
        """The client shut its sending side: free its id, then write what is queued for it."""
        self._relay.router.finish(self, DropReason.SOURCE_CLOSED)
        self._free()
        with trio.move_on_after(self._relay.config.stall_timeout or float("inf")) as self._patience:
            await self._queue_written()
        if self._patience.cancelled_caught:
            self._ended = CloseReason.SLOW_CONSUMER
        self.connection.shut_sending()

    async def _finish_drain(self) -> None:
        """The relay shuts down: write what is queued, then wait until the client has closed too."""
        relay = self._relay
        await relay.all_placed()
        await self._queue_written()
        self.connection.shut_sending()
        while self._ended is None:
            try:
                await self.connection.wait_readable()
                chunk = self._receive(LARGE_CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self._ended = CloseReason.DRAINING
            relay.router.discard(self, chunk, DropReason.DRAINING)

    async def _queue_written(self) -> None:
        while True:
            self._woken = trio.Event()
            self._relay.flush()
            if self.outbox.broken or not (self.flushes or self.outbox.queued_bytes):
                return
            await self._woken.wait()

    def _free(self) -> None:
        self._relay.registry.free(self)
        self.freed.set()

    def _tear_down(self) -> None:
        relay = self._relay
        reason = self._ended = self._ended or CloseReason.DRAINING
        unplaced = DropReason.DRAINING if reason is CloseReason.DRAINING else DropReason.SOURCE_CLOSED
        for outbox, frames in self.give_up_waiting():
            if frames:
                relay.drop(self.id, outbox.id, unplaced, len(frames) >> 1)
        relay.router.finish(self, unplaced)
        self.outbox.discard(_QUEUE_DROPPED_AS.get(reason, DropReason.PEER_GONE))
        self._free()
        relay.ended(self, reason)
        self.connection.close()
