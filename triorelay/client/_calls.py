"""Calls: request and reply whose cancellation crosses the wire. `_switchboard.py` has the theory."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from random import getrandbits
from typing import final

import trio

from .._fields import check_count
from ..protocol import (
    CALL_HEADER,
    DEFAULT_MESSAGE_LIMIT,
    LONGEST_FAIL,
    CallKind,
    CallMessage,
    ConnectionLost,
    FailReason,
    LocalProtocolError,
    RelayError,
    check_octets,
    id_byte,
    id_name,
    id_text,
    seal_message,
    stuff_sealed,
)
from ._bare import open_bare_nursery
from ._errors import CallFailed, NotDelivered
from ._exclusive import Exclusive
from ._link import Link
from ._session import Session
from ._switchboard import HandledCall, OpenCall, Switchboard, failure

CALL_LIMIT = DEFAULT_MESSAGE_LIMIT - CALL_HEADER
"""Bytes of payload in a call or a reply, unless both sides agree on another limit: a message then has 1 MiB."""

SERVING_PATIENCE = 1.0
"""Seconds after the opening for which calls wait for `serve`: other clients call at once when they see JOINED."""

SETTLE_INTERVAL = 0.25
"""Seconds between two questions which answers were written, while calls are answered: a few bytes, seldom."""

ANSWER_DROPPED = "the relay dropped the answer, because the caller took too slowly what was sent to it"

LOGGER = logging.getLogger("triorelay.client")

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Serves a call: from the caller's id and the payload to the payload of the reply."""


@final
class Calls:
    """Calls to and from other clients; what `Client.calls` gives. All methods may be called from several tasks.

    Attributes:
        limit: bytes that the payload of a call or a reply may have.
    """

    def __init__(self, limit: int, link: Link) -> None:
        self.limit: int = limit
        self._message_limit = max(limit + CALL_HEADER, LONGEST_FAIL)
        self._board = Switchboard(self._message_limit, link)
        self._link = link
        self._numbers = count(getrandbits(32))
        self._one_server = Exclusive("calls are being served already; one serve() at a time, with a larger at_once")
        link.inbox.claim_rest(self._board)

    @property
    def ignored(self) -> int:
        """Messages so far that belonged to no open call: late replies, late cancellations, and other data."""
        return self._board.ignored

    @property
    def discarded(self) -> int:
        """Messages discarded so far because they arrived cut, damaged or over the limit."""
        return self._board.assembler.discarded

    async def call(self, id: str | bytes | int, payload: bytes | bytearray | memoryview) -> bytes:
        """Call the client `id` and return the payload of its reply. `trio.fail_after` limits the time.

        The call is sent at most once. Cancelled, it is cancelled there too, if it was sent. It never waits for a client
        that went. Only a time limit ends it if the other client opened no `calls()`, or left that block when its answer
        was dropped, or if the engine between the relays of a realm lost the call or its answer.

        Raises:
            CallFailed: the other client says that it failed, with its reason; or that the relay dropped its answer.
            NotDelivered: no client holds `id`, or frames to it were dropped.
            PeerLeft: the other client left before it answered. It may have done what it was asked for.
            ConnectionLost: the connection to the relay was lost before the answer came. The same holds.
            LocalProtocolError: the payload has more bytes than `limit`.
            TypeError: the payload is not bytes.
            trio.ClosedResourceError: the block of these calls, or of this client, was left.
        """
        callee = id_byte(id)
        while (number := next(self._numbers) & 0xFFFFFFFF) in self._board.open:
            pass
        sealed = self._seal(CallMessage(CallKind.CALL, number, self._checked(payload)))
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._link.presence.check_route(callee)
        call, calls = OpenCall(callee), self._board.open

        def queued(session: Session) -> None:
            calls[number] = call
            call.proven = partial(session.prove, callee, session.sent)

        try:
            await self._link.send_message(callee, sealed, queued, must_report=True)
            await call.answered.wait()
        except BaseException:
            if number in calls and not call.answered.is_set():
                self._link.put(callee, stuff_sealed(self._seal(CallMessage(CallKind.CANCEL, number))))
            raise
        finally:
            calls.pop(number, None)
        if call.failure is None:
            return call.reply
        error = call.failure()
        if isinstance(error, NotDelivered):
            self._link.presence.drop_reported(callee)
        elif isinstance(error, ConnectionLost):
            self._link.loss_reported()
        raise error

    async def serve(self, handler: Handler, *, at_once: int = 32) -> None:
        """Answer calls until cancelled: each by what `handler` returns, in a task of its own.

        `handler` is called with the caller's id and the payload. It is cancelled when the caller cancels the call or
        leaves, and when the connection is lost. If it raises an exception, the caller gets a `CallFailed` with the
        exception's text, the logger `triorelay.client` gets the traceback, and serving continues. Where `at_once` calls
        are being handled, further ones are refused. Cancelled, it cancels the handlers, and their callers get a FAIL.

        Raises:
            ConnectionLost: there is no relay any more.
            ValueError: `at_once` is less than 1.
            trio.BusyResourceError: calls are being served already.
            trio.ClosedResourceError: the block of these calls, or of this client, was left.
        """
        check_count("at_once", at_once, 1)
        board = self._board
        with self._one_server:
            await trio.lowlevel.checkpoint()
            async with open_bare_nursery() as nursery:
                board.begin(at_once, lambda handled: nursery.start_soon(self._handle, handler, handled))
                self._link.inbox.took(board)
                try:
                    while True:
                        self._check_open()
                        self._link.check()
                        await board.arrived.park()
                finally:
                    for handled in board.end_all():
                        caller, number = handled.key
                        ended = self._seal(failure(number, FailReason.ENDED))
                        self._link.put(caller, stuff_sealed(ended), must_report=True)
                        board.note_answer(handled.key)

    async def _handle(self, handler: Handler, handled: HandledCall) -> None:
        with handled.scope:
            await trio.lowlevel.checkpoint_if_cancelled()
            answer = await self._answer(handler, handled)
            # A lost relay cancels this scope, and the end of the client ends serve().
            with suppress(trio.ClosedResourceError):
                await self._send(handled.key[0], answer)

    async def _answer(self, handler: Handler, handled: HandledCall) -> CallMessage:
        caller, number = handled.key
        try:
            reply = self._checked(await handler(id_text(caller), handled.payload))
        except CallFailed as error:
            return failure(number, error.reason, error.text)
        except Exception as error:
            LOGGER.exception("the handler of a call of %s failed", id_name(caller))
            return failure(number, FailReason.FAILED, str(error) or type(error).__name__)
        return CallMessage(CallKind.REPLY, number, reply)

    async def _wait_for_serving(self) -> None:
        """Let calls that came before `serve` was called wait for it a while, and refuse them then."""
        await trio.sleep(SERVING_PATIENCE)
        if self._board.is_new:
            self._board.begin()

    async def _send_failures(self) -> None:
        """Send the FAILs of calls that no handler answers, until the client is closed."""
        with suppress(trio.ClosedResourceError):
            while True:
                while self._board.failures:
                    await self._send(*self._board.next_failure())
                    self._link.inbox.took(self._board)
                await self._board.failed.park()

    async def _settle(self) -> None:
        """Find out which answers were written, and have each other one failed, until the client is closed."""
        answers, proven = self._board.answers, 0
        with suppress(trio.ClosedResourceError):
            while True:
                while not answers:
                    await answers.noted.park()
                await trio.sleep(SETTLE_INTERVAL)
                # A relay of a realm reports what another one dropped a moment after FLUSHED.
                answers.prove(proven)
                for lost in answers.take_lost():
                    self._board.fail_call(lost, FailReason.ENDED, ANSWER_DROPPED)
                count = answers.count
                if await self._link.confirm():
                    proven = count

    async def _send(self, caller: int, answer: CallMessage) -> None:
        def queued(session: Session) -> None:
            self._board.note_answer((caller, answer.number))

        with suppress(RelayError):
            await self._link.send_message(caller, self._seal(answer), queued, despite_loss=True, must_report=True)

    def _seal(self, message: CallMessage) -> bytes:
        return seal_message(message.encode(), limit=self._message_limit)

    def _checked(self, payload: bytes | bytearray | memoryview) -> bytes:
        check_octets(payload, "payload")
        size = memoryview(payload).nbytes
        if size > self.limit:
            wrong = f"a call or reply has at most {self.limit} bytes, not {size}"
            raise LocalProtocolError(f"{wrong}: split it, or raise the limit on both sides")
        return bytes(payload)

    def _check_open(self) -> None:
        if self._board.released:
            raise _closed()
        self._link.check_open()

    def _close(self) -> None:
        """Give the claim back and fail what is open."""
        self._link.inbox.release(self._board)
        self._board.fail(None, _closed)


def _closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("these calls are closed; open others with calls()")


@asynccontextmanager
async def open_calls(limit: int, link: Link) -> AsyncIterator[Calls]:
    """Claim what no stream claims, for calls, while the block lasts."""
    calls = Calls(limit, link)
    try:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(calls._send_failures)
            nursery.start_soon(calls._settle)
            nursery.start_soon(calls._wait_for_serving)
            yield calls
            nursery.cancel_scope.cancel()
    finally:
        calls._close()
