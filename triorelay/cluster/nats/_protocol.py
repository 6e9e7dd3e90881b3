"""NATS's protocol without input or output: bytes become events, and commands become bytes.

1. The server sends lines that end with CRLF. MSG and HMSG name the size of a payload, which follows with a CRLF of its
   own; the first bytes of an HMSG's payload are headers.
2. A parser keeps an incomplete message in the pieces in which it came, and joins them once enough has come. So each
   byte of a large message is copied once, in however many pieces it comes.
3. A payload is a view of the bytes that were fed, so it stays valid and costs no copy.
4. Input that no server sends is a `ProtocolError`, and sizes have bounds, so another kind of peer cannot make buffers
   grow. After an error the parser must not be used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

LONGEST_LINE = 1 << 16
"""Bytes of a line: INFO is the longest, and names every server of a cluster."""
LARGEST_PAYLOAD = 1 << 26
"""Bytes: the largest `max_payload` that a server can have."""
PING = b"PING\r\n"
PONG = b"PONG\r\n"
_PREFIX = b"NATS/1.0"


class ProtocolError(Exception):
    """The peer sends what no NATS server sends."""


@dataclass(frozen=True, slots=True)
class Info:
    """What the server says of itself, at first and at each change."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """The server refuses something; it closes the connection after most of these."""

    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    """The server asks for a PONG."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The server answers a PING."""


class Message(NamedTuple):
    """A message for one of our subscriptions.

    Attributes:
        subscription: its number.
        subject: what it was published under.
        reply: where an answer goes; empty for nowhere.
        headers: its headers as they came; empty if it has none.
        payload: what it carries.
    """

    subscription: int
    subject: str
    reply: str
    headers: bytes
    payload: memoryview


Event = Info | Problem | Ping | Pong | Message


class Parser:
    """Turns what one connection receives into events."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes; take all of them before feeding more.

        Raises:
            ProtocolError: no NATS server sends this.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        at = 0
        while at < len(data):
            end = data.find(b"\r\n", at, at + LONGEST_LINE)
            if end < 0:
                if len(data) - at >= LONGEST_LINE:
                    raise ProtocolError("a line without an end")
                self._keep(data[at:], len(data) - at + 1)
                return
            line = data[at:end]
            kind = line[:4].upper()
            if kind in (b"MSG ", b"HMSG"):
                event, size = _message(line, data, end + 2)
                if event is None:
                    self._keep(data[at:], end + 2 + size + 2 - at)
                    return
                yield event
                at = end + 2 + size + 2
                continue
            at = end + 2
            if (other := _other(kind, line)) is not None:
                yield other

    def _keep(self, rest: bytes, needed: int) -> None:
        self._pieces.append(rest)
        self._size, self._needed = len(rest), needed


def _message(line: bytes, data: bytes, begin: int) -> tuple[Message | None, int]:
    """Return the message of a line whose payload begins at `begin`, None if that is not whole; and its size."""
    words = line.split()
    has_headers = len(words[0]) == 4
    sizes = words[-2:] if has_headers else words[-1:]
    if not 4 <= len(words) - has_headers <= 5 or not all(map(bytes.isdigit, (words[2], *sizes))):
        raise ProtocolError("a message's line that has no meaning")
    size = int(sizes[-1])
    headed = int(sizes[0]) if has_headers else 0
    if headed > size or size > LARGEST_PAYLOAD:
        raise ProtocolError("a message whose size cannot be right")
    end = begin + size
    if len(data) < end + 2:
        return None, size
    if data[end : end + 2] != b"\r\n":
        raise ProtocolError("a message that is longer than it says")
    reply = words[3].decode("utf-8", "replace") if len(words) - has_headers == 5 else ""
    subject = words[1].decode("utf-8", "replace")
    payload = memoryview(data)[begin + headed : end]
    return Message(int(words[2]), subject, reply, data[begin : begin + headed], payload), size


def _other(kind: bytes, line: bytes) -> Event | None:
    """Return the event of a line without a payload, None for +OK."""
    match kind:
        case b"PING":
            return Ping()
        case b"PONG":
            return Pong()
        case b"+OK":
            return None
        case b"-ERR":
            return Problem(line[4:].decode("utf-8", "replace").strip(" '"))
        case b"INFO":
            try:
                return Info(msgspec.json.decode(line[4:], type=dict[str, Any]))
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise ProtocolError("an INFO that has no meaning") from None
    raise ProtocolError("it does not speak NATS")


def connect(options: Mapping[str, object]) -> bytes:
    """Return the command by which a client says what it is."""
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"


def publish(subject: str, size: int, reply: str = "", headers: bytes = b"") -> bytes:
    """Return the beginning of a message whose payload has `size` bytes; the payload and a CRLF follow."""
    target = f"{subject} {reply}" if reply else subject
    if headers:
        return b"HPUB %b %d %d\r\n%b" % (target.encode(), len(headers), len(headers) + size, headers)
    return b"PUB %b %d\r\n" % (target.encode(), size)


def subscribe(subject: str, number: int) -> bytes:
    """Return the command that subscribes to `subject` under a number."""
    return b"SUB %b %d\r\n" % (subject.encode(), number)


def unsubscribe(number: int) -> bytes:
    """Return the command that ends a subscription."""
    return b"UNSUB %d\r\n" % number


def encode_headers(fields: Mapping[str, str]) -> bytes:
    """Return headers as a message has them."""
    return _PREFIX + b"\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in fields.items()) + b"\r\n"


def decode_headers(headers: bytes) -> tuple[int, dict[str, str]]:
    """Return a message's status, 0 if it has none, and its headers by their names in lower case.

    Raises:
        ProtocolError: these are no headers.
    """
    first, *lines = headers.split(b"\r\n")
    if not first.startswith(_PREFIX):
        raise ProtocolError("headers that have no meaning")
    status = first[len(_PREFIX) :].split(maxsplit=1)
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        if name:
            fields[name.strip().lower()] = value.strip()
    return int(status[0]) if status and status[0].isdigit() else 0, fields
