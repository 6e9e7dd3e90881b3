"""The client library for programs without Trio: scripts, notebooks, threads.

    from triorelay import blocking

    with blocking.connect("unix:server_socket", id="A") as client:
        client.send("B", b"hello")
        source, data = client.receive(timeout=5)

It is the Trio client in a thread of its own. Every method may be called from any thread, and waits there: one thread
receives at a time, any number may send and call. After `close`, and after the end of the `with` block, all of them
raise `trio.ClosedResourceError`. In a child process made by `os.fork`, they raise `RuntimeError`; so may a call by a
signal handler that interrupted another call of the same client.
"""

import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self, final

import trio

from . import client as _client
from .client._calls import CALL_LIMIT
from .client._thread import Loop, Receiving
from .protocol import DEFAULT_MESSAGE_LIMIT, Address

__all__ = ["Calls", "Client", "Messages", "connect"]


class _Closing(ABC):
    """What can be closed, also by `with`."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(Exception):
                self.close()


@final
class Messages(_Closing):
    """Whole messages; what `Client.messages` returns. See `triorelay.MessageChannel`."""

    def __init__(self, loop: Loop, channel: _client.MessageChannel, leave: Callable[[], None]) -> None:
        self._loop = loop
        self._channel = channel
        self._leave = leave
        busy = "another thread is receiving these messages; one thread receives at a time"
        self._receiving = Receiving(loop, channel._arrivals, channel.receive_nowait, busy)

    def send(self, destination: str | bytes | int, payload: bytes | bytearray | memoryview) -> None:
        """Send one message, waiting for room as needed; errors as those of `MessageChannel.send`."""
        self._loop.do(
            partial(self._channel.send, destination, payload),
            at_once=partial(self._channel.send_nowait, destination, payload),
        )

    def receive(self, timeout: float | None = None) -> tuple[str, bytes]:
        """Wait for a message and return (source, payload).

        Raises:
            TimeoutError: none came within `timeout` seconds; and the errors of `MessageChannel.receive`.
        """
        return self._receiving.receive(timeout)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while True:
            yield self.receive()

    def close(self) -> None:
        """Give the claim back; messages not yet received are discarded."""
        with suppress(trio.ClosedResourceError):
            self._leave()


@final
class Calls(_Closing):
    """Calls; what `Client.calls` returns. See `triorelay.Calls`."""

    def __init__(self, loop: Loop, calls: _client.Calls, leave: Callable[[], None]) -> None:
        self._loop = loop
        self._calls = calls
        self._leave = leave

    def call(
        self, id: str | bytes | int, payload: bytes | bytearray | memoryview, timeout: float | None = None
    ) -> bytes:
        """Call the client `id` and return the payload of its reply.

        Raises:
            TimeoutError: no reply came within `timeout` seconds, and the call was cancelled there too; and the errors
                of `triorelay.Calls.call`.
        """
        return self._loop.do(partial(self._calls.call, id, payload), timeout)

    def serve(self, handler: Callable[[str, bytes], bytes], *, at_once: int = 32, timeout: float | None = None) -> None:
        """Answer calls by `handler`, called in threads with the caller's id and the payload.

        It returns after `timeout` seconds, or never. A call that is cancelled cannot interrupt its handler's thread;
        what the handler returns then is discarded. Errors as those of `triorelay.Calls.serve`.
        """

        async def handle(source: str, payload: bytes) -> bytes:
            return await trio.to_thread.run_sync(handler, source, payload, abandon_on_cancel=True)

        with suppress(TimeoutError):
            self._loop.do(partial(self._calls.serve, handle, at_once=at_once), timeout)

    def close(self) -> None:
        """Give the claim back; calls that wait fail."""
        with suppress(trio.ClosedResourceError):
            self._leave()


@final
class Client(_Closing):
    """A connection to a relay, for threads; what `connect` returns. See `triorelay.Client`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._client = loop.client
        busy = "another thread is receiving from this client; one thread receives at a time"
        self._receiving = Receiving(loop, self._client._inbox.unclaimed, self._client.receive_nowait, busy)

    @property
    def id(self) -> str:
        """The id that this client holds, as a one-character string; empty for an observer."""
        return self._client.id

    @property
    def peers(self) -> frozenset[str]:
        """The ids that are there now, this client's own left out."""

        async def peers() -> frozenset[str]:
            await trio.lowlevel.checkpoint()
            return self._client.peers

        return self._loop.do(peers)

    def send(self, destination: str | bytes | int, data: bytes | bytearray | memoryview) -> None:
        """Send each byte of `data` to `destination`, waiting for room as needed; errors as those of `Client.send`."""
        at_once = partial(self._client._send_nowait, destination, data)
        self._loop.do(partial(self._client.send, destination, data), at_once=at_once)

    def receive(self, timeout: float | None = None) -> tuple[str, bytes]:
        """Wait for data and return (source, data).

        Raises:
            TimeoutError: none came within `timeout` seconds; and the errors of `triorelay.Client.receive`.
        """
        return self._receiving.receive(timeout)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while True:
            yield self.receive()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the relay has written or dropped all that was sent before; errors as those of `Client.flush`."""
        self._loop.do(self._client.flush, timeout)

    def wait_for(self, id: str | bytes | int, timeout: float | None = None) -> None:
        """Wait until a client holds `id`.

        Raises:
            TimeoutError: none did within `timeout` seconds; and the errors of `triorelay.Client.wait_for`.
        """
        self._loop.do(partial(self._client.wait_for, id), timeout)

    def messages(self, *, limit: int = DEFAULT_MESSAGE_LIMIT) -> Messages:
        """Open a channel of whole messages. The caller closes it, best by `with`."""
        return Messages(self._loop, *self._loop.hold(partial(self._client.messages, limit=limit)))

    def calls(self, *, limit: int = CALL_LIMIT) -> Calls:
        """Open calls. The caller closes them, best by `with`."""
        return Calls(self._loop, *self._loop.hold(partial(self._client.calls, limit=limit)))

    def close(self) -> None:
        """Leave: all that was sent is written or dropped first, for at most 30 s. A second call does nothing.

        Raises:
            ConnectionLost: something was sent that may not have arrived; and the other errors of leaving a block of
                `triorelay.open_client`.
        """
        self._loop.close()


def connect(
    address: str | os.PathLike[str] | Address,
    id: str | bytes | int | None = None,
    *,
    token: str | bytes | None = None,
    ssl_context: ssl.SSLContext | None = None,
    observer: bool = False,
    shared: bool = False,
    lossy: bool = False,
    reconnect: _client.Backoff | None = None,
    strict: bool = False,
) -> Client:
    """Connect to a relay and return a client, best used by `with`; arguments and errors as those of `open_client`."""
    return Client(
        Loop(
            partial(
                _client.open_client,
                address,
                id,
                token=token,
                ssl_context=ssl_context,
                observer=observer,
                shared=shared,
                lossy=lossy,
                reconnect=reconnect,
                strict=strict,
            )
        )
    )
