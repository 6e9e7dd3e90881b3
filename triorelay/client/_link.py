"""The client's connection to its relay, however often it is made.

1. A link has one session at a time, or none while it reconnects. It ends in one of two ways: closed by this side, or
   failed. It fails if the session was lost and is not made again: without `reconnect`, or if that would do harm.
   `check` raises the reason, and `_wake` lets every waiting task check.
2. A frame belongs to the session that it was queued on, and never moves to another: so nothing is sent late or twice. A
   send fails if its session is lost after a part of it was queued. If none of it was, it waits for the next session, or
   fails, as the `Backoff` says.
3. Frames that were not confirmed when a session was lost are reported: by events, with `strict` by the next send, and
   in any case by the next flush, which could not keep its promise. Leaving the block flushes.
4. Closing has one deadline for all of it. Whatever happens, the background task is cancelled at the end.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain

import trio

from ..protocol import CloseReason, ConnectionLost, Event, HelloRefused, RelayError
from ._idle import idle
from ._inbox import Inbox
from ._presence import ConnectionEvent, Presence
from ._reconnect import SETTLED, Backoff, is_passing
from ._session import Session

CLOSE_TIMEOUT = 30.0
"""Seconds that leaving may take: three times the stall timeout, after which a relay closes a client that takes
nothing."""

PIECE = 32768
"""Data bytes queued in one step: what the relay reads at a time."""


class Link:
    """One session after another.

    Args:
        open_session: makes a session that fills the inbox and the presence, with the id that the presence knows.
        backoff: how to reconnect after a loss; None to fail instead.
        has_events: False for a bound path.
        strict: whether lost frames make later calls fail.

    Attributes:
        closed: whether this side has closed.
        inbox: the data that arrived, of all sessions.
        presence: what this client knows of the others.
        loss: makes the exception that reports the latest loss.
    """

    loss: Callable[[], ConnectionLost]

    def __init__(
        self,
        open_session: Callable[[Inbox, Presence], Awaitable[Session]],
        *,
        backoff: Backoff | None,
        has_events: bool,
        strict: bool,
    ) -> None:
        self.has_events: bool = has_events
        self.closed: bool = False
        self.inbox: Inbox = Inbox(self.check, idle().wake)
        self.presence: Presence = Presence(self.check, self.loss_reported)
        self._open_session = open_session
        self._backoff = backoff
        self._strict = strict
        self._session: Session | None = None
        self._failure: Callable[[], RelayError] | None = None
        self._unreported: Callable[[], ConnectionLost] | None = None
        self._unflushed: Callable[[], ConnectionLost] | None = None
        self._lost = trio.current_time()
        self._now = trio.lowlevel.current_clock().current_time
        self._scope = trio.CancelScope()

    # -- closed or failed

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` once this side has closed."""
        if self.closed:
            raise trio.ClosedResourceError("this client is closed; open another one with open_client()")

    def check(self) -> None:
        """Raise if the client is closed, or has failed for good."""
        self.check_open()
        if self._failure is not None:
            raise self._report(self._failure)

    def loss_reported(self) -> None:
        """Note that an exception or an event has reported the losses so far; leaving need not do so."""
        self._unreported = None

    def _report(self, failure: Callable[[], RelayError]) -> RelayError:
        """Return an exception that reports the losses so far, so that neither flushing nor leaving need do so."""
        self._unreported = self._unflushed = None
        return failure()

    def _wake(self) -> None:
        self.inbox.wake()
        self.presence.changed.unpark_all()

    @property
    def is_made(self) -> bool:
        """Whether there is a connection that something can be sent on."""
        return self._session is not None

    # -- one session after another

    async def open(self) -> None:
        """Make the first session."""
        pauses = self._backoff.pauses() if self._backoff is not None and self._backoff.initial else ()
        self._session = await self._connect(chain((0.0,), pauses), CloseReason.LEFT)

    async def run(self) -> None:
        """Serve the sessions until the link is closed or has failed."""
        pauses: Iterator[float] | None = None
        with self._scope:
            while self._session is not None:
                session, began = self._session, trio.current_time()
                try:
                    await session.run()
                finally:
                    session.break_off()
                if self.closed:
                    return
                self._lose(session)
                if self._backoff is None or self._failure is not None:
                    return
                if pauses is None or trio.current_time() - began >= SETTLED:
                    pauses = self._backoff.pauses()
                await self._reopen(pauses, session.reason)
                self._wake()

    def _lose(self, session: Session) -> None:
        self._session, self._lost = None, trio.current_time()
        self.loss = partial(self._loss_of, session, self._lost)
        if session.unconfirmed:
            self._unreported, self._unflushed = self._unreported or self.loss, self._unflushed or self.loss
        self.inbox.lose()
        self.presence.lose(session.reason, sorted(session.unconfirmed) if self.has_events else [])
        # Two sessions that both reconnect would replace each other without end.
        if self._backoff is None or session.reason == CloseReason.REPLACED:
            self._failure = self.loss
        self._wake()

    async def _reopen(self, pauses: Iterator[float], reason: CloseReason) -> None:
        try:
            self._session = await self._connect(pauses, reason)
        except RelayError as error:
            self._failure = partial(type(error), *error.args)
        else:
            self.presence.publish(Event(ConnectionEvent.RESTORED, self.presence.own))

    async def _connect(self, pauses: Iterable[float], reason: CloseReason) -> Session:
        """Try to make a session after each pause, as long as another attempt may help."""
        for pause in pauses:
            await trio.sleep(pause)
            try:
                return await self._open_session(self.inbox, self.presence)
            except HelloRefused as refusal:
                if not is_passing(refusal.code, trio.current_time() - self._lost, reason):
                    raise
                error: Exception = refusal
            except (OSError, ConnectionLost) as failure:
                self.presence.forget()
                error = failure
        raise error

    def _loss_of(self, session: Session, lost: float) -> ConnectionLost:
        """Return the exception for a loss at the time `lost`. It may be called in another thread."""
        error = session.loss()
        error.when, error.restored = self._now() - lost, self.is_made
        return error

    # -- sending and asking

    async def send(self, destination: int, data: bytes | bytearray | memoryview) -> None:
        """Queue one frame a byte of `data`, `PIECE` bytes at a time, each piece whole or not at all."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._strict:
            self.presence.check_delivered(destination)
        session = self._session
        if session is None or not session.outbox.has_room or self.closed:
            session = await self._room(None)
        for start in range(0, len(data), PIECE):
            if start:
                session = await self._room(session)
            session.put(destination, bytes(data[start : start + PIECE]))
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def send_message(
        self,
        destination: int,
        sealed: bytes,
        on_queued: Callable[[Session], object] | None = None,
        *,
        despite_loss: bool = False,
        must_report: bool = False,
    ) -> None:
        """Queue a sealed message, all of it or, cancelled or failed, nothing.

        Args:
            destination: the id.
            sealed: what `seal_message` made.
            on_queued: called in the step in which it was queued, with the session that takes it; from then on it may
                arrive, whatever is raised.
            must_report: whether DROPPED comes if any of this is dropped, even if it came for earlier frames.
            despite_loss: whether to send although earlier frames were lost, also with `strict`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._strict and not despite_loss:
            self.presence.check_delivered(destination)
        session = self._session
        if session is None or not session.outbox.has_room or self.closed:
            session = await self._room(None)
        if must_report:
            session.renew_drop_reports(destination)
        session.put_message(destination, sealed)
        if on_queued is not None:
            on_queued(session)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def session_now(self, destination: int) -> Session:
        """Return the session that takes something for `destination` now, or raise WouldBlock."""
        if self._strict:
            self.presence.check_delivered(destination)
        session = self._session
        if session is None:
            self.check()
        if session is None or not session.outbox.has_room:
            raise trio.WouldBlock
        return session

    @property
    def has_room(self) -> bool:
        """Whether a send would not wait now."""
        return self._session is not None and self._session.outbox.has_room and not self.closed

    async def wait_room(self) -> None:
        """Wait until a send would not wait."""
        await trio.lowlevel.checkpoint()
        await self._room(None)

    def put(self, destination: int, data: bytes, *, must_report: bool = False) -> None:
        """Queue a few bytes, such as an END to a peer, without waiting. No-op without a connection.

        While the client closes they are not noted as unconfirmed, because the FLUSH that confirms was asked before.
        `must_report` is that of `send_message`.
        """
        if self._session is not None:
            if must_report:
                self._session.renew_drop_reports(destination)
            (self._session.outbox.send if self.closed else self._session.put)(destination, data)

    async def _room(self, begun: Session | None) -> Session:
        while True:
            session = await self._connected(begun)
            if session.outbox.has_room:
                return session
            await session.outbox.wait_room()

    async def _connected(self, begun: Session | None = None) -> Session:
        """Wait for a session, or raise; also if it is another one than that on which a send has `begun`."""
        while True:
            self.check_open()
            session = self._session
            if begun is not None and session is not begun:
                self.loss_reported()
                text = "it broke in the middle of a send; part of the data may have arrived"
                raise ConnectionLost(begun.reason, text)
            if session is not None and not session.outbox.broken:
                return session
            self.check()
            # A session that is broken may still hear why: it is lost, and reported, when it has ended.
            if session is None and self._backoff is not None and self._backoff.sends == "fail":
                self.loss_reported()
                ago = trio.current_time() - self._lost
                raise ConnectionLost(CloseReason.RESET, "it is being made again; nothing of this was sent", when=ago)
            await self.presence.changed.park()

    async def flush(self) -> None:
        """Wait until all that was sent is written or dropped."""
        session = await self._ask()
        try:
            await session.flush()
        except ConnectionLost:
            self._unreported = self._unflushed = None
            raise
        self._check_flushed()

    async def confirm(self) -> bool:
        """Wait until all that was sent on this connection is written or dropped; return False if it is lost first."""
        with suppress(ConnectionLost):
            if self._session is not None:
                await self._session.flush()
                return True
        return False

    async def ping(self) -> None:
        """Wait for an answer of the relay."""
        await (await self._ask()).ping()

    async def _ask(self) -> Session:
        await trio.lowlevel.checkpoint()
        self.check_open()
        self._check_flushed()
        return await self._connected()

    def _check_flushed(self) -> None:
        if self._unflushed is not None:
            raise self._report(self._unflushed)
        if self._strict:
            self.presence.check_delivered()

    # -- its end

    async def aclose(self) -> None:
        """Flush, shut the sending side, read to end of file, all within `CLOSE_TIMEOUT`.

        Raises:
            ConnectionLost: frames that no flush had confirmed may not have arrived.
            NotDelivered: with `strict`, frames did not arrive.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        session = self._session
        self.abandon()
        try:
            if session is not None:
                await self._finish(session)
        finally:
            self._scope.cancel()
        await trio.lowlevel.checkpoint()
        if self._unreported is not None:
            raise self._report(self._unreported)
        if self._strict:
            self.presence.check_delivered()

    async def _finish(self, session: Session) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT) as scope, suppress(ConnectionLost):
            await session.finish()
        if session.unconfirmed:
            late = f"what was sent was not all written within {CLOSE_TIMEOUT:g} s; flush() before leaving waits longer"
            self._unreported = (
                partial(ConnectionLost, CloseReason.LEFT, late) if scope.cancelled_caught else session.loss
            )

    def abandon(self) -> None:
        """Close, and discard what arrives from now on; the session ends with the task that runs it."""
        self.closed = True
        self.inbox.discard()
        self._wake()
