"""NATS with JetStream, by nats-py, which is written for asyncio: its event loop runs as a Trio task (trio-asyncio).

1. All is in one thread. What asyncio's callbacks tell the relay is told in a step of its own, like everything else; and
   the cluster's work never takes the interpreter away from the relay in the middle of a step, as a thread would.
2. A connection lives as long as the block of `connect`. nats-py's own reconnecting is off: it would send what it had
   buffered for the old connection over the new one, late.
3. A message is published at once while nats-py's buffer is not filling. Else one task publishes what collects, in
   order, and waits while the engine is slow.
4. Leases are keys of the bucket `triorelay-REALM`. Its settings must be what a relay of this version would set; a
   bucket of others is not used.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors
import nats.js.errors
import trio
import trio_asyncio
from nats.aio.msg import Msg
from nats.js.kv import KeyValue

from ..relay import LOGGER
from ._config import ClusterConfig
from ._engine import EngineAway, Receiver
from ._nats_client import ERRORS, TlsClient, credentials, reason_of

HISTORY = 64
"""Changes of one key that a relay may be told late; more of them within one lease would be told as the last alone."""
CONNECTING = 2.0
"""Seconds until an attempt to connect is given up."""
BUFFERED = 1 << 19
"""Bytes in nats-py's buffer up to which its `publish` is called at once: it waits for nothing then, only at four times
that. No task need await it, which saves a pass of the scheduler, some 20 µs of the way of a lone frame."""
CLOSING = 1.0
REQUEST = 30.0
"""Seconds after which nats-py gives up a request; the cluster does so before."""

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

T = TypeVar("T")


class NatsBackplane:
    """The way to a NATS server."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config

    @asynccontextmanager
    async def connect(self, receiver: Receiver) -> "AsyncIterator[NatsEngine]":
        """Connect for the length of the block; see `Backplane`."""
        failure: EngineAway | None = None
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_bug)
            engine = NatsEngine(self._config, receiver, loop)
            try:
                with trio.move_on_after(CONNECTING) as patience:
                    await engine.ask(engine.open())
                if patience.cancelled_caught:
                    raise EngineAway(engine.trouble or "it does not answer in time")
                yield engine
            except EngineAway as away:
                failure = away
            finally:
                with trio.move_on_after(CLOSING, shield=True):
                    await engine.ask(engine.close())
        if failure is not None:
            raise failure


def _log_bug(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    LOGGER.error("bug in the cluster", exc_info=error, extra={"fields": {"reason": context.get("message", "")}})


class NatsEngine:
    """One connection; its public asynchronous methods, but for `open` and `close`, are Trio's.

    Attributes:
        max_payload: bytes that a message may have.
        trouble: what nats-py last complained of.
    """

    def __init__(self, config: ClusterConfig, receiver: Receiver, loop: trio_asyncio.TrioEventLoop) -> None:
        self.max_payload = 1 << 20
        self.trouble = ""
        self._config = config
        self._receiver = receiver
        self._loop = loop
        self._client = TlsClient()
        self._bucket: KeyValue
        self._subscriptions: dict[str, Subscription] = {}
        self._queue: deque[tuple[str, bytes, Callable[[], None]]] = deque()
        self._wanted: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # -- asyncio's side

    async def open(self) -> None:
        """Connect, and begin to tell of keys."""
        config = self._config
        try:
            await self._client.connect(
                servers=list(config.urls),
                name="triorelay",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=1,
                ping_interval=max(1, int(config.lease)),
                error_cb=self._on_error,
                disconnected_cb=self._on_lost,
                closed_cb=self._on_lost,
                **credentials(config.credentials),
            )
        except ERRORS as error:
            mend = "look into --cluster-credentials" if "redentials" in self.trouble else ""
            raise EngineAway(self.trouble or reason_of(error), mend) from None
        self.max_payload = self._client.max_payload
        self._bucket = await self._open_bucket()
        watcher = await self._bucket.watchall()
        self._tasks = [asyncio.ensure_future(self._watch(watcher)), asyncio.ensure_future(self._publish_forever())]
        for task in self._tasks:
            task.add_done_callback(self._on_task_done)

    async def _open_bucket(self) -> KeyValue:
        stream = self._client.jetstream(timeout=REQUEST)
        name, lease = f"triorelay-{self._config.realm}", self._config.lease
        try:
            try:
                bucket = await stream.key_value(name)
            except nats.js.errors.BucketNotFoundError:
                bucket = await stream.create_key_value(bucket=name, ttl=lease, history=HISTORY)
            status = await bucket.status()
        except (nats.js.errors.ServiceUnavailableError, nats.errors.NoRespondersError):
            raise EngineAway("it has no JetStream", "start nats-server with -js") from None
        if status.ttl != lease or status.history != HISTORY:
            raise EngineAway(
                f"its bucket {name} keeps {status.history} changes for {status.ttl or 0:.15g} s, not {HISTORY} for "
                f"{lease:.15g} s",
                f"remove that bucket with: nats kv del {name}; or choose another --realm",
            )
        return bucket

    async def close(self) -> None:
        """Close the connection."""
        for task in self._tasks:
            task.cancel()
        # nats-py asserts that its `connect` came as far as to have something to close.
        with suppress(*ERRORS, AssertionError):
            await self._client.close()

    async def _watch(self, watcher: KeyValue.KeyWatcher) -> None:
        async for entry in watcher:
            if entry is None:
                self._receiver.caught_up()
            else:
                value = None if entry.operation else entry.value
                self._receiver.key_changed(entry.key, value, entry.revision or 0)

    async def _publish_forever(self) -> None:
        queue, publish = self._queue, self._client.publish
        try:
            while True:
                while queue:
                    subject, payload, taken = queue.popleft()
                    if subject:
                        await publish(subject, payload)
                    taken()
                self._wanted = asyncio.get_running_loop().create_future()
                await self._wanted
        except ERRORS as error:
            self._receiver.lost(reason_of(error))

    async def _on_message(self, message: Msg) -> None:
        self._receiver.message(message.subject, message.data)

    async def _on_error(self, error: Exception) -> None:
        self.trouble = reason_of(error)
        if not isinstance(error, ERRORS):
            LOGGER.error("bug in the cluster", exc_info=error, extra={"fields": {}})

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.error("bug in the cluster", exc_info=error, extra={"fields": {}})
            self._receiver.lost(f"{type(error).__name__}: {error}")

    async def _on_lost(self) -> None:
        self._receiver.lost(self.trouble or "the connection was closed")

    async def _subscribe(self, subject: str) -> None:
        if subject not in self._subscriptions:
            self._subscriptions[subject] = await self._client.subscribe(subject, cb=self._on_message)

    async def _unsubscribe(self, subject: str) -> None:
        subscription = self._subscriptions.pop(subject, None)
        if subscription is not None:
            await subscription.unsubscribe()

    async def _create(self, key: str, value: bytes) -> int:
        try:
            return await self._bucket.create(key, value)
        except nats.js.errors.KeyWrongLastSequenceError:
            return 0

    async def _update(self, key: str, value: bytes, revision: int) -> int:
        try:
            return await self._bucket.update(key, value, last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return 0

    async def _delete(self, key: str, revision: int) -> None:
        published = asyncio.get_running_loop().create_future()
        self._enqueue("", b"", partial(published.set_result, None))
        await published
        with suppress(nats.js.errors.APIError):  # another revision: somebody else's
            await self._bucket.delete(key, last=revision)

    async def _read(self, key: str) -> tuple[bytes, int] | None:
        try:
            entry = await self._bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            return None
        return entry.value or b"", entry.revision or 0

    # -- Trio's side

    async def ask(self, asked: Coroutine[Any, Any, T]) -> T:
        """Await something of asyncio; what it raises because the engine cannot be used becomes `EngineAway`."""
        # Whoever asks may be any task of the relay, which knows nothing of the loop.
        before = trio_asyncio.current_loop.set(self._loop)
        try:
            answer: T = await self._loop.run_aio_coroutine(asked)
        except ERRORS as error:
            raise EngineAway(reason_of(error)) from None
        except EngineAway:
            raise
        except Exception as error:
            # Of ours or of nats-py's; clients here are not to suffer from it.
            LOGGER.exception("bug in the cluster", extra={"fields": {}})
            raise EngineAway(f"{type(error).__name__}: {error}") from None
        finally:
            trio_asyncio.current_loop.reset(before)
        return answer

    def publish(self, subject: str, payload: bytes, taken: Callable[[], None]) -> bool:
        if not self._queue and self._client.pending_data_size < BUFFERED and self._publish_now(subject, payload):
            return True
        self._enqueue(subject, payload, taken)
        return False

    def _enqueue(self, subject: str, payload: bytes, taken: Callable[[], None]) -> None:
        self._queue.append((subject, payload, taken))
        wanted = self._wanted
        if wanted is not None:
            self._wanted = None
            if not wanted.done():
                wanted.set_result(None)

    def _publish_now(self, subject: str, payload: bytes) -> bool:
        """Publish without waiting for the task that does; return whether that went."""
        before = trio_asyncio.current_loop.set(self._loop)
        publishing = self._client.publish(subject, payload)
        try:
            publishing.send(None)
        except StopIteration:
            return True
        except ERRORS as error:
            self._receiver.lost(reason_of(error))
        finally:
            trio_asyncio.current_loop.reset(before)
            publishing.close()
        return False

    async def subscribe(self, subject: str) -> None:
        await self.ask(self._subscribe(subject))

    async def unsubscribe(self, subject: str) -> None:
        await self.ask(self._unsubscribe(subject))

    async def create(self, key: str, value: bytes) -> int:
        return await self.ask(self._create(key, value))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self.ask(self._update(key, value, revision))

    async def delete(self, key: str, revision: int) -> None:
        await self.ask(self._delete(key, revision))

    async def read(self, key: str) -> tuple[bytes, int] | None:
        return await self.ask(self._read(key))

    async def ping(self) -> None:
        await self.ask(self._client.flush(int(REQUEST)))
