"""A connection to a NATS server: one socket, a reader, and a writer task for bytes that the kernel did not take.

1. Commands go to the kernel at once, in the caller's step, if no bytes wait before them. Bytes that the kernel does not
   take collect in `_unsent`, which one task writes in order. With more than `CONGESTED` bytes there a caller should
   wait for `drained`; if it publishes nevertheless, nothing is lost.
2. `receive` reads once and hands out whole messages. The relay's pump calls it, which reads this socket with those of
   its clients.
3. The connection ends once and for good, by `end`: every request that waits then raises `EngineAway`, messages are
   discarded, and `lost` gets the reason. `receive` never raises, whatever the server sends or a subscriber does.
4. It does not reconnect by itself: messages for the old connection must not go out late.
"""

import itertools
import os
import secrets
import socket
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import trio

from ..._version import __version__
from ...relay import LOGGER
from .._engine import EngineAway
from . import _protocol as protocol
from ._credentials import HINT, Credentials
from ._protocol import Info, Message, Parser, Ping, Pong, Problem, ProtocolError

CONGESTED = 1 << 18
"""With so many unsent bytes callers should wait; then their data goes out in larger pieces."""
CHUNK = 1 << 18
"""Bytes to write at once."""
TLS_CHUNK = 1 << 14
"""Bytes to encrypt at once, a record: OpenSSL takes a write that had to wait again only if it is no shorter."""
CONNECTING = 1.0
"""Seconds in which a server must accept, and answer the first PING."""
DEFAULT_PORT = 4222

Handler = Callable[[Message], None]


class _Answer:
    """The answer that a request waits for."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.message: Message | None = None


class Connection:
    """A connection after the server's greeting; see `connect`.

    Attributes:
        max_payload: bytes that a message may have.
        fileno: the socket's descriptor, for a poller.
        ended: why it ended; empty while it has not.
        lost: called with the reason when it ends.
        drained: called when callers that found it `congested` may continue.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.max_payload = 1 << 20
        self.fileno = sock.fileno()
        self.ended = ""
        self.lost: Callable[[str], None] = _ignore
        self.drained: Callable[[], None] = _ignore
        self._socket = sock
        self._encrypted = False
        self._pending: Callable[[], int] = int
        self._parser = Parser()
        self._unsent = bytearray()
        self._grown = trio.Event()
        self._handlers: list[Handler] = []
        self._inbox = f"_INBOX.{secrets.token_hex(8)}."
        self._requests = itertools.count()
        self._answers: dict[str, _Answer] = {}
        self._pongs: list[_Answer] = []
        self._greeting: Info | None = None

    # -- out

    @property
    def congested(self) -> bool:
        """Whether so many bytes are unsent that callers should wait for `drained`."""
        return len(self._unsent) > CONGESTED

    def publish(self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Publish a message."""
        self._send(protocol.publish(subject, len(payload), reply, headers), payload, b"\r\n")

    def subscribe(self, subject: str, handler: Handler) -> None:
        """Call `handler` with messages under `subject`, as long as the connection lasts."""
        self._handlers.append(handler)
        self._send(protocol.subscribe(subject, len(self._handlers)))

    async def request(self, subject: str, payload: bytes = b"", headers: bytes = b"") -> Message:
        """Publish a message, and return the first answer; the caller sets a bound.

        Raises:
            EngineAway: the connection has ended, or ends meanwhile.
        """
        reply = f"{self._inbox}{next(self._requests)}"
        if reply.endswith(".0"):
            self.subscribe(f"{self._inbox}*", self._answered)
        answer = self._answers[reply] = _Answer()
        try:
            self.publish(subject, payload, reply=reply, headers=headers)
            await self._arrived(answer)
        finally:
            del self._answers[reply]
        assert answer.message is not None
        return answer.message

    def _answered(self, message: Message) -> None:
        answer = self._answers.get(message.subject)
        if answer is not None and answer.message is None:  # else the answer is late
            answer.message = message._replace(payload=memoryview(bytes(message.payload)))
            answer.arrived.set()

    async def ping(self) -> None:
        """Return once the server has taken, and answered, all that was sent before.

        Raises:
            EngineAway: the connection has ended, or ends meanwhile.
        """
        answer = _Answer()
        self._pongs.append(answer)  # it stays even if the caller gives up: each PONG belongs to one PING
        self._send(protocol.PING)
        await self._arrived(answer)

    async def _arrived(self, answer: _Answer) -> None:
        if not self.ended:
            await answer.arrived.wait()
        if self.ended:
            raise self._away()

    def _away(self) -> EngineAway:
        return EngineAway(self.ended, HINT if self.ended == REFUSED else "")

    def _send(self, *parts: bytes) -> None:
        if self.ended:
            return
        is_first = not self._unsent
        if is_first and not self._encrypted:
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.end(reason_of(error))
                return
            if sent < sum(map(len, parts)):
                self._unsent += b"".join(parts)[sent:]
        else:
            self._unsent += b"".join(parts)
            if is_first:
                self._write_some()
        if self._unsent:
            self._grown.set()

    async def write(self) -> None:
        """Write the bytes that the kernel did not take at once, until cancelled or the connection ends."""
        while not self.ended:
            await self._grown.wait()
            self._grown = trio.Event()
            while self._unsent and not self.ended:
                await trio.lowlevel.wait_writable(self._socket)
                self._write_some()
            if not self.ended:
                self.drained()

    def _write_some(self) -> None:
        was_congested = self.congested
        size = TLS_CHUNK if self._encrypted else CHUNK
        try:
            while self._unsent:
                sent = self._socket.send(bytes(self._unsent[:size]))
                del self._unsent[:sent]
                if sent < size:
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self.end(reason_of(error))
            return
        if was_congested and not self.congested:
            self.drained()

    # -- in

    def receive(self) -> bool:
        """Read once, and hand out the messages that came; return whether more may come."""
        try:
            while not self.ended:
                count = self._socket.recv_into(self._parser.room())
                if not count:
                    self.end("the server closed the connection")
                    break
                for event in self._parser.parse(count):
                    self._take(event)
                # TLS decrypts a record at a time, and a poller does not know of the others.
                if not self._pending():
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ProtocolError as error:
            self.end(str(error))
        except OSError as error:
            self.end(reason_of(error))
        except Exception as error:
            LOGGER.exception("bug in the cluster", extra={"fields": {}})
            self.end(f"{type(error).__name__}: {error}")
        return not self.ended

    def _take(self, event: protocol.Event) -> None:
        match event:
            case Message():
                if not 0 < event.subscription <= len(self._handlers):
                    raise ProtocolError("a message for no subscription")
                if not self.ended:
                    self._handlers[event.subscription - 1](event)
            case Ping():
                self._send(protocol.PONG)
            case Pong():
                if self._pongs:
                    self._pongs.pop(0).arrived.set()
            case Problem():
                self.end(_reason_of_problem(event.text))
            case Info():
                self._greeting = self._greeting or event
                if type(limit := event.fields.get("max_payload")) is int:
                    self.max_payload = limit

    def end(self, reason: str) -> None:
        """End the connection because of `reason`. Idempotent."""
        if self.ended:
            return
        self.ended = reason
        self._unsent.clear()
        for answer in (*self._answers.values(), *self._pongs):
            answer.arrived.set()
        self._grown.set()
        self.lost(reason)

    # -- the beginning

    async def greet(self, name: str, wants_tls: bool, credentials: Credentials) -> None:
        """Read the server's INFO, and send CONNECT.

        Raises:
            EngineAway: the server refuses the connection, or is no NATS server.
        """
        while self._greeting is None:
            await self._receive_some()
        fields = self._greeting.fields
        if wants_tls and not (fields.get("tls_required") or fields.get("tls_available")):
            # Nothing, least of all credentials, goes unencrypted to a server that should have TLS.
            raise EngineAway("it offers no TLS, and its address begins with tls://")
        if wants_tls or fields.get("tls_required"):
            await self._encrypt(name)
        options = {
            "verbose": False,
            "pedantic": False,
            "lang": "python-triorelay",
            "version": __version__,
            "name": "triorelay",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            **credentials.answer(str(fields.get("nonce", ""))),
        }
        self._send(protocol.connect(options) + protocol.PING)
        answer = _Answer()
        self._pongs.append(answer)
        while not answer.arrived.is_set():
            await self._receive_some()

    async def _receive_some(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)
        if not self.receive():
            raise self._away()

    async def _encrypt(self, name: str) -> None:
        # Reading the authorities' certificates takes about 20 ms.
        context = await trio.to_thread.run_sync(ssl.create_default_context)
        encrypted = context.wrap_socket(self._socket, server_hostname=name, do_handshake_on_connect=False)
        self._socket, self._encrypted, self._pending = encrypted, True, encrypted.pending
        while True:
            try:
                encrypted.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)
            else:
                return

    def close(self) -> None:
        """Close the socket."""
        self.end("the connection was closed")
        self._socket.close()


def _ignore(*arguments: object) -> None:
    """Ignore the call."""


REFUSED = "it refuses our credentials"


async def connect(url: str, credentials: Credentials) -> Connection:
    """Return a connection to the server at `url`; the caller closes it, and reads and writes meanwhile.

    Raises:
        EngineAway: there is no server, or it refuses the connection.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        with trio.fail_after(CONNECTING):
            connection = Connection(await _open(host, parts.port or DEFAULT_PORT))
            try:
                await connection.greet(host, parts.scheme == "tls", credentials)
            except BaseException:
                connection.close()
                raise
            return connection
    except trio.TooSlowError:
        raise EngineAway("it does not answer in time") from None
    except (OSError, ValueError, RuntimeError) as error:  # ssl's and threads' own among them
        raise EngineAway(reason_of(error)) from None


async def _open(host: str, port: int) -> socket.socket:
    stream = await trio.open_tcp_stream(host, port)
    try:
        sock = socket.socket(fileno=stream.socket.detach())
    finally:
        stream.socket.close()
    sock.setblocking(False)
    return sock


def reason_of(error: BaseException) -> str:
    """Return what is wrong, for people."""
    if isinstance(error, BaseExceptionGroup):
        return reason_of(error.exceptions[0])
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason}"
    if isinstance(error, OSError) and error.__cause__ is not None:
        return reason_of(error.__cause__)  # trio's "all attempts to connect failed"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _reason_of_problem(text: str) -> str:
    if "authorization" in text.lower() or "authentication" in text.lower():
        return REFUSED
    return text or "it refuses something, and does not say what"
