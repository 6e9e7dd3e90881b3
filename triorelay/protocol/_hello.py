"""The hello: how a session that has no id yet claims one.

`id`, then `0x80 + options`, then with TOKEN one byte of length and the token. No text, small integer or TLS record
begins like that, so the second byte tells a hello from a stray frame.
"""

from dataclasses import dataclass
from enum import IntFlag

from ._errors import RemoteProtocolError
from ._reasons import Refusal

MARK = 0x80
ALL_OPTIONS = 0x1F


class HelloOption(IntFlag):
    """The option bits of a hello."""

    NONE = 0
    ACK = 1
    """Answer with a welcome or a refusal."""
    EVENTS = 2
    """As ACK, and send events for as long as the session lasts."""
    TOKEN = 4
    """A token follows."""
    SHARE = 8
    """Hold the id together with other sessions that say the same; each gets a copy of what is sent to it."""
    LOSSY = 16
    """If the session's queue is full, drop what is new for it instead of pausing the sender."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A hello that is well formed.

    Attributes:
        id: the id claimed; 0 asks for any free id, or with EVENTS alone for an observer's place.
        options: the option bits.
        token: 1 to 255 bytes with TOKEN, else empty.
    """

    id: int
    options: HelloOption
    token: bytes = b""

    @property
    def wants_answer(self) -> bool:
        return bool(self.options & (HelloOption.ACK | HelloOption.EVENTS))

    @property
    def is_observer(self) -> bool:
        return self.id == 0 and self.options & ~HelloOption.TOKEN == HelloOption.EVENTS


class BadHello(RemoteProtocolError):
    """The first bytes of a session are not a hello.

    Attributes:
        answer: the two bytes that refuse it, if the hello clearly asked for an answer; else empty.
    """

    def __init__(self, message: str, answer: bytes = b"") -> None:
        super().__init__(message)
        self.answer = answer


def decode_hello(data: bytes | bytearray) -> tuple[Hello, bytes] | None:
    """Return the hello at the start of what a session has sent, and what follows it; None if it is not complete.

    Raises:
        RemoteProtocolError: the bytes are not a hello; the `BadHello` raised carries the answer to give, if any.
    """
    if len(data) < 2:
        return None
    id, mark = data[0], data[1]
    if not MARK <= mark <= MARK | ALL_OPTIONS:
        raise BadHello(f"the second byte of a hello is 0x80 to 0x9f, not 0x{mark:02x}: a frame or another protocol")
    options = HelloOption(mark & ALL_OPTIONS)
    hello = Hello(id, options)
    if id == 0 and not hello.wants_answer:
        raise BadHello("a hello for any id must ask for an answer")
    answer = bytes((id, Refusal.BAD_HELLO)) if hello.wants_answer else b""
    if id == 0 and HelloOption.SHARE in options:
        raise BadHello("a shared id is named: a hello for any id cannot share it", answer)
    if not options & HelloOption.TOKEN:
        return hello, bytes(data[2:])
    if len(data) < 3:
        return None
    if data[2] == 0:
        raise BadHello("a token has 1 to 255 bytes, not 0", answer)
    end = 3 + data[2]
    if len(data) < end:
        return None
    return Hello(id, options, bytes(data[3:end])), bytes(data[end:])


def encode_hello(id: int, options: HelloOption = HelloOption.NONE, token: bytes = b"") -> bytes:
    """Return the bytes of a hello; a token of 1 to 255 bytes sets the TOKEN bit."""
    if not token:
        return bytes((id, MARK | options & ~HelloOption.TOKEN))
    return bytes((id, MARK | options | HelloOption.TOKEN, len(token))) + token
