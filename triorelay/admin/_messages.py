"""Requests and replies, as the rest of the admin endpoint sees them, and the bytes that go into replies."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

JSON = "application/json"

Send = Callable[[bytes], Awaitable[None]]
"""Sends bytes of a stream; raises if the viewer takes nothing for too long, or is gone."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; its body, if any, is read and discarded.

    Attributes:
        path, query: as sent, percent-encoded.
        headers: by lower-case name; of several with one name, the last.
        peer: the IP address that it came from; None over a Unix socket.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    peer: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is complete."""

    body: bytes
    type: str = JSON
    status: int = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """A reply without end: `run` sends its parts until it is cancelled, because the reader left.

    Where the reader shut its sending side, `end` is called instead; `run` then sends the rest, and returns.
    """

    run: Callable[[Send], Awaitable[None]]
    type: str
    end: Callable[[], None] | None = None


Later = Callable[[], Awaitable[Reply]]
"""Gives a reply for which something has to be read in a thread first."""


@dataclass(slots=True)
class HttpError(Exception):
    """The request gets an error for its reply: `{"error": message}`."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = field(default=())

    def reply(self) -> Reply:
        return Reply(to_json({"error": self.message}), JSON, self.status, self.headers)


def to_json(value: object) -> bytes:
    """Return `value` as one line of JSON."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # A path may hold bytes that are no UTF-8; Python has surrogates for them, and JSON escapes.
        return json.dumps(value).encode()
