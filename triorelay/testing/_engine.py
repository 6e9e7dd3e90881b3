"""An engine in memory, for tests: relays of one process share it, clocks may jump, and it fails on demand.

It keeps the promises of `cluster/_engine` and no others. When a connection is cut, messages in flight are lost, and so
are answers to requests that it has already carried out. Keys run out silently. Messages that were published while it
was stopped are delivered when it continues.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ..client._bare import open_bare_nursery
from ..cluster import EngineAway, Reading, Receiver


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    revision: int
    at: float


class MemoryConnection:
    """One relay's connection to a `MemoryEngine`."""

    def __init__(self, engine: "MemoryEngine", receiver: Receiver) -> None:
        self.max_payload = engine.max_payload
        self.subjects: set[str] = set()
        self.receiver = receiver
        self._engine = engine
        self._lost = False
        self._unsent = 0
        self._put, self._receive = trio.open_memory_channel[tuple[float, Callable[[], None]]](100_000)

    def tell(self, call: Callable[[], None]) -> None:
        """Call back after the latency, in order."""
        self._put.send_nowait((trio.current_time() + self._engine.latency, call))

    async def deliver(self) -> None:
        """Call back until cancelled."""
        async for at, call in self._receive:
            await trio.sleep_until(at)
            await self._engine.running.wait()
            if not self._lost:
                call()

    def lose(self, reason: str) -> None:
        """Break the connection."""
        if not self._lost:
            self._lost = True
            self.receiver.lost(reason)

    async def _reached(self) -> None:
        await trio.lowlevel.checkpoint()
        await trio.sleep(self._engine.latency)
        await self._engine.running.wait()
        if self._lost:
            raise EngineAway("the connection was cut")

    @property
    def congested(self) -> bool:
        return self._unsent > self._engine.unsent

    def publish(self, subject: str, payload: bytes) -> None:
        if self._lost:
            return
        self._engine.publish(subject, payload)
        self._unsent += len(payload)

        def sent() -> None:
            was_congested = self.congested
            self._unsent -= len(payload)
            if was_congested and not self.congested:
                self.receiver.drained()

        self.tell(sent)

    async def subscribe(self, subject: str) -> None:
        await self._reached()
        self.subjects.add(subject)

    async def create(self, key: str, value: bytes) -> int:
        return await self._write(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._write(key, value, revision)

    async def delete(self, key: str, revision: int) -> int:
        return await self._write(key, None, revision)

    async def _write(self, key: str, value: bytes | None, expected: int) -> int:
        """Set or delete a key if it has the revision `expected`, 0 for no entry; return its new one, 0 if not."""
        await self._reached()
        entry = self._engine.entry(key)
        is_expected = expected == (0 if entry is None else entry.revision)
        revision = self._engine.set(key, value) if is_expected else 0
        await self._reached()  # the answer
        return revision

    async def read(self, key: str) -> tuple[bytes, int] | None:
        await self._reached()
        entry = self._engine.entry(key)
        return None if entry is None else (entry.value, entry.revision)

    async def ping(self) -> None:
        await self._reached()


class MemoryEngine:
    """The engine; also the `Backplane` of all relays that share it.

    Attributes:
        latency: seconds that a request, an answer and a delivery take.
        max_payload: bytes that a message may have.
        unsent: bytes that a connection takes before it is congested.
        refusing: why it lets no relay connect; empty if it does.
        lose_messages: whether messages are lost on their way.
        running: set unless it is stopped.
        connections: the connections that there are.
    """

    def __init__(self, lease: float = 5.0, *, latency: float = 0.0, max_payload: int = 1 << 20) -> None:
        """Make an engine whose keys run out `lease` seconds after they were set."""
        self.latency = latency
        self.max_payload = max_payload
        self.unsent: int = 1 << 18
        self.refusing: str = ""
        self.lose_messages = False
        self.running: trio.Event = trio.Event()
        self.running.set()
        self.connections: list[MemoryConnection] = []
        self._lease = lease
        self._revision = 0
        self._keys: dict[str, _Entry] = {}

    @asynccontextmanager
    async def connect(self, receiver: Receiver, reading: Reading) -> AsyncIterator[MemoryConnection]:
        """Connect `receiver` for the length of the block."""
        await trio.lowlevel.checkpoint()
        if self.refusing:
            raise EngineAway(self.refusing)
        connection = MemoryConnection(self, receiver)
        async with open_bare_nursery() as nursery:
            nursery.start_soon(connection.deliver)
            for key in self._keys:
                if entry := self.entry(key):
                    connection.tell(partial(receiver.key_changed, key, entry.value, entry.revision))
            connection.tell(receiver.caught_up)
            self.connections.append(connection)
            try:
                yield connection
            finally:
                self.connections.remove(connection)
                nursery.cancel_scope.cancel()

    # -- faults

    def stop(self) -> None:
        """Answer nothing and deliver nothing any more, as if SIGSTOP had been sent."""
        self.running = trio.Event()

    def resume(self) -> None:
        """Continue; what was published meanwhile is delivered now."""
        self.running.set()

    def cut(self, receiver: Receiver | None = None) -> None:
        """Break the connection of `receiver`, of all without one."""
        for connection in list(self.connections):
            if receiver is None or connection.receiver is receiver:
                connection.lose("the connection was cut")

    def kill(self) -> None:
        """End as by SIGKILL, and let no relay connect."""
        self.refusing = "connection refused"
        self.cut()

    def restart(self) -> None:
        """Let relays connect again; the age of keys has not changed."""
        self.refusing = ""

    # -- messages and keys

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish a message."""
        for connection in self.connections:
            if subject in connection.subjects and not self.lose_messages:
                connection.tell(partial(connection.receiver.message, subject, payload))

    def entry(self, key: str) -> _Entry | None:
        """Return a key's entry; None if it does not exist, was deleted or ran out."""
        entry = self._keys.get(key)
        if entry is None or trio.current_time() >= entry.at + self._lease:
            return None
        return entry

    def set(self, key: str, value: bytes | None) -> int:
        """Set or delete a key; return the revision."""
        self._revision += 1
        if value is None:
            self._keys.pop(key, None)
        else:
            self._keys[key] = _Entry(value, self._revision, trio.current_time())
        for connection in self.connections:
            connection.tell(partial(connection.receiver.key_changed, key, value, self._revision))
        return self._revision
