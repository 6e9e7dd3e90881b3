"""Connections in memory: the same interface as sockets, for tests that need a mock clock or faults on demand.

A pipe holds at most `capacity` bytes each way. A client's end is a Trio stream; the relay's end never blocks, and can
be polled, so that the pump and direct hand-over run as they do over sockets.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ..relay._admission import Admission
from ..relay._connection import Peer
from ..relay._pump import Watched

CAPACITY = 65536
BACKLOG = 1024
"""Connections that may wait to be accepted."""


@dataclass(eq=False)
class _Pipe:
    """Bytes in flight in one direction."""

    capacity: int
    buffer: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False
    reader_gone: bool = False
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    on_input: Callable[[], object] = lambda: None

    @property
    def has_input(self) -> bool:
        return bool(self.buffer) or self.ended or self.reset

    @property
    def has_room(self) -> bool:
        return len(self.buffer) < self.capacity or self.reader_gone or self.reset

    def notify(self) -> None:
        self.changed.unpark_all()
        if self.has_input:
            self.on_input()

    def read(self, limit: int) -> bytes:
        if self.reset:
            raise ConnectionResetError("reset")
        if not self.buffer and not self.ended:
            raise BlockingIOError
        data = bytes(self.buffer[:limit])
        del self.buffer[:limit]
        self.notify()
        return data

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self.reset or self.reader_gone:
            raise BrokenPipeError("the peer has closed")
        count = min(len(data), self.capacity - len(self.buffer))
        if not count and len(data):
            raise BlockingIOError
        self.buffer += data[:count]
        self.notify()
        return count

    async def wait_input(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.has_input:
            await self.changed.park()

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.has_room:
            await self.changed.park()


class MemoryConnection:
    """The relay's end of a connection in memory."""

    _numbers = itertools.count(1)

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, peer: Peer) -> None:
        self.incoming: _Pipe = incoming
        self._outgoing = outgoing
        self.peer: Peer = peer
        self.fileno: int = next(self._numbers)
        self.recv_nowait: Callable[[int], bytes] = incoming.read
        self.send_small: Callable[[bytes | bytearray | memoryview], int] = outgoing.write

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        return self._outgoing.write(data)

    async def wait_readable(self) -> None:
        await self.incoming.wait_input()

    async def wait_writable(self) -> None:
        await self._outgoing.wait_room()

    def hung_up(self) -> bool:
        return self.incoming.ended or self.incoming.reset

    def input_waits(self) -> bool:
        return self.incoming.has_input

    def unsent(self) -> int:
        return len(self._outgoing.buffer)

    def silent(self) -> bool:
        return False

    def shut_sending(self) -> None:
        self._outgoing.ended = True
        self._outgoing.notify()

    def close(self) -> None:
        self.incoming.reader_gone = True
        self.incoming.notify()
        self.shut_sending()

    def move(self) -> "MemoryConnection":
        """Return the same connection for another relay, as if it had been passed to another process.

        This one then behaves as in a process that has ended: nothing that is done with it reaches the client.
        """
        moved = MemoryConnection(self.incoming, self._outgoing, self.peer)
        self.incoming, self._outgoing = _Pipe(0), _Pipe(0)
        self.incoming.reset = self._outgoing.reset = True
        self.recv_nowait, self.send_small = self.incoming.read, self._outgoing.write
        return moved


class MemoryStream(trio.abc.HalfCloseableStream):
    """The client's end of a connection in memory."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while True:
            await self.wait_send_all_might_not_block()
            if self._closed or self._outgoing.ended:
                raise trio.ClosedResourceError("this side closed it")
            try:
                view = view[self._outgoing.write(view) :]
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from None
            if not view:
                return

    async def wait_send_all_might_not_block(self) -> None:
        await self._outgoing.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this side closed it")
        await self._incoming.wait_input()
        try:
            return self._incoming.read(max_bytes or CAPACITY)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._outgoing.ended = True
        self._outgoing.notify()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close both directions at once."""
        self._closed = True
        self._outgoing.ended = True
        self._incoming.reader_gone = True
        self._outgoing.notify()
        self._incoming.notify()

    def reset(self) -> None:
        """Break the connection: what was not read is lost in both directions."""
        self._closed = True
        self._incoming.reset = self._outgoing.reset = True
        self._incoming.notify()
        self._outgoing.notify()


class MemoryPoller:
    """Reports which connections in memory have input, as epoll does for sockets."""

    def __init__(self) -> None:
        self._watched: dict[int, MemoryConnection] = {}
        self._woken = trio.lowlevel.ParkingLot()
        self.poll: Callable[[float, int], list[tuple[int, int]]] = self._poll

    def register(self, connection: Watched) -> None:
        assert isinstance(connection, MemoryConnection)
        self._watched[connection.fileno] = connection
        connection.incoming.on_input = self._woken.unpark_all
        self._woken.unpark_all()  # it may have input already

    def unregister(self, connection: Watched) -> None:
        assert isinstance(connection, MemoryConnection)
        del self._watched[connection.fileno]
        connection.incoming.on_input = lambda: None

    def _ready(self) -> list[int]:
        return [number for number, connection in self._watched.items() if connection.incoming.has_input]

    def _poll(self, timeout: float, at_most: int) -> list[tuple[int, int]]:
        ready = self._ready()[:at_most]
        for number in ready:  # what was reported comes last from now on
            self._watched[number] = self._watched.pop(number)
        return [(number, 1) for number in ready]

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._ready():
            await self._woken.park()

    def linger(self) -> list[tuple[int, int]]:
        return []

    def close(self) -> None:
        self._watched.clear()


class MemoryListener:
    """A listener for connections in memory."""

    address = "memory:"

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._to_accept: deque[MemoryConnection] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._closed = False

    def connect(self, peer: Peer | None = None) -> MemoryStream:
        """Connect to the relay, as `peer`; the caller closes the stream.

        Raises:
            ConnectionRefusedError: the relay does not listen any more.
        """
        if self._closed or len(self._to_accept) >= BACKLOG:
            raise ConnectionRefusedError("the relay in memory accepts no more connections")
        up, down = _Pipe(self._capacity), _Pipe(self._capacity)
        self._to_accept.append(MemoryConnection(up, down, peer or Peer("memory", "memory")))
        self._changed.unpark_all()
        return MemoryStream(down, up)

    def connection(self, peer: Peer) -> MemoryConnection:
        """Return the relay's end of a connection that is not to be accepted."""
        return MemoryConnection(_Pipe(self._capacity), _Pipe(self._capacity), peer)

    def accept_waiting(self, admission: Admission) -> bool:
        for _ in range(min(admission.accepts, len(self._to_accept))):
            admission.enter(self._to_accept.popleft())
        return True

    async def accept_forever(self, admission: Admission) -> None:
        while self._to_accept or not self._closed:
            await trio.lowlevel.checkpoint()
            if self._to_accept:
                admission.enter(self._to_accept.popleft())
                await admission.room()
            elif not self._closed:
                await self._changed.park()

    def close(self) -> None:
        self._closed = True
        self._changed.unpark_all()
