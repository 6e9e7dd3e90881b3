"""One connection of a client, from the hello to its end.

1. The relay answers the hello before anything else: a connection counts as made once the relay has welcomed it, and, if
   it has events, has sent the list of clients. A bound path (the article's way) has no hello, no welcome and no events.
2. Then two tasks serve it. The writer writes what the outbox gathers; the reader gives what arrives to requests,
   presence and inbox, in order, and stops reading while a claim is full.
3. The session ends with the reader: at end of file or on an error. When only writing fails, the reader still takes what
   the relay had sent before, above all why it closed, for at most `LAST_WORDS` seconds. In this case, and when the
   relay has hung up, a full claim does not stop the reader: the kernel's buffer bounds what is left. A third task ends
   the session if the relay's host has vanished while data was in flight to it (`_liveness`).
4. Each destination is noted as unconfirmed, with the number of the FLUSH that will cover it, until that FLUSH is
   answered. Frames to the destinations that are noted when the session ends may or may not have arrived.
"""

from contextlib import suppress
from functools import partial

import trio

from .._liveness import INTERVAL
from ..protocol import (
    ALL_IDS,
    RELAY,
    CloseReason,
    ConnectionLost,
    Event,
    EventCode,
    FrameReader,
    Hello,
    HelloOption,
    HelloRefused,
    Refusal,
    RemoteProtocolError,
    encode_hello,
)
from ._bare import open_bare_nursery
from ._inbox import Inbox
from ._outbox import Outbox
from ._presence import Presence
from ._requests import Requests
from ._transport import Wire

LAST_WORDS = 1.0
"""Seconds to read the rest after writing failed: it is in this machine's kernel already."""

PROBE_INTERVAL = 1.0
"""Seconds between checks whether the relay has hung up, while a full claim keeps the socket from being read. Tasks that
wait for something else than data must notice a relay that gives up on a client that does not read."""

CONFIRM_INTERVAL = 0.25
"""Seconds between two FLUSHes that a reconnecting client asks by itself, while it sends: a few bytes, seldom."""

EARLY_BYTES = 65536
"""Data that may come before the list of clients: half of what a claim holds."""

BOUND_PATIENCE = 1.0
"""Seconds to wait for the end of file where there was no hello: the article's server never sends one, and a Unix socket
that was closed still hands over all that was written to it."""


class Session:
    """A connection that was made.

    Args:
        wire: the connection; closed at the end of `run`.
        hello: what introduces the client; None for a bound path, which gives the id already.
        inbox: gets the data that arrives.
        presence: gets the events.
        confirms: whether to ask a FLUSH from time to time, while something is sent.

    Attributes:
        outbox: what is to be written; broken once nothing more can be.
        unconfirmed: destinations of frames of which nothing has proved that they arrived, with the number of the last
            send to each.
        sent: how many sends there were.
        reason: why the session ended, as far as it is known.
    """

    def __init__(self, wire: Wire, hello: Hello | None, inbox: Inbox, presence: Presence, *, confirms: bool) -> None:
        self.outbox: Outbox = Outbox(wire.offer)
        self.unconfirmed: dict[int, int] = {}
        self._over = trio.Event()
        self._wire = wire
        self._hung_up = False
        self._confirms = confirms
        self._hello = hello
        self._inbox = inbox
        self._presence = presence
        self._requests = Requests(self.outbox, self.loss)
        self._frames = FrameReader()
        self.sent: int = 0
        # The relay may have reported drops to another client that shares the id.
        self._drops_reported: set[int] = set(ALL_IDS) if hello and HelloOption.SHARE in hello.options else set()
        self._dirty = trio.lowlevel.ParkingLot()
        self._early: list[tuple[int, bytes] | Event] = []
        self._began_full = False
        self._synced = False
        self.reason: CloseReason = CloseReason.RESET
        self._detail = "it was closed by the relay or on the way to it"

    def loss(self) -> ConnectionLost:
        """Return the exception that reports this session's end, a new one for each task."""
        return ConnectionLost(self.reason, self._detail if self.reason == CloseReason.RESET else "")

    async def greet(self) -> None:
        """Say hello and wait for the welcome and the list of clients.

        Raises:
            HelloRefused: the relay refused.
            ConnectionLost: the connection ended before an answer.
            RemoteProtocolError: the answer is not from a relay.
        """
        if self._hello is None:
            return
        try:
            await self._wire.write(encode_hello(self._hello.id, self._hello.options, self._hello.token))
            answer = b""
            while len(answer) < 2:
                answer += await self._receive()
            self._check_welcome(self._hello, answer[0], answer[1])
            self._take_early(answer[2:])
            while not self._synced:
                self._take_early(await self._receive())
        except (OSError, trio.BrokenResourceError) as error:
            self._note(error)
            raise self.loss() from error
        if not self._inbox.is_full:
            self._give_early()

    def _take_early(self, chunk: bytes) -> None:
        """Take the list of clients; keep data, and what comes after it, until `run`, which looks for room."""
        for item in self._frames.feed(chunk):
            if self._early or not isinstance(item, Event):
                self._early.append(item)
                self._synced = self._synced or item == Event(EventCode.SYNCED, 0)
            else:
                self._take(item)
        if sum(len(item[1]) for item in self._early if not isinstance(item, Event)) + len(self._early) > EARLY_BYTES:
            raise RemoteProtocolError("what answered is no relay: it sends without end before its list of clients")

    async def _receive(self) -> bytes:
        chunk = await self._wire.read()
        if not chunk:
            self._detail = "it was closed before the welcome; the relay's log says why"
            raise self.loss()
        return chunk

    def _check_welcome(self, hello: Hello, id: int, code: int) -> None:
        if code != Refusal.WELCOME and id == hello.id:
            raise HelloRefused(hello.id, code)
        as_wanted = id == hello.id if hello.id or hello.is_observer else id != RELAY
        if code != Refusal.WELCOME or not as_wanted:
            raise RemoteProtocolError(f"what answered is no relay: 0x{id:02x} 0x{code:02x} is no answer to a hello")
        self._presence.own = id

    async def run(self) -> None:
        """Serve the connection until it ends, then close it. Cancelled, it is cut off at once."""
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._watch, nursery.cancel_scope)
                if self._confirms and self._hello is not None:
                    nursery.start_soon(self._keep_confirming)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            await self._wire.aclose()

    def break_off(self) -> None:
        """Note that the connection has ended, and wake every task that waits for it."""
        self.outbox.break_off()
        self._requests.break_off()
        self._over.set()

    async def _read(self) -> None:
        try:
            self._began_full = self._inbox.is_full
            await self._wait_room()
            self._give_early()
            while chunk := await self._wire.read():
                self._give(self._frames.feed(chunk))
                await self._inbox.let_receive()
                await self._wait_room()
        except (OSError, trio.BrokenResourceError, RemoteProtocolError) as error:
            self._note(error)

    async def _wait_room(self) -> None:
        while self._inbox.is_full and not (self.outbox.broken or self._hung_up):
            with trio.move_on_after(PROBE_INTERVAL):
                await self._inbox.wait_relief()
            self._hung_up = self._wire.is_hung_up()

    async def _write(self, whole: trio.CancelScope) -> None:
        try:
            while frames := await self.outbox.take():
                await self._wire.write(frames)
            await self._wire.send_eof()
        except (OSError, trio.BrokenResourceError) as error:
            self._note(error)
            self.outbox.break_off()
            self._inbox.relieve()
            whole.deadline = trio.current_time() + LAST_WORDS
        else:
            if self._hello is None:
                self.unconfirmed.clear()
                whole.deadline = trio.current_time() + BOUND_PATIENCE

    async def _watch(self, whole: trio.CancelScope) -> None:
        while self._wire.is_tcp:
            await trio.sleep(INTERVAL)
            if self._wire.is_silent():
                self._detail = "the relay does not answer any more"
                whole.cancel()
            elif self._inbox.is_full:
                # A relay that closed the connection cannot say so behind a closed window. Its kernel resets it then.
                self._requests.probe()

    def _note(self, error: BaseException) -> None:
        cause = error.__cause__ or error
        self._detail = (isinstance(cause, OSError) and cause.strerror) or str(cause) or self._detail

    def _give_early(self) -> None:
        early, self._early = self._early, []
        self._give(early)

    def _give(self, items: list[tuple[int, bytes] | Event]) -> None:
        # More data than there is room for comes only from a connection that has ended. It is kept, unless nothing was
        # received since an earlier loss: otherwise each loss would add to what waits.
        has_room = not (self._began_full and self._inbox.is_full)
        for item in items:
            if isinstance(item, Event):
                self._take(item)
            elif has_room:
                self._inbox.deliver(*item)

    def _take(self, event: Event) -> None:
        match event.code:
            case EventCode.PONG | EventCode.FLUSHED:
                self._requests.answer(event.code, event.argument)
            case EventCode.SYNCED:
                self._synced = True
            case EventCode.JOINED | EventCode.LEFT | EventCode.NO_ROUTE | EventCode.DROPPED:
                if event.code == EventCode.DROPPED:
                    self._drops_reported.add(event.argument)
                self._presence.apply(event)
                self._inbox.tell(event)
            case _:
                if event.code in (EventCode.CLOSING, EventCode.DRAINING):
                    with suppress(ValueError):
                        is_closing = event.code == EventCode.CLOSING
                        self.reason = CloseReason(event.argument) if is_closing else CloseReason.DRAINING
                self._presence.publish(event)

    def put(self, destination: int, data: bytes) -> None:
        """Queue one frame a byte of `data`, in one step and regardless of the limit."""
        self._note_sent(destination)
        self.outbox.send(destination, data)

    def put_message(self, destination: int, sealed: bytes) -> None:
        """Queue the frames of a sealed message, as `put` does."""
        self._note_sent(destination)
        self.outbox.send_message(destination, sealed)

    def renew_drop_reports(self, destination: int) -> None:
        """Make the relay report the next drop of a frame to `destination`, although it has reported one."""
        if destination in self._drops_reported:
            self._drops_reported.clear()
            self._requests.probe(EventCode.FLUSH)

    def _note_sent(self, destination: int) -> None:
        if not self.unconfirmed:
            self.outbox.wake(self._dirty)
        self.sent = self.unconfirmed[destination] = self.sent + 1

    async def flush(self) -> None:
        """Wait until the relay has written or dropped all that was queued before.

        Raises:
            ConnectionLost: the connection ended first.
        """
        await self._requests.ask(EventCode.FLUSH, partial(self._confirm, self.sent))

    async def ping(self) -> None:
        """Wait for the relay's answer; errors as those of `flush`."""
        await self._requests.ask(EventCode.PING, lambda: None)

    def _confirm(self, sent: int) -> None:
        self.unconfirmed = {id: last for id, last in self.unconfirmed.items() if last > sent}

    def prove(self, destination: int, sent: int) -> None:
        """Note that a reply proves the arrival of all data to `destination`, up to the send of that number."""
        if self.unconfirmed.get(destination, sent) < sent + 1:
            self.unconfirmed.pop(destination, None)

    async def _keep_confirming(self) -> None:
        # A reconnecting client reports what a loss may have taken, but not data that was received long ago.
        with suppress(ConnectionLost):
            while True:
                while not self.unconfirmed:
                    await self._dirty.park()
                await self.flush()
                await trio.sleep(CONFIRM_INTERVAL)

    async def finish(self) -> None:
        """Get a confirmation for all that was queued, shut the sending side and read to end of file."""
        if self._hello is not None:
            await self.flush()
        self.outbox.finish()
        await self._over.wait()
