"""The state of one client, from its id to its end. The task that drives it is in `_client_task`.

1. All state of a client is here and in its outbox: rights, a half frame, bytes that are read and not routed, what it
   waits for, which events it got. Nothing here waits, and every method is a step without a checkpoint.
2. A session is blocked while it waits for room in an outbox or for the answer to a FLUSH, and while a part of a chunk
   is not routed. Nothing reads a blocked session: `Router.receive` ensures that.
3. Everything that changes what its task waits for ends in `wake`.
4. `close` ends it from outside: it stops writing, and cancels the session's task.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping

import trio

from ..protocol import CloseReason, EventCode, HelloOption, encode_event
from ._connection import Connection
from ._marks import Countdown
from ._outbox import Outbox
from ._policy import Grant
from ._state import RemoteLease, SessionState

SMALL_CHUNK = 256
"""Bytes to read at a time from a client that sends little: a larger allocation costs a tenth of the read."""
EVENTS_NOT_TAKEN = 8192 // 4
"""Unrequested events that may wait in a session's queue; with more, the relay closes the session."""
FLUSHES_AT_ONCE = 64
"""Unanswered FLUSHes that a session may have; with more, the relay does not read it until one is answered."""


class Session:
    """A client that holds an id, or an observer.

    Attributes:
        id: its id; 0 for an observer.
        name_byte: its id as the source of a frame.
        connection: its connection, which its task closes.
        outbox: what waits for it.
        options: what its hello asked for, and SHARE if its id is always shared.
        events: whether it gets events.
        mapped: whether it has its id without a hello.
        shared: whether it holds its id together with others.
        grant: what the policy lets it do.
        principal: the name of its principal, for people; empty if it has none.
        to: the ids it may send to; None for all.
        unrestricted: whether it may send to every id.
        recv_nowait: its connection's.
        chunk_size: bytes to read next.
        turn: the number of the step in which it was last read among those that send much.
        half: bytes of a frame or a request that is not complete yet.
        rest: the part of a chunk that is not routed yet.
        sent_to: with events, the queues that it put frames into, and the place after the last of them.
        no_route_sent: absent ids for which it got NO_ROUTE.
        since: when it got its id.
        ended: why it ends; None while it does not.
        waits: how many things it waits for.
        flushes: the numbers of the FLUSHes that are not answered yet; each is answered before those after it.
        waiting_since: when it began to wait for an outbox.
        wait_logged: whether the relay has logged the wait.
        progress_at: when its client last took something while frames wait for it; None while none do.
        left_since: when its client shut its sending side and its id became free; None before.
        freed: set once its id is free.
        woken: set when its task has to look at what has changed.
        scope: its task's.
    """

    def __init__(
        self,
        id: int,
        connection: Connection,
        outbox: Outbox,
        grant: Grant,
        options: HelloOption,
        *,
        waited_by_id: list[float],
        mapped: bool = False,
    ) -> None:
        """Make a session; `waited_by_id` gets the seconds that it waits for others added, at its id."""
        self.id = id
        self.name_byte: bytes = bytes((id,))
        self.connection = connection
        self.outbox = outbox
        self.options = options
        self.events: bool = HelloOption.EVENTS in options
        self.shared: bool = HelloOption.SHARE in options
        self.mapped = mapped
        self.apply(grant)
        self.recv_nowait: Callable[[int], bytes] = connection.recv_nowait
        self.chunk_size: int = SMALL_CHUNK
        self.turn: int = 0
        self.half: bytes = b""
        self.rest: bytes = b""
        self.sent_to: dict[Outbox, int] = {}
        self.no_route_sent: set[int] = set()
        self.since: float = trio.current_time()
        self.ended: CloseReason | None = None
        self.waits: int = 0
        self.flushes: bytearray = bytearray()
        self.waiting_since: float = 0.0
        self.wait_logged: bool = False
        self.progress_at: float | None = None
        self.left_since: float | None = None
        self.freed: trio.Event = trio.Event()
        self.woken: trio.Event = trio.Event()
        self.scope: trio.CancelScope = trio.CancelScope()
        self._waited_by_id = waited_by_id
        self._waits_for: list[Outbox] = []
        self._waits_for_flush = False
        self._has_hung_up = False
        self._event_marks: list[int] = []
        outbox.on_broken = self.wake

    @property
    def blocked(self) -> bool:
        """Whether the relay must not read it now."""
        return bool(self.waits or self.rest)

    def apply(self, grant: Grant) -> None:
        """Let it do what `grant` says from now on."""
        self.grant = grant
        self.principal: str = grant.principal
        self.to: frozenset[int] | None = grant.to
        self.unrestricted: bool = bool(self.id) and grant.to is None

    def may_know(self, other: "Session | RemoteLease") -> bool:
        """Return whether it may send to `other` or hear from it; an observer, whether its principal may."""
        if self.to is None or other.id in self.to or other.to is None:
            return True
        return self.id in other.to if self.id else not self.grant.ids.isdisjoint(other.to)

    def wake(self) -> None:
        """Let its task look at what has changed."""
        self.woken.set()

    # -- waiting

    @property
    def waiting_for(self) -> int | None:
        """The id of the destination that it waits for, the lowest of several; None if it waits for none."""
        return min((outbox.id for outbox in self._waits_for), default=None)

    def pause_for(self, outbox: Outbox, frames: bytes | bytearray) -> None:
        """Wait until there is room for `frames` in `outbox`."""
        if not self._waits_for:
            self.waiting_since = trio.current_time()
            self.wait_logged = False
        self.waits += 1
        self._waits_for.append(outbox)
        outbox.pause(self, frames)

    def unpause(self, outbox: Outbox) -> None:
        """Note that what was left with `outbox` was placed or dropped."""
        if self.events:
            self.sent_to[outbox] = outbox.put_bytes
        self._waits_for.remove(outbox)
        if not self._waits_for:
            self._count_waited()
        self._waited()

    def hang_up(self) -> None:
        """Note that the client has hung up: the session waits for no answer to a FLUSH any more."""
        self._has_hung_up = True
        self._wait_for_no_flush()

    def _wait_for_no_flush(self) -> None:
        if self._waits_for_flush:
            self._waits_for_flush = False
            self._waited()

    def flush(self, number: int) -> None:
        """Answer FLUSH `number` once all that it has sent is written or dropped."""
        self.flushes.append(number)
        self.sent_to = {outbox: place for outbox, place in self.sent_to.items() if place > outbox.taken_bytes}
        Countdown(self.sent_to.items(), self._flushed)
        if len(self.flushes) >= FLUSHES_AT_ONCE and not (self._waits_for_flush or self._has_hung_up):
            self._waits_for_flush = True
            self.waits += 1

    def _flushed(self) -> None:
        self.outbox.put(encode_event(EventCode.FLUSHED, self.flushes.pop(0)))
        self._wait_for_no_flush()
        self.wake()

    def give_up_waiting(self) -> list[tuple[Outbox, bytes | bytearray]]:
        """Take back what was left with outboxes, and wait for nothing more."""
        given_back = [(outbox, frames) for outbox in set(self._waits_for) for frames in outbox.withdraw(self)]
        if self._waits_for:
            self._count_waited()
        self._waits_for.clear()
        self.waits = 0
        return given_back

    def _count_waited(self) -> None:
        self._waited_by_id[self.id] += trio.current_time() - self.waiting_since

    def _waited(self) -> None:
        self.waits -= 1
        if not self.waits:
            self.wake()

    # -- events, and its end

    def notify(self, code: EventCode, argument: int) -> None:
        """Queue an event that it did not ask for."""
        self.put_event(encode_event(code, argument))

    def put_event(self, event: bytes, *, news: bool = False) -> None:
        """Do what `notify` does; close the session if it takes no event. `news` is as in `Outbox.put`."""
        outbox = self.outbox
        if outbox.broken:
            return
        marks = self._event_marks
        del marks[: bisect_right(marks, outbox.taken_bytes)]
        if len(marks) >= EVENTS_NOT_TAKEN:
            self.close(CloseReason.SLOW_CONSUMER)
            return
        outbox.put(event, news=news)
        marks.append(outbox.put_bytes)

    def close(self, reason: CloseReason) -> None:
        """End it from outside, for `reason`; nothing is written to it any more. Idempotent.

        Its id is free once its task has run.
        """
        if self.scope.cancel_called or self.freed.is_set():
            return
        if self.events and not self.outbox.broken:
            self.outbox.put(encode_event(EventCode.CLOSING, reason))
            self.outbox.flush()
        self.end(reason)

    def end(self, reason: CloseReason) -> None:
        """Do what `close` does, for one too that has left and is still written to; it is not told."""
        self.ended = reason
        self.scope.cancel()
        self.outbox.seal()

    # -- handover

    def capture(self, sessions: Mapping[object, int]) -> SessionState:
        """Describe the session; `sessions` is as for `Outbox`."""
        now, outbox = trio.current_time(), self.outbox
        queue = outbox.capture(sessions)
        base = outbox.taken_bytes - queue.taken
        return SessionState(
            id=self.id,
            grant=self.grant,
            queue=queue,
            options=self.options,
            mapped=self.mapped,
            half=self.half,
            rest=self.rest,
            no_route_sent=sorted(self.no_route_sent),
            age=now - self.since,
            ended=self.ended,
            freed=self.freed.is_set(),
            stalled=None if self.progress_at is None else now - self.progress_at,
            left_since=None if self.left_since is None else now - self.left_since,
            flushes=bytes(self.flushes),
            waiting=now - self.waiting_since if self._waits_for else 0.0,
            wait_logged=self.wait_logged,
            event_marks=[mark - base for mark in self._event_marks if mark > outbox.taken_bytes],
        )

    def restore(self, state: SessionState) -> None:
        """Continue from `state`; all queues continue already, and it waits for room in them as it did."""
        now = trio.current_time()
        self.half, self.rest = state.half, state.rest
        self.no_route_sent.update(state.no_route_sent)
        self.since = now - state.age
        self.progress_at = None if state.stalled is None else now - state.stalled
        self.left_since = None if state.left_since is None else now - state.left_since
        self.waiting_since = now - state.waiting
        self.wait_logged = state.wait_logged
        self._event_marks.extend(state.event_marks)
        if state.ended is not None:
            self._has_hung_up = True
            self.ended = CloseReason(state.ended)
            if self.ended not in (CloseReason.LEFT, CloseReason.RESET):
                self.end(self.ended)
        if state.freed:
            self.freed.set()
