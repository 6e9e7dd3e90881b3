"""The protocol side of one client's calls: arriving messages, and which calls are open. `_calls.py` is the public side.

1. The task that reads handles each message as it arrives: an answer wakes its caller, a CANCEL cancels its handler.
   Only a call waits for the task that serves; before serving began, for at most `SERVING_PATIENCE`.
2. A call is open from the step in which it is queued until it is answered, its callee has left, frames to the callee
   were lost, the connection was, or its caller was cancelled. Each of these wakes the caller, so it never waits for a
   callee that went. An answer to a call that is not open is ignored and counted.
3. The relay reports dropped frames once for each gap. So a call or an answer after a report is sent behind a FLUSH,
   after which the relay reports again. What a report means for answers is said in `_answers.py`.
4. A number is not used for a second call, and the first one is chosen at random. So no late answer passes for that of
   another call, of an earlier session of the id or, where several clients share the id, of another holder.
5. At most `at_once` calls are handled at a time. Further ones are refused at once. Calls and refusals that wait count
   as data that was not received: a peer that floods and takes no answers stops itself, and memory stays bounded.
6. A handler is cancelled when its caller cancels or leaves, when the connection is lost, and when serving ends. In the
   last case its caller still waits, and gets ENDED.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from ..protocol import (
    ALL_IDS,
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
from ._answers import Answers, Key
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
    """The calls of one client, outgoing and incoming. It has no task of its own.

    Attributes:
        open: calls of this client, by number.
        handled: calls of others that a handler serves, or will serve.
        waiting: those of them that have no task yet.
        refusals: refusals that are to be sent.
        answers: which of the answers to others may not have been written.
        at_once: how many calls may be handled at a time; 0 while no task serves.
        is_new: whether calls wait although no task serves yet.
        changed: where the task waits that serves; woken by a call, and when the client's state changed.
        refused: where the task waits that sends refusals.
        ignored: messages that belonged to no open call.
    """

    def __init__(self, limit: int, link: Link) -> None:
        super().__init__(limit)
        self.open: dict[int, OpenCall] = {}
        self.handled: dict[Key, HandledCall] = {}
        self.waiting: dict[Key, HandledCall] = {}
        self.refusals: deque[tuple[int, CallMessage]] = deque()
        self.answers: Answers = Answers()
        self.at_once: int = 0
        self.is_new: bool = True
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.refused: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.ignored: int = 0
        self._link = link

    def take(self, source: int, payloads: list[bytes]) -> None:
        for payload in payloads:
            try:
                message = decode_call(payload)
            except RemoteProtocolError:
                self.ignored += 1
                continue
            if message.kind is CallKind.CALL:
                self._called(source, message)
            elif message.kind is CallKind.CANCEL:
                self.ignored += not self._end((source, message.number))
            else:
                self._answered(source, message)

    # -- calls of other clients

    def _called(self, source: int, message: CallMessage) -> None:
        key = source, message.number
        if key in self.handled:
            self.ignored += 1
        elif self.is_new or len(self.handled) < self.at_once:
            self.handled[key] = self.waiting[key] = HandledCall(source, message.number, message.payload)
            self.hold(len(message.payload) + MESSAGE_COST)
            self.changed.unpark_all()
        else:
            self._refuse(key)

    def begin(self, at_once: int) -> None:
        """Handle so many calls at a time from now on, and refuse those that wait beyond that; 0 to refuse all."""
        self.is_new, self.at_once = False, at_once
        for key in list(self.waiting)[at_once:]:
            self._end(key)
            self._refuse(key)

    def next_call(self) -> HandledCall | None:
        """Remove and return the oldest call that waits for a task, or None."""
        return self._stop_waiting(next(iter(self.waiting))) if self.waiting else None

    def _stop_waiting(self, key: Key) -> HandledCall | None:
        handled = self.waiting.pop(key, None)
        if handled is not None:
            self.hold(-(len(handled.payload) + MESSAGE_COST))
        return handled

    def _refuse(self, key: Key) -> None:
        caller, number = key
        reason = FailReason.TOO_MANY if self.at_once else FailReason.NOT_SERVED
        self.refusals.append((caller, failure(number, reason)))
        self.hold(MESSAGE_COST)
        self.refused.unpark_all()

    def next_refusal(self) -> tuple[int, CallMessage] | None:
        """Remove and return the oldest refusal and its caller, or None."""
        if not self.refusals:
            return None
        self.hold(-MESSAGE_COST)
        return self.refusals.popleft()

    def _end(self, key: Key) -> bool:
        handled = self.handled.pop(key, None)
        if handled is not None:
            self._stop_waiting(key)
            handled.scope.cancel()
        return handled is not None

    def end_all(self) -> list[HandledCall]:
        """Serve no more; return the calls that are not answered."""
        unanswered, self.at_once = list(self.handled.values()), 0
        for handled in unanswered:
            self._end((handled.caller, handled.number))
        return unanswered

    def _forget_caller(self, caller: int) -> None:
        for key in [key for key in self.handled if key[0] == caller]:
            self._end(key)
        kept = [refusal for refusal in self.refusals if refusal[0] != caller]
        self.hold(MESSAGE_COST * (len(kept) - len(self.refusals)))
        self.refusals = deque(kept)
        self.answers.forget(caller)

    def note_answer(self, caller: int, number: int) -> None:
        """Note that a REPLY or FAIL was sent."""
        self.handled.pop((caller, number), None)
        self.answers.sent(caller, number)

    # -- calls of this client

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

    def tell(self, event: Event) -> None:
        super().tell(event)
        id = event.argument
        match event.code:
            case EventCode.LEFT:
                self.fail(id, partial(PeerLeft, id_text(id)))
                self._forget_caller(id)
            case EventCode.NO_ROUTE | EventCode.DROPPED:
                self.fail(id, partial(NotDelivered, id_text(id), EventCode(event.code)))
                self.answers.dropped(id)

    def fail(self, callee: int | None, failure: Callable[[], Exception]) -> None:
        """Fail all open calls to `callee`, or all open calls."""
        for call in self.open.values():
            if callee in (None, call.callee):
                call.fail(failure)

    def lose(self) -> None:
        super().lose()
        self.fail(None, self._link.loss)
        for caller in ALL_IDS:
            self._forget_caller(caller)

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
