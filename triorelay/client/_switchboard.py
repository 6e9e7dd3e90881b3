"""The protocol side of one client's calls: arriving messages, and which calls are open. `_calls.py` is the public side.

1. The task that reads handles each message as it arrives: an answer wakes its caller, a CANCEL cancels its handler.
   Only a call waits for the task that serves; before serving began, for at most `SERVING_PATIENCE`.
2. A call is open from the step in which it is queued until it is answered, its callee has left, frames to the callee
   were lost, the connection was, or its caller was cancelled. Each of these wakes the caller, so it never waits for a
   callee that went. An answer to a call that is not open is ignored and counted.
3. The relay reports dropped frames once for each gap. So a call after a report is sent behind a FLUSH, after which the
   relay reports again. The relay reports a dropped answer to the callee only.
4. A number is not used for a second call, so no late answer passes for that of another call.
5. At most `at_once` calls are handled at a time. Further ones are refused at once. Refusals wait for room like all
   data, and count as data that was not received: a peer that floods and takes no answers stops itself, and memory stays
   bounded.
6. A handler is cancelled when its caller cancels or leaves, when the connection is lost, and when serving ends. In the
   last case its caller still waits, and gets ENDED.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from ..protocol import (
    CallKind,
    CallMessage,
    Event,
    EventCode,
    FailReason,
    RelayError,
    RemoteProtocolError,
    decode_call,
    id_text,
)
from ._arrivals import MESSAGE_COST, Assembly
from ._errors import CallFailed, NotDelivered, PeerLeft
from ._link import Link


@dataclass(eq=False, slots=True)
class OpenCall:
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
class HandledCall:
    """A call that a handler serves, or will serve."""

    caller: int
    number: int
    payload: bytes
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Switchboard(Assembly):
    """The calls of one client, outgoing and incoming. It has no task of its own."""

    def __init__(self, limit: int, link: Link) -> None:
        super().__init__(limit)
        self.open: dict[int, OpenCall] = {}
        self.handled: dict[tuple[int, int], HandledCall] = {}
        self.early: dict[tuple[int, int], CallMessage] = {}
        self.is_new: bool = True
        self.waiting: deque[HandledCall] = deque()
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
            self.hold(len(message.payload) + MESSAGE_COST)
        elif not self.at_once:
            self._refuse(source, message.number, FailReason.NOT_SERVED)
        elif len(self.handled) >= self.at_once:
            self._refuse(source, message.number, FailReason.TOO_MANY)
        else:
            self.handled[key] = handled = HandledCall(source, message.number, message.payload)
            self.waiting.append(handled)
            self.changed.unpark_all()

    def take_early(self) -> None:
        """Handle messages that came before serving began, as if they came now."""
        early, self.early, self.is_new = self.early, {}, False
        for (source, _), message in early.items():
            self.hold(-(len(message.payload) + MESSAGE_COST))
            self._called(source, message)

    def _refuse(self, source: int, number: int, reason: FailReason) -> None:
        self.refusals.append((source, failure(number, reason)))
        self.hold(MESSAGE_COST)
        self.refused.unpark_all()

    def _cancel(self, source: int, number: int) -> None:
        handled = self.handled.pop((source, number), None)
        if (early := self.early.pop((source, number), None)) is not None:
            self.hold(-(len(early.payload) + MESSAGE_COST))
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
        """Fail all open calls to `callee`, or all open calls."""
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


def failure(number: int, reason: int, text: str = "") -> CallMessage:
    return CallMessage(CallKind.FAIL, number, reason=reason, text=text)
