"""The client library for programs without Trio: scripts, notebooks, threads.

    from triorelay import blocking

    with blocking.connect("unix:server_socket", id="A") as client:
        client.send("B", b"hello")
        source, data = client.receive(timeout=5)

It is the Trio client in a thread of its own. Every method may be called from any thread, and waits there: one thread
receives at a time, any number may send and call. After `close`, and after the end of the `with` block, all of them
raise `trio.ClosedResourceError`.
"""

import os
import ssl
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, final

import trio

from . import client as _client
from .client._bare import open_bare_nursery
from .client._calls import CALL_LIMIT
from .protocol import DEFAULT_MESSAGE_LIMIT, Address

__all__ = ["Calls", "Client", "Messages", "connect"]

_T = TypeVar("_T")


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


class _Loop:
    """A thread that runs Trio, and does there what other threads ask for."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[_client.Client]]) -> None:
        self._opening = opening
        self._opened: Future[_client.Client] = Future()
        self._ended: Future[None] = Future()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="triorelay", daemon=True)
        self._thread.start()
        self.client: _client.Client = self._opened.result()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _main(self) -> None:
        async with self._opening() as client, open_bare_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._close = trio.Event()
            self._opened.set_result(client)
            await self._close.wait()
            self._nursery.cancel_scope.cancel()

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` if the client was closed."""
        if self._closing:
            raise _closed()

    def do(
        self, work: Callable[[], Awaitable[_T]], timeout: float | None = None, at_once: Callable[[], _T] | None = None
    ) -> _T:
        """Do `work` in the loop and return its result. Interrupted here, it is cancelled there.

        Args:
            work: what is done, in a task of its own.
            timeout: the seconds that it may take; None for any time.
            at_once: tried first; it raises `trio.WouldBlock` if only `work` can do it. It costs no task.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            trio.ClosedResourceError: the client was closed, before or meanwhile.
        """
        done: Future[_T] = Future()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with trio.move_on_after(float("inf") if timeout is None else timeout) as patience, scope:
                    done.set_result(await work())
                    return
                if patience.cancelled_caught:
                    done.set_exception(TimeoutError(f"not done within {timeout:g} s"))
            except Exception as error:
                done.set_exception(error)
            finally:
                if not done.done():
                    done.set_exception(_closed())

        try:
            self.check_open()
            self._token.run_sync_soon(self._start, run, done, at_once)
        except trio.RunFinishedError:
            raise _closed() from None
        try:
            return done.result()
        except KeyboardInterrupt:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)
            raise

    def _start(self, run: Callable[[], Awaitable[None]], done: Future[_T], at_once: Callable[[], _T] | None) -> None:
        if self._close.is_set():
            done.set_exception(_closed())
        elif at_once is None:
            self._nursery.start_soon(run)
        else:
            try:
                done.set_result(at_once())
            except trio.WouldBlock:
                self._nursery.start_soon(run)
            except Exception as error:
                done.set_exception(error)

    def hold(self, manager: AbstractAsyncContextManager[_T]) -> tuple[_T, Callable[[], None]]:
        """Enter a context manager in the loop, and return what it gives and what leaves it again."""
        leave = trio.Event()

        async def enter() -> _T:
            send, receive = trio.open_memory_channel[_T | Exception](1)
            self._nursery.start_soon(_held, manager, leave, send)
            result = await receive.receive()
            if isinstance(result, Exception):
                raise result
            return result

        async def let_go() -> None:
            leave.set()
            await trio.lowlevel.checkpoint()

        return self.do(enter), partial(self.do, let_go)

    def close(self) -> None:
        """End the loop, and raise what leaving the client raises."""
        if self._closing:
            self._thread.join()
            return
        self._closing = True
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._close.set)
        self._ended.result()


async def _held(
    manager: AbstractAsyncContextManager[_T], leave: trio.Event, send: trio.MemorySendChannel[_T | Exception]
) -> None:
    try:
        async with manager as given:
            send.send_nowait(given)
            await leave.wait()
    except Exception as error:
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            send.send_nowait(error)


def _closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("this client is closed; open another one with connect()")


@final
class Messages(_Closing):
    """Whole messages; what `Client.messages` returns. See `triorelay.MessageChannel`."""

    def __init__(self, loop: _Loop, channel: _client.MessageChannel) -> None:
        self._loop = loop
        self._channel = channel
        self._closed = False
        self._one_receiver = threading.Lock()
        # One turn of the loop brings what waits there, up to 64 KiB: a claim's worth.
        self._fetched: deque[tuple[str, bytes]] = deque()

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
        if not self._one_receiver.acquire(blocking=False):
            raise trio.BusyResourceError("another thread is receiving these messages; one thread receives at a time")
        try:
            self._loop.check_open()
            if not self._fetched or self._closed:
                self._loop.do(self._fetch, timeout, self._fetch_nowait)
            return self._fetched.popleft()
        finally:
            self._one_receiver.release()

    async def _fetch(self) -> None:
        self._fetched.append(await self._channel.receive())
        self._fetched.extend(self._channel._take_waiting())

    def _fetch_nowait(self) -> None:
        self._fetched.append(self._channel.receive_nowait())
        self._fetched.extend(self._channel._take_waiting())

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while True:
            yield self.receive()

    def close(self) -> None:
        """Give the claim back; messages not yet received are discarded."""
        self._closed = True
        with suppress(trio.ClosedResourceError):
            self._loop.do(self._channel.aclose)


@final
class Calls(_Closing):
    """Calls; what `Client.calls` returns. See `triorelay.Calls`."""

    def __init__(self, loop: _Loop, calls: _client.Calls, leave: Callable[[], None]) -> None:
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

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._client = loop.client

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
        self._loop.do(partial(self._client.send, destination, data))

    def receive(self, timeout: float | None = None) -> tuple[str, bytes]:
        """Wait for data and return (source, data).

        Raises:
            TimeoutError: none came within `timeout` seconds; and the errors of `triorelay.Client.receive`.
        """
        return self._loop.do(self._client.receive, timeout, self._client.receive_nowait)

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

        async def messages() -> _client.MessageChannel:
            await trio.lowlevel.checkpoint()
            return self._client.messages(limit=limit)

        return Messages(self._loop, self._loop.do(messages))

    def calls(self, *, limit: int = CALL_LIMIT) -> Calls:
        """Open calls. The caller closes them, best by `with`."""

        async def calls() -> AbstractAsyncContextManager[_client.Calls]:
            await trio.lowlevel.checkpoint()
            return self._client.calls(limit=limit)

        given, leave = self._loop.hold(self._loop.do(calls))
        return Calls(self._loop, given, leave)

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
        _Loop(
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
