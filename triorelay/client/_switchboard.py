"""The protocol side of one client's calls: arriving messages, and which calls are open. `_calls.py` is the public side.

1. The task that reads handles each message as it arrives: a call starts its handler, a CANCEL cancels it, an answer
   wakes its caller. Only before serving began, calls wait for it, for at most `SERVING_PATIENCE`.
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
from collections.abc import Callable, Container
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
from ._arrivals import MESSAGE_COST, Assembler
from ._errors import CallFailed, NotDelivered, PeerLeft
from ._inbox import Receiver
from ._link import Link


@dataclass(eq=False, slots=True)
class OpenCall:
    """A call that waits for its answer."""

    callee: int
    proven: Callable[[], None] = lambda: None
    answered: trio.Event = field(default_factory=trio.Event)
    reply: bytes = b""
    failure: Callable[[], Exception] | None = None


@dataclass(eq=False, slots=True)
class HandledCall:
    """A call that a handler serves, or will serve."""

    key: Key
    payload: bytes
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def cost(self) -> int:
        return len(self.payload) + MESSAGE_COST


class Switchboard(Receiver):
    """The calls of one client, outgoing and incoming. It has no task of its own.

    Attributes:
        assembler: makes messages of what arrives.
        open: calls of this client, by number.
        handled: calls of others that a handler serves, or will serve.
        is_new: whether `begin` was never called; until then calls wait for it.
        failures: FAILs that are to be sent: refusals, and those in place of answers that were dropped.
        answers: which of the answers to others may not have been written.
        failed: where the task waits that sends them.
        ignored: messages that belonged to no open call.
    """

    def __init__(self, limit: int, link: Link) -> None:
        super().__init__()
        self.assembler: Assembler = Assembler(limit)
        self.open: dict[int, OpenCall] = {}
        self.handled: dict[Key, HandledCall] = {}
        self.failures: deque[tuple[int, CallMessage]] = deque()
        self.answers: Answers = Answers()
        self.failed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.ignored: int = 0
        self._link = link
        self.is_new: bool = True
        self._at_once = 0
        self._start: Callable[[HandledCall], object] | None = None

    def deliver(self, source: int, data: bytes) -> None:
        for payload in self.assembler.feed(source, data):
            try:
                message = decode_call(payload)
            except RemoteProtocolError:
                self.ignored += 1
                continue
            if message.kind is CallKind.CALL:
                self._called(HandledCall((source, message.number), message.payload))
            elif message.kind is CallKind.CANCEL:
                self.ignored += not self._end((source, message.number))
            else:
                self._answered(source, message)

    # -- calls of other clients

    def _called(self, call: HandledCall) -> None:
        if call.key in self.handled:
            self.ignored += 1
        elif self.is_new:
            self.handled[call.key] = call
            self.size += call.cost
        elif self._start is not None and len(self.handled) < self._at_once:
            self.handled[call.key] = call
            self._start(call)
        else:
            self.fail_call(call.key, FailReason.TOO_MANY if self._start else FailReason.NOT_SERVED)

    def begin(self, at_once: int = 0, start: Callable[[HandledCall], object] | None = None) -> None:
        """From now on call `start` for each call, so many at a time, and refuse the others; without `start` all."""
        self._at_once, self._start = at_once, start
        if self.is_new:
            self.is_new, self.size = False, 0
            waiting, self.handled = self.handled, {}
            for call in waiting.values():
                self._called(call)

    def fail_call(self, key: Key, reason: FailReason, text: str = "") -> None:
        """Have a FAIL sent for a call."""
        caller, number = key
        self.failures.append((caller, failure(number, reason, text)))
        self.size += MESSAGE_COST
        self.failed.unpark_all()

    def next_failure(self) -> tuple[int, CallMessage]:
        """Remove and return the oldest FAIL that is to be sent, and its caller."""
        self.size -= MESSAGE_COST
        return self.failures.popleft()

    def _end(self, key: Key) -> bool:
        handled = self.handled.pop(key, None)
        if handled is not None:
            self.size -= handled.cost * self.is_new
            handled.scope.cancel()
        return handled is not None

    def end_all(self) -> list[HandledCall]:
        """Serve no more; return the calls that are not answered."""
        self.begin()
        unanswered = list(self.handled.values())
        for handled in unanswered:
            self._end(handled.key)
        return unanswered

    def _forget(self, gone: Container[int]) -> None:
        for key in [key for key in self.handled if key[0] in gone]:
            self._end(key)
        kept = [failure for failure in self.failures if failure[0] not in gone]
        self.size += MESSAGE_COST * (len(kept) - len(self.failures))
        self.failures = deque(kept)
        self.answers.forget(gone)

    def note_answer(self, key: Key) -> None:
        """Note that a REPLY or FAIL was sent."""
        self.handled.pop(key, None)
        self.answers.sent(key)

    # -- calls of this client

    def _answered(self, source: int, message: CallMessage) -> None:
        call = self.open.get(message.number)
        if call is None or call.callee != source or call.answered.is_set():
            self.ignored += 1
            return
        call.proven()
        if message.kind is CallKind.REPLY:
            call.reply = message.payload
        else:
            reason = next((known for known in FailReason if known == message.reason), message.reason)
            call.failure = partial(CallFailed, reason, message.text)
        call.answered.set()

    def tell(self, event: Event) -> None:
        self.assembler.tell(event)
        id = event.argument
        match event.code:
            case EventCode.LEFT:
                self.fail(id, partial(PeerLeft, id_text(id)))
                self._forget({id})
            case EventCode.NO_ROUTE | EventCode.DROPPED:
                self.fail(id, partial(NotDelivered, id_text(id), EventCode(event.code)))
                self.answers.dropped(id)

    def fail(self, callee: int | None, failure: Callable[[], Exception]) -> None:
        """Fail all open calls to `callee`, or all open calls."""
        for call in self.open.values():
            if callee in (None, call.callee) and not call.answered.is_set():
                call.failure = failure
                call.answered.set()

    def lose(self) -> None:
        self.assembler.lose()
        self.fail(None, self._link.loss)
        self._forget(ALL_IDS)

    def clear(self) -> None:
        self.failures.clear()
        self.is_new, self.size = False, 0

    def wake(self) -> None:
        super().wake()
        try:
            self._link.check()
        except (RelayError, trio.ClosedResourceError) as error:
            self.fail(None, partial(type(error), *error.args))


def failure(number: int, reason: int, text: str = "") -> CallMessage:
    return CallMessage(CallKind.FAIL, number, reason=reason, text=text)
