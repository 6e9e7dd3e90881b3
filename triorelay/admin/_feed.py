"""`/events`: a status each second, joins and leaves as they happen, as server-sent events.

1. Each event is encoded once for all viewers. Without a viewer the feed does nothing: it is not among the relay's
   watchers, and its clock stands still.
2. In the step of an event the feed only notes it. The feed's own task encodes it later, in its turn.
3. A viewer has one newest status, which replaces one that it has not taken, and a bounded number of other events.
   Further events are counted, and the count is sent instead; the next status shows the state anyway.
4. A new viewer gets the last status if the next one is not due yet, so that new viewers cause no extra work: between
   two statuses there is always `INTERVAL`.
"""

import time
from collections import deque

import trio

from ..relay import EventCode, Relay, Session, id_name
from ._messages import Send, Stream, to_json
from ._pace import Pace

INTERVAL = 1.0
EVENTS_KEPT = 256


class _Viewer:
    """One viewer."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._skipped = 0
        self._status = b""
        self._news = trio.Event()

    def offer(self, events: list[bytes], skipped: int, status: bytes) -> None:
        self._skipped += skipped
        for event in events:
            if len(self._events) < EVENTS_KEPT:
                self._events.append(event)
            else:
                self._skipped += 1
        self._status = status or self._status
        self._news.set()

    async def take(self) -> bytes:
        await self._news.wait()
        self._news = trio.Event()
        data = b"".join(self._events)
        if self._skipped:
            data += _event("skipped", {"events": self._skipped})
        data += self._status
        self._events.clear()
        self._skipped, self._status = 0, b""
        return data


class Feed:
    """The events of one relay for all viewers."""

    def __init__(self, relay: Relay, pace: Pace) -> None:
        self._relay = relay
        self._pace = pace
        self._viewers: set[_Viewer] = set()
        self._noted: deque[tuple[float, EventCode, Session]] = deque()
        self._not_noted = 0
        self._wanted = trio.Event()
        self._status = b""
        self._status_due = -float("inf")

    def stream(self) -> Stream:
        """Return the reply to one viewer."""
        return Stream(self._show, "text/event-stream")

    async def _show(self, send: Send) -> None:
        viewer = _Viewer()
        self._viewers.add(viewer)
        self._relay.exchange.registry.watchers.add(self._note)
        if trio.current_time() < self._status_due:
            viewer.offer([], 0, self._status)
        self._wanted.set()
        try:
            while True:
                await send(await viewer.take())
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._relay.exchange.registry.watchers.discard(self._note)
                self._noted.clear()

    def _note(self, code: EventCode, session: Session) -> None:
        if len(self._noted) < EVENTS_KEPT:
            self._noted.append((time.time(), code, session))
        else:
            self._not_noted += 1
        self._wanted.set()

    async def run(self) -> None:
        """Encode new events and give them to the viewers, until cancelled."""
        while True:
            with trio.move_on_at(self._status_due if self._viewers else float("inf")):
                await self._wanted.wait()
            self._wanted = trio.Event()
            async with self._pace.turn():
                events, skipped, status = [_membership(*noted) for noted in self._noted], self._not_noted, b""
                self._noted.clear()
                self._not_noted = 0
                if self._viewers and trio.current_time() >= self._status_due:
                    self._status = status = _event("status", self._relay.snapshot())
                    self._status_due = trio.current_time() + INTERVAL
            if events or status:
                for viewer in self._viewers:
                    viewer.offer(events, skipped, status)


def _membership(when: float, code: EventCode, session: Session) -> bytes:
    facts: dict[str, object] = {"time": round(when, 3), "id": session.id, "name": id_name(session.id)}
    if code is EventCode.LEFT:
        reason = session.ended
        return _event("left", facts | {"reason": reason.label if reason is not None else ""})
    peer = session.connection.peer
    facts |= {"transport": peer.transport, "address": peer.address, "principal": session.principal}
    return _event("joined", facts | {"pid": peer.pid, "process": peer.process})


def _event(name: str, data: dict[str, object]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(data))
