"""Calls: request and reply whose cancellation crosses the wire. `_switchboard.py` has the theory."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import final

import trio

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
)
from ._arrivals import MESSAGE_COST
from ._bare import open_bare_nursery
from ._errors import CallFailed, NotDelivered
from ._exclusive import Exclusive
from ._inbox import Inbox
from ._link import Link
from ._presence import Presence
from ._switchboard import HandledCall, OpenCall, Switchboard, failure

CALL_LIMIT = DEFAULT_MESSAGE_LIMIT - CALL_HEADER
"""Bytes of payload in a call or a reply, unless both sides agree on another limit: a message then has 1 MiB."""

SERVING_PATIENCE = 1.0
"""Seconds after the opening for which calls wait for `serve`: other clients call at once when they see JOINED."""

LOGGER = logging.getLogger("triorelay.client")

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Serves a call: from the caller's id and the payload to the payload of the reply."""


@final
class Calls:
    """Calls to and from other clients; what `Client.calls` gives. All methods may be called from several tasks.

    Attributes:
        limit: bytes that the payload of a call or a reply may have.
    """

    def __init__(self, board: Switchboard, limit: int, link: Link, presence: Presence, inbox: Inbox) -> None:
        self.limit: int = limit
        self._board = board
        self._link = link
        self._presence = presence
        self._inbox = inbox
        self._numbers = count(1)
        self._closed = False
        self._one_server = Exclusive("calls are being served already; one serve() at a time, with a larger at_once")

    @property
    def ignored(self) -> int:
        """Messages so far that belonged to no open call: late replies, late cancellations, and other data."""
        return self._board.ignored

    @property
    def discarded(self) -> int:
        """Messages discarded so far because they arrived cut, damaged or over the limit."""
        return self._board.discarded

    async def call(self, id: str | bytes | int, payload: bytes | bytearray | memoryview) -> bytes:
        """Call the client `id` and return the payload of its reply. `trio.fail_after` limits the time.

        The call is sent at most once. Cancelled, it is cancelled there too, if it was sent. It never waits for a client
        that went.

        Raises:
            CallFailed: the other client says that it failed, with its reason.
            NotDelivered: no client holds `id`, or frames to it were dropped.
            PeerLeft: the other client left before it answered. It may have done what it was asked for.
            ConnectionLost: the connection to the relay was lost before the answer came. The same holds.
            LocalProtocolError: the payload has more bytes than `limit`.
            TypeError: the payload is not bytes.
            trio.ClosedResourceError: the block of these calls, or of this client, was left.
        """
        callee, number = id_byte(id), self._free_number()
        sealed = self._seal(CallMessage(CallKind.CALL, number, self._checked(payload)))
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._presence.check_route(callee)
        call, calls = OpenCall(callee), self._board.open

        def queued() -> None:
            calls[number] = call
            call.proven = self._link.sent_to(callee)

        try:
            await self._link.send_message(callee, sealed, queued, must_report=True)
            await call.answered.wait()
        except BaseException:
            if number in calls and not call.answered.is_set():
                self._put(callee, CallMessage(CallKind.CANCEL, number))
            raise
        finally:
            calls.pop(number, None)
        if call.failure is None:
            return call.reply
        error = call.failure()
        if isinstance(error, NotDelivered):
            self._presence.drop_reported(callee)
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
        if at_once < 1:
            raise ValueError(f"at_once must be at least 1, not {at_once}")
        board = self._board
        with self._one_server:
            await trio.lowlevel.checkpoint()
            board.at_once = at_once
            board.take_early()
            try:
                async with open_bare_nursery() as nursery:
                    while True:
                        self._check_open()
                        self._link.check()
                        while board.waiting:
                            nursery.start_soon(self._handle, handler, board.waiting.popleft())
                        await board.changed.park()
            finally:
                board.at_once = 0
                board.waiting.clear()
                for handled in list(board.handled.values()):
                    self._put(handled.caller, failure(handled.number, FailReason.ENDED))
                board.handled.clear()

    async def _handle(self, handler: Handler, handled: HandledCall) -> None:
        with handled.scope:
            answer = await self._answer(handler, handled)
            key = handled.caller, handled.number
            if self._board.handled.get(key) is handled:
                # A lost relay cancels this scope, and the end of the client ends serve().
                with suppress(RelayError, trio.ClosedResourceError):
                    await self._send(handled.caller, answer, partial(self._board.handled.pop, key))

    async def _answer(self, handler: Handler, handled: HandledCall) -> CallMessage:
        caller, number = handled.caller, handled.number
        try:
            reply = self._checked(await handler(id_text(caller), handled.payload))
        except CallFailed as error:
            return failure(number, error.reason, error.text)
        except Exception as error:
            LOGGER.exception("the handler of a call of %s failed", id_name(caller))
            return failure(number, FailReason.FAILED, str(error) or type(error).__name__)
        return CallMessage(CallKind.REPLY, number, reply)

    async def wait_for_serving(self) -> None:
        """Let calls that came before `serve` was called wait for it a while, and refuse them then."""
        await trio.sleep(SERVING_PATIENCE)
        self._board.take_early()

    async def refuse(self) -> None:
        """Send the refusals of calls, until the client is closed."""
        board = self._board
        with suppress(trio.ClosedResourceError):
            while True:
                while board.refusals:
                    caller, refusal = board.refusals.popleft()
                    with suppress(RelayError):
                        await self._send(caller, refusal)
                    board.size -= MESSAGE_COST
                    self._inbox.took(board)
                await board.refused.park()

    async def _send(self, id: int, message: CallMessage, on_queued: Callable[[], object] | None = None) -> None:
        await self._link.send_message(id, self._seal(message), on_queued, despite_loss=True)

    def _put(self, id: int, message: CallMessage) -> None:
        self._link.put_message(id, self._seal(message))

    def _free_number(self) -> int:
        while (number := next(self._numbers) & 0xFFFFFFFF) in self._board.open:
            pass
        return number

    def _checked(self, payload: bytes | bytearray | memoryview) -> bytes:
        check_octets(payload, "payload")
        if memoryview(payload).nbytes > self.limit:
            raise LocalProtocolError(
                f"a call or reply has at most {self.limit} bytes, not {memoryview(payload).nbytes}: split it, or raise "
                "the limit on both sides"
            )
        return bytes(payload)

    def _seal(self, message: CallMessage) -> bytes:
        return seal_message(message.encode(), limit=_message_limit(self.limit))

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()
        self._link.check_open()

    def close(self) -> None:
        """Give the claim back and fail what is open."""
        self._closed = True
        self._inbox.release(self._board)
        self._board.fail(None, _closed)
        self._board.changed.unpark_all()


def _closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("these calls are closed; open others with calls()")


def _message_limit(limit: int) -> int:
    return max(limit + CALL_HEADER, LONGEST_FAIL)


@asynccontextmanager
async def open_calls(limit: int, link: Link, presence: Presence, inbox: Inbox) -> AsyncIterator[Calls]:
    """Claim what no stream claims, for calls, while the block lasts."""
    board = Switchboard(_message_limit(limit), link)
    inbox.claim_rest(board)
    calls = Calls(board, limit, link, presence, inbox)
    try:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(calls.refuse)
            nursery.start_soon(calls.wait_for_serving)
            yield calls
            nursery.cancel_scope.cancel()
    finally:
        calls.close()
