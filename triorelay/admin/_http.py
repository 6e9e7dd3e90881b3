"""One HTTP/1.1 connection, on h11.

Theory of operation:

1. A connection carries one request. It has `REQUEST_SECONDS`, `HEADER_BYTES` for its head and `BODY_BYTES` for a body,
   which no path needs. Then it is answered or refused; nothing larger is kept. The head is gathered without a turn
   (`_pace`) and parsed when it is complete, so that incomplete requests cost almost nothing, however many come. A probe
   (`/healthz`, `/readyz`) gets its answer without a turn and without more parsing: a busy endpoint still shows an
   orchestrator that the relay is alive.
2. A reply goes out in pieces, and each has `SEND_SECONDS` to be taken. So has each part of a stream.
3. During a stream the connection is read too, because the end of file shows that the reader left.
4. Before a connection closes, its sending side is shut and input is discarded for a while: closing it with unread input
   would discard the reply of a client that still sends. Discarding is slow on purpose, so that it costs almost nothing.
5. A part of a stream that was cut off leaves the connection at an unknown byte: nothing more is sent. Otherwise the
   stream ends as the protocol requires, so that its reader can distinguish an end from a failure.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus

import h11
import trio

from ..relay import Throttle
from ._messages import HttpError, Later, Reply, Request, Stream
from ._pace import Pace

HEADER_BYTES = 16384
BODY_BYTES = 4096
REQUEST_SECONDS = 10
SEND_SECONDS = 10
SEND_PIECE = 65536
RECEIVE_BYTES = 16384
LINGER_SECONDS = 5
LINGER_PIECE = 131072
LINGER_PAUSE = 0.001
"""Between two pieces: 100 MB of unneeded input take a second or two, and some percent of one core."""
FAREWELL_SECONDS = 0.5

_PROBE = re.compile(rb"(GET|HEAD) (/\w+) HTTP/1\.[01]\r?\n")
_NOT_PLAIN = re.compile(rb"\n(?:content-length|transfer-encoding|expect)[ \t]*:", re.IGNORECASE)
"""Headers that a probe does not have: they would announce a body."""
_HEAD_ENDS = (b"\n\r\n", b"\n\n")
_FIRST_OF_A_METHOD = 0x21
"""What begins with a lower byte is no request, and h11 says so without waiting for its end."""
_ALWAYS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Doing(IntEnum):
    """The state of a session; if there are too many sessions, the lowest is evicted first."""

    WAITING = 0
    ANSWERING = 1
    STREAMING = 2


@dataclass(eq=False, slots=True)
class HttpSession:
    """One connection from accept to close.

    Attributes:
        stream: the connection, which `run` closes.
        answer: gives the reply to a request, in one step, or raises HttpError.
        pace: gives turns to work that takes time.
        bugs: logs tracebacks.
        peer: the IP address at the other end; None over a Unix socket.
        probe: gives the reply to a path at once, or None where it is no probe's, or raises HttpError.
        doing: what it is busy with.
        scope: cancelled to end it.
    """

    stream: trio.abc.HalfCloseableStream
    answer: Callable[[Request], Reply | Stream | Later]
    pace: Pace
    bugs: Throttle
    peer: str | None = None
    probe: Callable[[str], Reply | None] = lambda _: None
    doing: Doing = field(default=Doing.WAITING, init=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope, init=False)
    _received: bytearray = field(default_factory=bytearray, init=False)
    _method: bytes = field(default=b"", init=False)
    _http: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES), init=False
    )

    async def run(self) -> None:
        """Answer one request, unless the peer leaves first. Raises nothing but Cancelled."""
        try:
            with self.scope, suppress(trio.BrokenResourceError, trio.TooSlowError):
                await self._exchange()
                await self._linger()
        except Exception as error:
            self.bugs.bug(error, "bug in the admin endpoint")
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _exchange(self) -> None:
        try:
            request = await self._read_request()
            if isinstance(request, bytes):
                await self._send(request)
                return
            self.doing = Doing.ANSWERING
            async with self.pace.turn():
                reply = self.answer(request)
            if callable(reply):
                reply = await reply()
        except HttpError as error:
            reply = error.reply()
        except h11.RemoteProtocolError as error:
            reply = HttpError(error.error_status_hint, f"not a request that can be understood: {error}").reply()
        except (trio.BrokenResourceError, trio.TooSlowError):
            raise
        except Exception as error:
            self.bugs.bug(error, "bug in the admin endpoint")
            reply = HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug; the log has its traceback").reply()
        if isinstance(reply, Stream):
            self.doing = Doing.STREAMING
            await self._send_stream(reply)
        else:
            await self._send(_bytes_of(reply, with_body=self._method != b"HEAD"))

    # -- requests

    async def _read_request(self) -> Request | bytes:
        """Return the request, or the bytes that answer a probe; none where the peer wants nothing."""
        with trio.move_on_after(REQUEST_SECONDS):
            await self._gather_head()
            if probed := self._probed():
                return probed
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                return b""
            self._method = head.method
            _refuse_two_lengths(head)
            await self._discard_body(head)
            return _request(head, self.peer)
        if self._http.their_state is h11.IDLE and not self._received:
            return b""
        raise HttpError(HTTPStatus.REQUEST_TIMEOUT, f"a request has {REQUEST_SECONDS} seconds")

    async def _gather_head(self) -> None:
        """Receive until the head of a request is complete, or can never be."""
        received = self._received
        while not received or not (
            received[0] < _FIRST_OF_A_METHOD
            or len(received) > HEADER_BYTES
            or any(end in received for end in _HEAD_ENDS)
        ):
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if not data:
                return
            received += data
        self.doing = Doing.ANSWERING

    def _probed(self) -> bytes | None:
        """Return the reply to a probe; None if anything but a plain one came."""
        match = _PROBE.match(self._received)
        if match is None or not self._received.endswith(_HEAD_ENDS) or _NOT_PLAIN.search(self._received):
            return None
        try:
            reply = self.probe(match[2].decode())
        except HttpError as error:
            reply = error.reply()
        return None if reply is None else _bytes_of(reply, with_body=match[1] == b"GET")

    async def _discard_body(self, head: h11.Request) -> None:
        size = int(dict(head.headers).get(b"content-length", b"0"))
        if size <= BODY_BYTES:
            size = 0
            while size <= BODY_BYTES and isinstance(event := await self._next_event(), h11.Data):
                size += len(event.data)
        if size > BODY_BYTES:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {BODY_BYTES} bytes")

    async def _next_event(self) -> object:
        event = self._http.next_event()
        while event is h11.NEED_DATA:
            if not self._received:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(self._part(h11.InformationalResponse(status_code=100, headers=[])))
                self._received += await self.stream.receive_some(RECEIVE_BYTES)
            async with self.pace.turn():
                self._http.receive_data(bytes(self._received))
                self._received.clear()
                event = self._http.next_event()
        return event

    # -- replies

    async def _send_stream(self, stream: Stream) -> None:
        headers = [("Content-Type", stream.type), *_ALWAYS, ("Connection", "close")]
        await self._send(self._part(h11.Response(status_code=HTTPStatus.OK, reason="OK", headers=headers)))
        if self._method == b"HEAD":
            return
        whole = True

        async def send(data: bytes) -> None:
            nonlocal whole
            whole = False
            await self._send(self._part(h11.Data(data=data)))
            whole = True

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_when_gone, stream.end, nursery.cancel_scope)
                await stream.run(send)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.TooSlowError):
            pass
        finally:
            if whole:
                with trio.move_on_after(FAREWELL_SECONDS, shield=True), suppress(trio.BrokenResourceError):
                    await self.stream.send_all(self._part(h11.EndOfMessage()))

    async def _end_when_gone(self, end: Callable[[], None] | None, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            await self._discard_input()
            if end is not None:
                end()
                return
        scope.cancel()

    def _part(self, event: h11.Event) -> bytes:
        data = self._http.send(event)
        assert data is not None
        return data

    async def _send(self, data: bytes) -> None:
        for start in range(0, len(data), SEND_PIECE):
            with trio.fail_after(SEND_SECONDS):
                await self.stream.send_all(data[start : start + SEND_PIECE])

    async def _linger(self) -> None:
        self.doing = Doing.WAITING
        with trio.move_on_after(LINGER_SECONDS):
            await self.stream.send_eof()
            await self._discard_input()

    async def _discard_input(self) -> None:
        while True:
            if not await self.stream.receive_some(LINGER_PIECE):
                return
            await trio.sleep(LINGER_PAUSE)


def _bytes_of(reply: Reply, *, with_body: bool) -> bytes:
    size = ("Content-Length", str(len(reply.body)))
    headers = (("Content-Type", reply.type), *_ALWAYS, *reply.headers, size, ("Connection", "close"))
    status = HTTPStatus(reply.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (reply.body if with_body else b"")


def _refuse_two_lengths(head: h11.Request) -> None:
    """Refuse a request whose end is ambiguous: a proxy in front may see another end (RFC 9112, 6.3)."""
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in head.headers}:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length and Transfer-Encoding exclude one another")


def _request(head: h11.Request, peer: str | None) -> Request:
    target = head.target.decode("latin-1")
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("latin-1"), path, query, headers, peer)
