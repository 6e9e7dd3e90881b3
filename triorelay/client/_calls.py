"""Calls: request and reply whose cancellation crosses the wire.

1. What arrives is handled as it arrives, in the task that reads: an answer wakes its caller, a CANCEL cancels its
   handler. Only a call waits, for the task that serves; one that comes before serving began, for `SERVING_PATIENCE`.
2. A call is open from the step in which it is queued until it is answered, its callee has left, frames to the callee
   were lost, the connection was, or its caller was cancelled. Each of these wakes the caller, so it never waits for a
   callee that went. An answer to a call that is not open is ignored and counted.
3. A number is not used for a second call, so no late answer passes for that of another call.
4. No more than `at_once` calls are handled at a time. Further ones are refused at once. Refusals wait for room like all
   that is sent, and count as what was not received: a peer that floods and takes no answers stops itself, and memory
   stays bounded.
5. A handler is cancelled when its caller cancels or leaves, when the connection is lost, and when serving ends. Only in
   the last case does the caller still wait, and is told ENDED.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
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
    Event,
    EventCode,
    FailReason,
    LocalProtocolError,
    RelayError,
    RemoteProtocolError,
    check_octets,
    decode_call,
    encode_message,
    id_byte,
    id_name,
    id_text,
)
from ._bare import open_bare_nursery
from ._errors import CallFailed, NotDelivered, PeerLeft
from ._exclusive import Exclusive
from ._inbox import Inbox
from ._link import Link
from ._messages import MESSAGE_COST, Assembly
from ._presence import Presence

CALL_LIMIT = DEFAULT_MESSAGE_LIMIT - CALL_HEADER
"""Bytes of payload in a call or a reply unless another limit is agreed on: what fits into a message of 1 MiB."""

SERVING_PATIENCE = 1.0
"""Seconds after the opening for which calls wait for `serve`: who is seen to have joined is called at once."""

LOGGER = logging.getLogger("triorelay.client")

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""What serves a call: from the caller's id and the payload to the payload of the reply."""


@dataclass(eq=False, slots=True)
class _Open:
    """A call that waits for its answer."""

    callee: int
    proven: Callable[[], None] = lambda: None
    answered: trio.Event = field(default_factory=trio.Event)
    reply: bytes = b""
    failure: Callable[[], Exception] | None = None

    def fail(self, failure: Callable[[], Exception]) -> None:
        if not self.answered.is_set():
            self.failure = failure
            self.answered.set()


@dataclass(eq=False, slots=True)
class _Handled:
    """A call that a handler works on, or will."""

    caller: int
    number: int
    payload: bytes
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Switchboard(Assembly):
    """What arrives for the calls of one client, and what is open. It has no task of its own."""

    def __init__(self, limit: int, link: Link) -> None:
        super().__init__(limit)
        self.open: dict[int, _Open] = {}
        self.handled: dict[tuple[int, int], _Handled] = {}
        self.early: dict[tuple[int, int], CallMessage] = {}
        self.is_new: bool = True
        self.waiting: deque[_Handled] = deque()
        self.refusals: deque[tuple[int, CallMessage]] = deque()
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.refused: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.at_once: int = 0
        self.ignored: int = 0
        self._link = link

    def take(self, source: int, payloads: list[bytes]) -> None:
        for payload in payloads:
            try:
                message = decode_call(payload)
            except RemoteProtocolError:
                self.ignored += 1
            else:
                self._take(source, message)

    def _take(self, source: int, message: CallMessage) -> None:
        match message.kind:
            case CallKind.CALL:
                self._called(source, message)
            case CallKind.CANCEL:
                self._cancel(source, message.number)
            case CallKind.REPLY | CallKind.FAIL:
                self._answered(source, message)

    def _called(self, source: int, message: CallMessage) -> None:
        key = source, message.number
        if key in self.handled or key in self.early:
            self.ignored += 1
        elif not self.at_once and self.is_new:
            self.early[key] = message
            self.size += len(message.payload) + MESSAGE_COST
        elif not self.at_once:
            self._refuse(source, message.number, FailReason.NOT_SERVED)
        elif len(self.handled) >= self.at_once:
            self._refuse(source, message.number, FailReason.TOO_MANY)
        else:
            self.handled[key] = handled = _Handled(source, message.number, message.payload)
            self.waiting.append(handled)
            self.changed.unpark_all()

    def take_early(self) -> None:
        """Take what came before serving began, or could have begun, as if it came now."""
        early, self.early, self.is_new = self.early, {}, False
        for (source, _), message in early.items():
            self.size -= len(message.payload) + MESSAGE_COST
            self._called(source, message)

    def _refuse(self, source: int, number: int, reason: FailReason) -> None:
        self.refusals.append((source, _failure(number, reason)))
        self.size += MESSAGE_COST
        self.refused.unpark_all()

    def _cancel(self, source: int, number: int) -> None:
        handled = self.handled.pop((source, number), None)
        if (early := self.early.pop((source, number), None)) is not None:
            self.size -= len(early.payload) + MESSAGE_COST
        elif handled is None:
            self.ignored += 1
        else:
            handled.scope.cancel()

    def _answered(self, source: int, message: CallMessage) -> None:
        call = self.open.get(message.number)
        if call is None or call.callee != source or call.answered.is_set():
            self.ignored += 1
            return
        call.proven()
        if message.kind is CallKind.REPLY:
            call.reply = message.payload
            call.answered.set()
        else:
            call.fail(partial(CallFailed, _known(message.reason), message.text))

    def _cancel_all(self, keys: list[tuple[int, int]]) -> None:
        for source, number in keys:
            self._cancel(source, number)

    def tell(self, event: Event) -> None:
        super().tell(event)
        id = event.argument
        match event.code:
            case EventCode.LEFT:
                self.fail(id, partial(PeerLeft, id_text(id)))
                self._cancel_all([key for key in (*self.handled, *self.early) if key[0] == id])
            case EventCode.NO_ROUTE:
                self.fail(id, partial(NotDelivered, id_text(id), EventCode.NO_ROUTE))
            case EventCode.DROPPED:
                self.fail(id, partial(NotDelivered, id_text(id), EventCode.DROPPED))

    def fail(self, callee: int | None, failure: Callable[[], Exception]) -> None:
        """Fail all open calls to `callee`, or to anybody."""
        for call in self.open.values():
            if callee in (None, call.callee):
                call.fail(failure)

    def lose(self) -> None:
        super().lose()
        self.fail(None, self._link.loss)
        self._cancel_all([*self.handled, *self.early])

    def wake(self) -> None:
        super().wake()
        self.changed.unpark_all()
        try:
            self._link.check()
        except (RelayError, trio.ClosedResourceError) as error:
            self.fail(None, partial(type(error), *error.args))


def _known(reason: int) -> int:
    try:
        return FailReason(reason)
    except ValueError:
        return reason


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
        """Messages that belonged to no open call, so far: late replies and cancellations, and what is no call."""
        return self._board.ignored

    @property
    def discarded(self) -> int:
        """Messages thrown away so far because they arrived cut, damaged or over the limit."""
        return self._board.discarded

    async def call(self, id: str | bytes | int, payload: bytes | bytearray | memoryview) -> bytes:
        """Call the client `id` and return the payload of its reply. `trio.fail_after` limits the time.

        The call is sent at most once. Cancelled, it is cancelled there too, if it was sent. It never waits for a client
        that went.

        Raises:
            CallFailed: the other client says that it failed, with its reason.
            NotDelivered: nobody holds `id`, or frames to it were dropped.
            PeerLeft: the other client left before it answered. It may have done what it was asked for.
            ConnectionLost: the connection to the relay was lost before the answer came. The same holds.
            LocalProtocolError: the payload has more bytes than `limit`.
            TypeError: the payload is not bytes.
            trio.ClosedResourceError: the block of these calls, or of this client, was left.
        """
        callee, number = id_byte(id), self._free_number()
        data = self._encode(CallMessage(CallKind.CALL, number, self._checked(payload)))
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._presence.check_route(callee)
        call, calls = _Open(callee), self._board.open

        def queued() -> None:
            calls[number] = call
            call.proven = self._link.sent_to(callee)

        try:
            await self._link.send_whole(callee, data, queued)
            await call.answered.wait()
        except BaseException:
            if number in calls and not call.answered.is_set():
                self._link.put(callee, self._encode(CallMessage(CallKind.CANCEL, number)))
            raise
        finally:
            calls.pop(number, None)
        if call.failure is None:
            return call.reply
        failure = call.failure()
        if isinstance(failure, NotDelivered):
            self._presence.told(callee)
        elif isinstance(failure, ConnectionLost):
            self._link.told()
        raise failure

    async def serve(self, handler: Handler, *, at_once: int = 32) -> None:
        """Answer calls until cancelled: each by what `handler` returns, in a task of its own.

        `handler` is called with the caller's id and the payload. It is cancelled when the caller cancels the call or
        leaves, and when the connection is lost. If it raises an exception, the caller gets a `CallFailed` with the
        exception's text, the logger `triorelay.client` gets the traceback, and serving goes on. Where `at_once` calls
        are being handled, further ones are refused. Cancelled, it cancels the handlers, and their callers are told.

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
                    self._link.put(handled.caller, self._encode(_failure(handled.number, FailReason.ENDED)))
                board.handled.clear()

    async def _handle(self, handler: Handler, handled: _Handled) -> None:
        with handled.scope:
            answer = await self._answer(handler, handled)
            key = handled.caller, handled.number
            if self._board.handled.get(key) is handled:
                # A lost relay cancels this scope, and the end of the client ends serve().
                with suppress(RelayError, trio.ClosedResourceError):
                    await self._send(handled.caller, answer, partial(self._board.handled.pop, key))

    async def _answer(self, handler: Handler, handled: _Handled) -> CallMessage:
        caller, number = handled.caller, handled.number
        try:
            reply = self._checked(await handler(id_text(caller), handled.payload))
        except CallFailed as failure:
            return _failure(number, failure.reason, failure.text)
        except Exception as error:
            LOGGER.exception("the handler of a call of %s failed", id_name(caller))
            return _failure(number, FailReason.FAILED, str(error) or type(error).__name__)
        return CallMessage(CallKind.REPLY, number, reply)

    async def wait_for_serving(self) -> None:
        """Let calls that came before `serve` was called wait for it a while, and refuse them then."""
        await trio.sleep(SERVING_PATIENCE)
        self._board.take_early()

    async def refuse(self) -> None:
        """Send what refuses calls, until the client is closed."""
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
        await self._link.send_whole(id, self._encode(message), on_queued, told=True)

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

    def _encode(self, message: CallMessage) -> bytes:
        return b"\0" + encode_message(message.encode(), limit=_message_limit(self.limit))

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


def _failure(number: int, reason: int, text: str = "") -> CallMessage:
    return CallMessage(CallKind.FAIL, number, reason=reason, text=text)


def _message_limit(limit: int) -> int:
    return max(limit + CALL_HEADER, LONGEST_FAIL)


@asynccontextmanager
async def open_calls(limit: int, link: Link, presence: Presence, inbox: Inbox) -> AsyncIterator[Calls]:
    """Claim what no stream claims, for calls, as long as the block lasts."""
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
