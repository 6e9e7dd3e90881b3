"""A table of keys: NATS's key-value bucket, which is a stream of JetStream with the last changes of each key.

1. A key is a subject, its revision the sequence number of its newest message in the stream. A change says which
   revision it expects, and the server takes it only then; 0 expects that there is no message.
2. A deletion is a message with a header. The server deletes a key that is older than the time to live without a
   message.
3. `watch` makes a consumer that sends the newest message of each key and then every one that follows. Its messages are
   numbered: a gap, or a silence without heartbeats, ends the connection, because nothing else shows that changes were
   missed.
"""

import secrets
from collections.abc import Callable

import msgspec
import trio

from .._engine import EngineAway
from ._connection import Connection
from ._protocol import Message, ProtocolError, decode_headers, encode_headers

NO_MESSAGE, NO_STREAM, NAME_TAKEN = 10037, 10059, 10058
OTHER_REVISION = (10071, 10164)
NO_JETSTREAM = (10039, 10076)
NO_RESPONDERS = 503
_NONSENSE = "JetStream sent an invalid answer"
_NO_JETSTREAM = "it has no JetStream", "start nats-server with -js"
HISTORY = 64
"""Changes of one key that a fast writer may make before a watcher misses some; the most that NATS allows."""


class ApiError(EngineAway):
    """JetStream refuses something.

    Attributes:
        code: which error it is.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = "JetStream refuses it"


class _Config(msgspec.Struct):
    max_age: int = 0
    max_msgs_per_subject: int = 0


class _Stored(msgspec.Struct):
    seq: int
    data: bytes = b""
    hdrs: bytes = b""


class _Answer(msgspec.Struct):
    """The fields of JetStream's answers that are used here; each answer has some of them."""

    error: _Error | None = None
    config: _Config = msgspec.field(default_factory=_Config)
    message: _Stored | None = None
    num_pending: int = 0
    seq: int = 0


_read_answer = msgspec.json.Decoder(_Answer).decode


class Bucket:
    """One bucket, over one connection."""

    def __init__(self, connection: Connection, name: str, lease: float) -> None:
        """Make a bucket's handle; `lease` is the seconds that a change is kept for."""
        self._connection = connection
        self._name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._lease = lease
        self._heartbeat = max(0.1, lease / 5)
        self._changed: Callable[[str, bytes | None, int], None]
        self._caught_up: Callable[[], None]
        self._delivered = 0
        self._heard = float("inf")  # until there is a watch

    async def open(self) -> None:
        """Make the bucket if there is none.

        Raises:
            EngineAway: there is no JetStream, or the bucket has other settings.
        """
        try:
            info = await self._api("STREAM.INFO")
        except ApiError as error:
            if error.code != NO_STREAM:
                raise
            info = await self._make()
        lease, history = info.config.max_age / 1e9, info.config.max_msgs_per_subject
        if lease != self._lease or history != HISTORY:
            raise EngineAway(
                f"its bucket {self._name} keeps {history} changes for {lease:.15g} s, not {HISTORY} for "
                f"{self._lease:.15g} s",
                f"remove that bucket with: nats kv del {self._name}; or choose another --realm",
            )

    async def _make(self) -> _Answer:
        config = {  # all else is as a server has it by default
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "storage": "file",
            "discard": "new",
            "max_age": round(self._lease * 1e9),
            "max_msgs_per_subject": HISTORY,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        try:
            return await self._api("STREAM.CREATE", config)
        except ApiError as error:
            if error.code != NAME_TAKEN:
                raise
            return await self._api("STREAM.INFO")  # another relay was first

    async def create(self, key: str, value: bytes) -> int:
        """Set a key that does not exist; return its revision, 0 if it exists."""
        revision = await self.update(key, value, 0)
        if not revision and (last := await self._last(key)) is not None and last[0] is None:
            revision = await self.update(key, value, last[1])
        return revision

    async def delete(self, key: str, revision: int) -> int:
        """Delete a key whose revision is `revision`; return that of the change, 0 if it is another."""
        return await self.update(key, b"", revision, {"KV-Operation": "DEL"})

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision of a key; None if it does not exist."""
        last = await self._last(key)
        return None if last is None or last[0] is None else (last[0], last[1])

    async def update(self, key: str, value: bytes, revision: int, headers: dict[str, str] | None = None) -> int:
        """Set a key whose revision is `revision`; return its new one, 0 if it is another."""
        expecting = {"Nats-Expected-Last-Subject-Sequence": str(revision), **(headers or {})}
        message = await self._connection.request(f"{self._prefix}{key}", value, encode_headers(expecting))
        try:
            return _answer(message).seq
        except ApiError as error:
            if error.code not in OTHER_REVISION:
                raise
            return 0

    async def _last(self, key: str) -> tuple[bytes | None, int] | None:
        """Return the newest message of a key, with None for a deletion; None if there is no message."""
        try:
            answer = await self._api("STREAM.MSG.GET", {"last_by_subj": f"{self._prefix}{key}"})
        except ApiError as error:
            if error.code != NO_MESSAGE:
                raise
            return None
        message = answer.message
        if message is None:
            return None
        return None if _is_deletion(_headers(message.hdrs)[1]) else message.data, message.seq

    async def _api(self, verb: str, body: object = None) -> _Answer:
        payload = b"" if body is None else msgspec.json.encode(body)
        return _answer(await self._connection.request(f"$JS.API.{verb}.{self._stream}", payload))

    # -- changes

    async def watch(self, changed: Callable[[str, bytes | None, int], None], caught_up: Callable[[], None]) -> None:
        """Call `changed` with each key, its value and revision, and `caught_up` whenever no more are to come now."""
        self._changed, self._caught_up = changed, caught_up
        self._heard = trio.current_time()
        subject = f"_INBOX.{secrets.token_hex(8)}"
        self._connection.subscribe(subject, self._take)
        consumer = {
            "deliver_subject": subject,
            "deliver_policy": "last_per_subject",
            "filter_subject": f"{self._prefix}>",
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "idle_heartbeat": round(self._heartbeat * 1e9),
        }
        answer = await self._api("CONSUMER.CREATE", {"stream_name": self._stream, "config": consumer})
        if not answer.num_pending:
            caught_up()

    def check_heard(self) -> None:
        """End the connection if the watch is silent for longer than it may be."""
        if trio.current_time() - self._heard > self._lease / 2:
            self._connection.end("it reports no changes any more")

    def _take(self, message: Message) -> None:
        self._heard = trio.current_time()
        status, headers = decode_headers(message.headers) if message.headers else (0, {})
        if status:  # a heartbeat: there are no more changes now
            if headers.get("nats-last-consumer", str(self._delivered)) != str(self._delivered):
                self._connection.end("it did not report all changes")
            else:
                self._caught_up()
            return
        number, revision, pending = _numbers(message.reply)
        if number != self._delivered + 1:
            self._connection.end("it did not report all changes")
            return
        self._delivered = number
        value = None if _is_deletion(headers) else bytes(message.payload)
        self._changed(message.subject[len(self._prefix) :], value, revision)
        if not pending:
            self._caught_up()


def _answer(message: Message) -> _Answer:
    """Return what JetStream answers.

    Raises:
        ApiError: it refuses.
        EngineAway: there is none.
    """
    if _headers(message.headers)[0] == NO_RESPONDERS:
        raise EngineAway(*_NO_JETSTREAM)
    try:
        answer = _read_answer(message.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EngineAway(_NONSENSE) from None
    if answer.error is None:
        return answer
    if answer.error.err_code in NO_JETSTREAM:
        raise EngineAway(*_NO_JETSTREAM)
    raise ApiError(answer.error.err_code, answer.error.description)


def _headers(headers: bytes) -> tuple[int, dict[str, str]]:
    try:
        return decode_headers(headers) if headers else (0, {})
    except ProtocolError:
        raise EngineAway(_NONSENSE) from None


def _is_deletion(headers: dict[str, str]) -> bool:
    return "kv-operation" in headers or "nats-marker-reason" in headers


def _numbers(reply: str) -> tuple[int, int, int]:
    """Return a delivered message's number in its consumer, in the stream, and how many follow.

    Raises:
        ProtocolError: it comes from no consumer.
    """
    words = reply.split(".")
    try:
        # Newer servers may say domain and account after "$JS.ACK".
        stream, consumer, _, pending = words[5:9] if len(words) == 9 else words[7:11]
        return int(consumer), int(stream), int(pending)
    except ValueError:
        raise ProtocolError("a change without a number") from None
