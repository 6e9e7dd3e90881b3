"""Each library as a `Bus`, used as its documentation uses it.

Only the process that uses a library imports it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Protocol

Handler = Callable[[bytes], Awaitable[bool]]
"""Takes one payload; returns whether it was the last."""


class Bus(Protocol):
    """One client's place on a bus."""

    def send(self, to: str, payload: bytes, /) -> Awaitable[object]: ...

    async def receive(self) -> bytes:
        """Wait for the next payload; for the rare ones."""

    async def handle(self, handler: Handler, /) -> None:
        """Give all that arrives to the handler, until it says that this was the last."""


class _Iterating:
    """A bus whose library has an iterator of messages."""

    def __init__(
        self,
        send: Callable[[str, bytes], Awaitable[object]],
        messages: AsyncIterator[Any],
        payload: Callable[[Any], bytes],
    ) -> None:
        self.send = send
        self._messages = messages
        self._payload = payload

    async def receive(self) -> bytes:
        return self._payload(await anext(self._messages))

    async def handle(self, handler: Handler) -> None:
        payload = self._payload
        async for message in self._messages:
            if await handler(payload(message)):
                return


@dataclass(frozen=True, slots=True)
class Library:
    """A library: how a process connects with it, and what runs its coroutines.

    Attributes:
        connect: from an address, the client's name, and the name to listen to where those can differ.
        broadcasts: whether several receivers can listen to one name.
    """

    connect: Callable[[str, str, str], AbstractAsyncContextManager[Bus]]
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
    broadcasts: bool


def _on_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import trio

    trio.run(main)


def _on_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def _on_nothing(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine that blocks where it waits."""
    try:
        main().send(None)
    except StopIteration:
        return
    raise AssertionError("it waited for an event loop")


@asynccontextmanager
async def _triorelay(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import triorelay

    shared = listen != name
    async with triorelay.open_client(address, id=listen, shared=shared) as client, client.messages() as channel:
        yield _Iterating(channel.send, channel, itemgetter(1))


class _Nowait:
    """triorelay, messages by the methods that do not wait, as long as they have something to do."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.receive = _Iterating(channel.send, channel, itemgetter(1)).receive

    async def send(self, to: str, payload: bytes) -> None:
        import trio

        try:
            self._channel.send_nowait(to, payload)
        except trio.WouldBlock:
            await self._channel.send(to, payload)

    async def handle(self, handler: Handler) -> None:
        import trio

        async for _, payload in self._channel:
            last = await handler(payload)
            while not last:
                try:
                    _, more = self._channel.receive_nowait()
                except trio.WouldBlock:
                    break
                last = await handler(more)
            if last:
                return


@asynccontextmanager
async def _triorelay_nowait(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import triorelay

    shared = listen != name
    async with triorelay.open_client(address, id=listen, shared=shared) as client, client.messages() as channel:
        yield _Nowait(channel)


class _Blocking:
    """triorelay's client for programs without an event loop."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    async def send(self, to: str, payload: bytes) -> None:
        self._messages.send(to, payload)

    async def receive(self) -> bytes:
        return self._messages.receive()[1]  # type: ignore[no-any-return]

    async def handle(self, handler: Handler) -> None:
        while not await handler(self._messages.receive()[1]):
            pass


@asynccontextmanager
async def _triorelay_blocking(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    from triorelay import blocking

    with blocking.connect(address, id=listen, shared=listen != name) as client, client.messages() as messages:
        yield _Blocking(messages)


class _Nats:
    """Messages come by a callback, which is quicker than this library's iterator."""

    def __init__(self, client: Any) -> None:
        self.send = client.publish
        self._payloads: asyncio.Queue[bytes] = asyncio.Queue()
        self._handler: Handler | None = None
        self._over = asyncio.Event()

    async def take(self, message: Any) -> None:
        if self._handler is None:
            self._payloads.put_nowait(message.data)
        elif await self._handler(message.data):
            self._over.set()

    async def receive(self) -> bytes:
        return await self._payloads.get()

    async def handle(self, handler: Handler) -> None:
        while not self._payloads.empty():
            if await handler(self._payloads.get_nowait()):
                return
        self._handler = handler
        await self._over.wait()


@asynccontextmanager
async def _nats(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import nats

    client = await nats.connect(address.replace("tcp:", "nats://"))
    bus = _Nats(client)
    await client.subscribe(listen, cb=bus.take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    yield bus
    await client.close()


@asynccontextmanager
async def _nats_iterator(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import nats

    client = await nats.connect(address.replace("tcp:", "nats://"))
    subscription = await client.subscribe(listen, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    yield _Iterating(client.publish, aiter(subscription.messages), attrgetter("data"))
    await client.close()


class _Zmq:
    """Blocking sockets, which are quicker than this library's asyncio."""

    def __init__(self, dealer: Any) -> None:
        self._dealer = dealer

    async def send(self, to: str, payload: bytes) -> None:
        self._dealer.send_multipart((to.encode(), payload))

    async def receive(self) -> bytes:
        return self._dealer.recv_multipart()[1]  # type: ignore[no-any-return]

    async def handle(self, handler: Handler) -> None:
        while not await handler(self._dealer.recv_multipart()[1]):
            pass


@asynccontextmanager
async def _zmq(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import zmq

    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.IDENTITY, name.encode())
        dealer.connect(address.replace("unix:", "ipc://"))
        yield _Zmq(dealer)


@asynccontextmanager
async def _mqtt(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import aiomqtt

    async with aiomqtt.Client(address.removeprefix("unix:"), port=1, transport="unix") as client:
        await client.subscribe(listen)
        yield _Iterating(client.publish, aiter(client.messages), attrgetter("payload"))


@asynccontextmanager
async def _redis(address: str, name: str, listen: str) -> AsyncIterator[Bus]:
    import redis.asyncio

    async with (
        redis.asyncio.Redis(unix_socket_path=address.removeprefix("unix:")) as client,
        client.pubsub(ignore_subscribe_messages=True) as pubsub,
    ):
        await pubsub.subscribe(listen)
        messages = (message async for message in pubsub.listen() if message is not None)
        yield _Iterating(client.publish, messages, itemgetter("data"))


LIBRARIES = {
    "triorelay": Library(_triorelay, _on_trio, broadcasts=True),
    "triorelay nowait": Library(_triorelay_nowait, _on_trio, broadcasts=True),
    "triorelay blocking": Library(_triorelay_blocking, _on_nothing, broadcasts=True),
    "nats-py": Library(_nats, _on_asyncio, broadcasts=True),
    "nats-py iterator": Library(_nats_iterator, _on_asyncio, broadcasts=True),
    "pyzmq": Library(_zmq, _on_nothing, broadcasts=False),
    "aiomqtt": Library(_mqtt, _on_asyncio, broadcasts=True),
    "redis-py": Library(_redis, _on_asyncio, broadcasts=True),
}
