"""A relay in memory with its admin endpoint on real sockets, and as much HTTP as a test needs to talk to it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11
import trio

from triorelay.admin import Admin, AdminConfig
from triorelay.protocol import id_byte
from triorelay.relay import Config, TcpAddress, UnixAddress
from triorelay.testing import MemoryRelay, open_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from triorelay.relay import RealmState, RealmStatus, Relay
    from triorelay.testing._memory import MemoryStream

TOKEN = "a token of good length"
PATIENCE = 30
"""Seconds after which a test that waits for an answer gives up."""


@dataclass(frozen=True, slots=True)
class Got:
    """A reply."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Connection:
    """One connection to an endpoint."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._lines = b""

    async def send(self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        given = list(headers)
        if not any(name.lower() == "host" for name, _ in given):
            given.append(("Host", "localhost"))
        if body:
            given.append(("Content-Length", str(len(body))))
        data = self._http.send(h11.Request(method=method, target=path, headers=given)) or b""
        data += (self._http.send(h11.Data(data=body)) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        await self.stream.send_all(data)

    async def head(self) -> h11.Response:
        event = await self._event()
        assert isinstance(event, h11.Response), event
        return event

    async def reply(self) -> Got:
        head = await self.head()
        parts = []
        while isinstance(event := await self._event(), h11.Data):
            parts.append(bytes(event.data))
        headers = {name.decode(): value.decode() for name, value in head.headers}
        if self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return Got(head.status_code, headers, b"".join(parts))

    async def line(self) -> str:
        """The next line of a stream."""
        while b"\n" not in self._lines:
            event = await self._event()
            assert isinstance(event, h11.Data), event
            self._lines += bytes(event.data)
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    async def event(self) -> tuple[str, Any]:
        """The next server-sent event."""
        name, data, empty = [await self.line() for _ in range(3)]
        assert (name[:7], data[:6], empty) == ("event: ", "data: ", "")
        return name[7:], json.loads(data[6:])

    async def event_named(self, wanted: str) -> Any:
        while True:
            name, data = await self.event()
            if name == wanted:
                return data

    async def closed(self) -> bool:
        """Wait for the end of the connection; whether it came with no further byte."""
        try:
            return not await self.stream.receive_some(1)
        except trio.BrokenResourceError:
            return True

    async def _event(self) -> object:
        with trio.fail_after(PATIENCE):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(bytes(await self.stream.receive_some()))
        return event


@dataclass
class FakeRemote:
    """Other relays, of which there is nothing but what the status shows; put it into a relay's `remote`."""

    cluster: RealmStatus
    away: str = ""
    outboxes: tuple[()] = ()

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    async def claim(self, id: int, grant: object, *, shared: bool) -> None:
        await trio.lowlevel.checkpoint()

    def release(self, id: int) -> None: ...

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()

    async def before_handover(self) -> None:
        await trio.lowlevel.checkpoint()

    def capture(self) -> RealmState:
        raise NotImplementedError

    def restore(self, relay: Relay, state: RealmState | None) -> None:
        raise NotImplementedError

    def status(self) -> RealmStatus:
        return self.cluster


class Endpoint:
    """A running relay and its endpoint."""

    def __init__(self, memory: MemoryRelay, address: UnixAddress | TcpAddress) -> None:
        self.memory = memory
        self.relay = memory.relay
        self.address = address

    @property
    def url(self) -> str:
        assert isinstance(self.address, TcpAddress)
        return f"http://{self.address.host}:{self.address.port}/"

    @asynccontextmanager
    async def client(self, id: str) -> AsyncIterator[MemoryStream]:
        """A client of the relay, from when it holds its id."""
        async with self.memory.connect(id) as stream:
            while self.relay.exchange.registry.holder(id_byte(id)) is None:
                await trio.lowlevel.checkpoint()
            yield stream

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        async with await self._open() as stream:
            yield Connection(stream)

    async def _open(self) -> trio.SocketStream:
        if isinstance(self.address, UnixAddress):
            return await trio.open_unix_socket(self.address.path)
        return await trio.open_tcp_stream(self.address.host, self.address.port)

    async def fetch(self, path: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"") -> Got:
        async with self.connect() as connection:
            await connection.send(method, path, headers, body)
            return await connection.reply()

    async def post(self, path: str, *headers: tuple[str, str]) -> Got:
        return await self.fetch(path, ("X-Triorelay", "1"), *headers, method="POST")

    @asynccontextmanager
    async def follow(self, path: str) -> AsyncIterator[Connection]:
        """Open a stream, past its head."""
        async with self.connect() as connection:
            await connection.send("GET", path)
            assert (await connection.head()).status_code == 200
            yield connection


@asynccontextmanager
async def open_endpoint(
    address: UnixAddress | TcpAddress | None = None,
    *,
    token_file: Path | None = None,
    hosts: tuple[str, ...] = (),
    config: Config | None = None,
) -> AsyncIterator[Endpoint]:
    """Run a relay and its endpoint for the length of the block; by TCP on a free port, unless an address is given."""
    address = address or TcpAddress("127.0.0.1", 0)
    async with open_relay(config) as memory, trio.open_nursery() as nursery:
        admin = Admin(AdminConfig(address=address, token_file=token_file, hosts=hosts))
        await nursery.start(admin.run, memory.relay)
        if isinstance(address, TcpAddress):
            address = TcpAddress(address.host, int(admin.addresses[0].rpartition(":")[2]))
        yield Endpoint(memory, address)
        nursery.cancel_scope.cancel()
