"""NATS's protocol without input or output: bytes become events, and commands become bytes.

1. The server sends lines that end with CRLF. MSG and HMSG name the size of a payload, which follows with a CRLF of its
   own; the first bytes of an HMSG's payload are headers.
2. Bytes are read into the room that a parser has, where an incomplete message waits for its rest. It is moved to the
   beginning of the room once, in however many pieces it comes.
3. A payload is a view into that room, so it costs no copy. It is valid until the next bytes are read.
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
ROOM = 1 << 18
"""Bytes to read at once: several bundles of a flood."""
PING = b"PING\r\n"
PONG = b"PONG\r\n"
_PREFIX = b"NATS/1.0"
_MESSAGES = b"MSG ", b"HMSG"


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
        self._buffer = bytearray(ROOM)
        self._begin = self._end = 0
        self._needed = 1
        self._head = b""
        self._known = 0, ""

    def room(self) -> memoryview:
        """Return where the next bytes are to be put; what was there is not valid any more."""
        rest = self._end - self._begin
        size = max(ROOM, self._needed)
        if size != len(self._buffer):
            kept = self._buffer[self._begin : self._end]
            self._buffer = bytearray(size)
            self._buffer[:rest] = kept
        elif self._begin:
            self._buffer[:rest] = self._buffer[self._begin : self._end]
        self._begin, self._end = 0, rest
        return memoryview(self._buffer)[rest:]

    def parse(self, count: int) -> Iterator[Event]:
        """Yield the events that `count` more bytes in the room complete; take all of them before asking for room.

        Raises:
            ProtocolError: no NATS server sends this.
        """
        self._end += count
        data = self._buffer
        while self._end - self._begin >= self._needed:
            at = self._begin
            end = data.find(b"\r\n", at, min(self._end, at + LONGEST_LINE))
            if end < 0:
                if self._end - at >= LONGEST_LINE:
                    raise ProtocolError("a line without an end")
                self._needed = self._end - at + 1
                return
            event: Event | None
            line = bytes(data[at:end])
            begin = end + 2
            if line[:4].upper() in _MESSAGES:
                event, size = self._message(line, begin)
                begin += size + 2
                if event is None:
                    self._needed = begin - at
                    return
            else:
                event = _other(line)
            self._begin, self._needed = begin, 1
            if event is not None:
                yield event

    def _message(self, line: bytes, begin: int) -> tuple[Message | None, int]:
        """Return the message of a line whose payload begins at `begin`, None if that is not whole; and its size."""
        head, _, last = line.rpartition(b" ")
        headed, reply = 0, ""
        if head == self._head and last.isdigit():
            # Frames come under one subject, so most lines differ in their size alone.
            subscription, subject = self._known
        else:
            words = line.split()
            has_headers = len(words[0]) == 4
            numbers = words[2:3] + words[-2:-1] * has_headers + [last]
            if not 4 <= len(words) - has_headers <= 5 or not all(map(bytes.isdigit, numbers)):
                raise ProtocolError("a message's line that has no meaning")
            headed = int(words[-2]) if has_headers else 0
            subscription, subject = int(words[2]), words[1].decode("utf-8", "replace")
            if len(words) - has_headers == 5:
                reply = words[3].decode("utf-8", "replace")
            elif not has_headers:
                self._head, self._known = head, (subscription, subject)
        size = int(last)
        if headed > size or size > LARGEST_PAYLOAD:
            raise ProtocolError("a message whose size cannot be right")
        end = begin + size
        if self._end < end + 2:
            return None, size
        if self._buffer[end : end + 2] != b"\r\n":
            raise ProtocolError("a message that is longer than it says")
        headers = bytes(self._buffer[begin : begin + headed])
        return Message(subscription, subject, reply, headers, memoryview(self._buffer)[begin + headed : end]), size


def _other(line: bytes) -> Event | None:
    """Return the event of a line without a payload, None for +OK."""
    match line[:4].upper():
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
