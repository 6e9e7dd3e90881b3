"""Asking a relay's admin endpoint: one connection a request, on h11.

Everything here raises AdminError if no relay answers, the connection is lost, or the answer is an error or no relay's.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

import h11
import msgspec
import trio

from ..protocol import Address, RelayError, UnixAddress, id_name
from ._status import Status

PATIENCE = 10
"""Seconds until an endpoint that does not answer is given up."""
RECEIVE_BYTES = 65536
_TYPES = ("application/json", "application/jsonl", "text/event-stream", "application/vnd.triorelay.runs")
"""Content types of the paths that the commands use; other servers answer with pages."""


class AdminError(RelayError):
    """The admin endpoint does not answer, or refused. The message is one line: what, and what to do."""


class Unreachable(AdminError):
    """No relay answers, or the connection to it was lost; after a restart it may answer."""


class _Problem(msgspec.Struct):
    error: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An admin endpoint: where it is, and its token if it needs one."""

    address: Address
    token: str | None = None

    @asynccontextmanager
    async def ask(self, method: str, path: str) -> AsyncIterator["Answer"]:
        """Send a request; the block reads the answer, and its end closes the connection."""
        async with await self._connect() as stream:
            answer = Answer(self, stream)
            try:
                with trio.fail_after(PATIENCE):
                    head = await answer.begin(method, path)
                    if head.status_code != 200:
                        raise self._refusal(head.status_code, await answer.body())
                    if dict(head.headers).get(b"content-type", b"").decode("latin-1") not in _TYPES:
                        raise self.stranger()
            except trio.TooSlowError:
                raise Unreachable(f"the relay at {self.address} does not answer") from None
            yield answer

    async def get(self, path: str) -> bytes:
        """Return the content of `path`."""
        async with self.ask("GET", path) as answer:
            return await answer.body()

    async def status(self) -> Status:
        """Return the relay's status."""
        return self.read_status(await self.get("/status"))

    def read_status(self, data: bytes) -> Status:
        """Return the status that the endpoint has sent as `data`."""
        try:
            return msgspec.json.decode(data, type=Status)
        except (ValueError, msgspec.MsgspecError):
            raise self.stranger() from None

    def stranger(self) -> AdminError:
        """Return the error for an answer that no relay gives."""
        return AdminError(f"what answers at {self.address} is no relay's admin endpoint; name that with --admin")

    async def _connect(self) -> trio.abc.HalfCloseableStream:
        address = self.address
        try:
            with trio.fail_after(PATIENCE):
                if isinstance(address, UnixAddress):
                    return await trio.open_unix_socket(address.name)
                return await trio.open_tcp_stream(address.host, address.port)
        except trio.TooSlowError:
            reason = "no answer"
        except OSError as error:
            reason = _reason(error)
        raise Unreachable(f"no relay answers at {address}: {reason}; name its admin address with --admin")

    def _refusal(self, status: int, body: bytes) -> AdminError:
        try:
            said = msgspec.json.decode(body, type=_Problem).error
        except msgspec.MsgspecError:
            said = ""
        if status < 400 or not said:
            return AdminError(f"HTTP status {status}: {self.stranger()}")
        hint = "; give it with --token-file" if status == 401 and self.token is None else ""
        return AdminError(f"{said}{hint}")


def _reason(error: BaseException) -> str:
    """Return what the system says, of the first address where a host has several."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, OSError) and error.errno and error.errno > 0:  # below 0 is an error of name resolution
        return os.strerror(error.errno)
    return (isinstance(error, OSError) and error.strerror) or str(error)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Frames that a command asks an endpoint for: those from `source` to `destination`, None for all.

    `/flight` is the contents of the flight recorder, which have an end.
    """

    asked: Endpoint
    source: int | None
    destination: int | None
    place: Literal["/monitor", "/record", "/flight"] = "/record"

    @property
    def path(self) -> str:
        """The path to ask for."""
        ids = {"from": self.source, "to": self.destination}
        return f"{self.place}?" + urlencode({key: id_name(id) for key, id in ids.items() if id is not None})


class Answer:
    """The answer to one request, as it arrives."""

    def __init__(self, endpoint: Endpoint, stream: trio.abc.HalfCloseableStream) -> None:
        self._endpoint = endpoint
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._rest = b""

    async def begin(self, method: str, path: str) -> h11.Response:
        """Send the request and return the head of its answer."""
        address = self._endpoint.address
        host = "localhost" if isinstance(address, UnixAddress) else str(address).partition(":")[2]
        headers = [("Host", host), ("X-Triorelay", "1"), ("Connection", "close")]
        if self._endpoint.token is not None:
            headers.append(("Authorization", f"Bearer {self._endpoint.token}"))
        request = h11.Request(method=method, target=path, headers=headers)
        data = (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            raise self._lost() from None
        event = await self._next_event()
        if not isinstance(event, h11.Response):
            raise self._lost()
        return event

    async def body(self) -> bytes:
        """Return all of the answer's body."""
        parts: list[bytes] = []
        while (piece := await self.piece()) is not None:
            parts.append(piece)
        return b"".join(parts)

    async def piece(self) -> bytes | None:
        """Return some more of the body, or None at its end."""
        event = await self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def end(self) -> None:
        """Ask the relay to send what it has, and no more; then read to the end of the body."""
        with suppress(trio.BrokenResourceError):
            await self._stream.send_eof()

    async def line(self) -> str:
        """Return the next line without its end; the body of such an answer has none, so its end is an error."""
        while b"\n" not in self._rest:
            if (piece := await self.piece()) is None:
                raise Unreachable(f"the relay at {self._endpoint.address} ended the connection")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace")

    async def _next_event(self) -> object:
        try:
            event = self._http.next_event()
            while event is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
                event = self._http.next_event()
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            raise self._lost() from None
        return event

    def _lost(self) -> AdminError:
        return Unreachable(f"the connection to the relay at {self._endpoint.address} was lost")
