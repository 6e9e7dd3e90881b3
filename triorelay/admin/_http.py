"""One HTTP/1.1 connection, on h11.

Theory of operation:

1. A request has `REQUEST_SECONDS` from the moment that the endpoint is ready for it, `HEADER_BYTES` for its head and
   `BODY_BYTES` for a body that nobody needs. Then it is answered or refused; nothing is kept that is larger.
2. A reply goes out in pieces, and each has `SEND_SECONDS` to be taken. So has each part of a stream.
3. While a stream runs its connection is read too, because that is how one learns that the reader left.
4. Before a connection closes, its sending side is shut and input is discarded for a while: closing it with unread input
   would take the reply away from whoever still sends. Discarding is slow on purpose, so that it costs next to nothing.
5. A part of a stream that was cut off leaves the connection at an unknown byte: nothing more is sent. Otherwise the
   stream ends as the protocol wants it, so that its reader can tell an end from an accident.
"""

from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from http import HTTPStatus

import h11
import trio

from ..relay import LOGGER
from ._messages import HttpError, Reply, Request, Stream
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
"""Between two pieces: 100 MB that nobody asked for take a second or two, and some percent of one core."""
FAREWELL_SECONDS = 0.5
BUGS_AT_ONCE = 5
BUG_SECONDS = 10
"""Between two tracebacks after the first few: a request that finds a bug can be repeated at will."""

_ALWAYS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Doing(IntEnum):
    """What a session is busy with; where there are too many sessions, the lower goes first."""

    WAITING = 0
    ANSWERING = 1
    STREAMING = 2


class BugLog:
    """Writes tracebacks of one endpoint to the log, as many as somebody can read, and counts the others."""

    def __init__(self) -> None:
        self._allowance = float(BUGS_AT_ONCE)
        self._last = -float("inf")
        self._kept_back = 0

    def exception(self) -> None:
        """Log the exception that is being handled."""
        now = trio.current_time()
        self._allowance = min(BUGS_AT_ONCE, self._allowance + (now - self._last) / BUG_SECONDS)
        self._last = now
        if self._allowance < 1:
            self._kept_back += 1
            return
        fields = {"similar_kept_back": self._kept_back} if self._kept_back else {}
        self._allowance, self._kept_back = self._allowance - 1, 0
        LOGGER.exception("bug in the admin endpoint", extra={"fields": fields})


class HttpSession:
    """One connection from accept to close.

    Attributes:
        doing: what it is busy with.
        scope: cancelled to end it.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        answer: Callable[[Request], Reply | Stream],
        pace: Pace,
        bugs: BugLog,
        peer: str | None = None,
    ) -> None:
        """Prepare to serve `stream`, which `run` closes.

        Args:
            stream: the connection.
            answer: gives the reply to a request, in one step, or raises HttpError.
            pace: gives turns to whatever takes time.
            bugs: where tracebacks go.
            peer: the IP address at the other end; None by Unix socket.
        """
        self.doing = Doing.WAITING
        self.scope = trio.CancelScope()
        self._stream = stream
        self._answer = answer
        self._pace = pace
        self._bugs = bugs
        self._peer = peer
        self._method = b""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)

    async def run(self) -> None:
        """Answer requests until the peer is gone or something went wrong. Raises nothing but Cancelled."""
        try:
            with self.scope, suppress(trio.BrokenResourceError, trio.TooSlowError):
                while await self._exchange():
                    pass
                await self._linger()
        except Exception:
            self._bugs.exception()
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _exchange(self) -> bool:
        """Answer one request; return whether another may follow."""
        self.doing, self._method = Doing.WAITING, b""
        try:
            request = await self._read_request()
            if request is None:
                return False
            self.doing = Doing.ANSWERING
            async with self._pace.turn():
                reply = self._answer(request)
        except HttpError as error:
            reply = error.reply()
        except h11.RemoteProtocolError as error:
            reply = HttpError(error.error_status_hint, f"not a request that can be understood: {error}").reply()
        except Exception:
            self._bugs.exception()
            reply = HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug; the log has its traceback").reply()
        if isinstance(reply, Stream):
            self.doing = Doing.STREAMING
            await self._send_stream(reply)
            return False
        await self._send_reply(reply)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    # -- requests

    async def _read_request(self) -> Request | None:
        """Return the next request, or None where the peer wants no more.

        Raises:
            HttpError: too slow, or its body is too large.
            RemoteProtocolError: it is not HTTP, or its head is too large.
        """
        with trio.move_on_after(REQUEST_SECONDS):
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                return None
            self._method = head.method
            await self._discard_body(head)
            return _request(head, self._peer)
        if self._http.their_state is h11.IDLE and not self._http.trailing_data[0]:
            return None
        raise HttpError(HTTPStatus.REQUEST_TIMEOUT, f"a request has {REQUEST_SECONDS} seconds")

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
            if self._http.they_are_waiting_for_100_continue:
                await self._send(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            data = await self._stream.receive_some(RECEIVE_BYTES)
            async with self._pace.turn():
                self._http.receive_data(bytes(data))
                event = self._http.next_event()
        return event

    # -- replies

    async def _send_reply(self, reply: Reply) -> None:
        data = self._head(reply.status, reply.type, (*reply.headers, ("Content-Length", str(len(reply.body)))))
        if self._method != b"HEAD":
            data += self._part(h11.Data(data=reply.body))
        await self._send(data + self._part(h11.EndOfMessage()))

    async def _send_stream(self, stream: Stream) -> None:
        await self._send(self._head(HTTPStatus.OK, stream.type, (("Connection", "close"),)))
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
                    await self._stream.send_all(self._part(h11.EndOfMessage()))

    async def _end_when_gone(self, end: Callable[[], None] | None, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            await self._discard_input()
            if end is not None:
                end()
                return
        scope.cancel()

    def _head(self, status: int, type: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        closing = () if self._http.their_state in (h11.DONE, h11.MUST_CLOSE) else (("Connection", "close"),)
        event = h11.Response(
            status_code=status,
            reason=HTTPStatus(status).phrase,
            headers=[("Content-Type", type), *_ALWAYS, *headers, *closing],
        )
        return self._part(event)

    def _part(self, event: h11.Event) -> bytes:
        data = self._http.send(event)
        assert data is not None
        return data

    async def _send(self, data: bytes | None) -> None:
        view = data or b""
        for start in range(0, len(view), SEND_PIECE):
            with trio.fail_after(SEND_SECONDS):
                await self._stream.send_all(view[start : start + SEND_PIECE])

    async def _linger(self) -> None:
        self.doing = Doing.WAITING
        with trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            await self._discard_input()

    async def _discard_input(self) -> None:
        while True:
            if not await self._stream.receive_some(LINGER_PIECE):
                return
            await trio.sleep(LINGER_PAUSE)


def _request(head: h11.Request, peer: str | None) -> Request:
    target = head.target.decode("latin-1")
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("latin-1"), path, query, headers, peer)
