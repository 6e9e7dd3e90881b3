"""Calls between two clients: request and reply, made of messages whose first byte says what they are.

A call has a number of four bytes, big-endian, that is unique among its caller's open calls. The callee answers with one
REPLY or FAIL of the same number, or with nothing once the caller has sent CANCEL. Kinds 0 to 3 and 8 are those of
streams, so that one byte always tells what a message is.
"""

from dataclasses import dataclass
from enum import IntEnum

from ._errors import RemoteProtocolError

MAXIMUM_TEXT = 1024
"""Bytes of text in a FAIL: enough for the last line of what went wrong."""

CALL_HEADER = 5
"""Bytes of a call's message before its payload."""

LONGEST_FAIL = CALL_HEADER + 1 + MAXIMUM_TEXT
"""Bytes of the longest FAIL."""


class CallKind(IntEnum):
    """The first byte of a call's message."""

    CALL = 4
    REPLY = 5
    FAIL = 6
    CANCEL = 7
    """The caller waits no longer."""


class FailReason(IntEnum):
    """Why a call failed at the other end; `CallFailed.reason`."""

    NOT_SERVED = 1
    """The client that was called serves no calls."""
    FAILED = 2
    """Its handler failed."""
    TOO_MANY = 3
    """It serves as many calls at once as it wants to."""
    ENDED = 4
    """It stopped serving before it had answered; or, as the text says then, its answer did not arrive."""


@dataclass(frozen=True, slots=True)
class CallMessage:
    """One message of a call.

    Attributes:
        kind: what it is.
        number: of the call.
        payload: of a CALL or a REPLY; else empty.
        reason: of a FAIL: the number of a `FailReason`, or one that this version does not know; else 0.
        text: of a FAIL; else empty.
    """

    kind: CallKind
    number: int
    payload: bytes = b""
    reason: int = 0
    text: str = ""

    def encode(self) -> bytes:
        """Return the payload of the message that carries it. A text of over 1 KiB is cut."""
        head = bytes((self.kind,)) + self.number.to_bytes(4)
        if self.kind is not CallKind.FAIL:
            return head + self.payload
        text = self.text.encode(errors="replace")[:MAXIMUM_TEXT]
        return head + bytes((self.reason,)) + text.decode(errors="ignore").encode()


def decode_call(message: bytes) -> CallMessage:
    """Return what a message says of a call.

    Raises:
        RemoteProtocolError: it has no such kind, is too short, or a CANCEL that is too long.
    """
    try:
        kind = CallKind(message[0])
    except (IndexError, ValueError):
        raise RemoteProtocolError("a call's message begins with its kind, 4 to 7") from None
    number, rest = int.from_bytes(message[1:CALL_HEADER]), message[CALL_HEADER:]
    if len(message) < CALL_HEADER + (kind is CallKind.FAIL) or (kind is CallKind.CANCEL and rest):
        raise RemoteProtocolError(f"a {kind.name} of {len(message)} bytes is too short or too long")
    if kind is CallKind.FAIL:
        return CallMessage(kind, number, reason=rest[0], text=rest[1:].decode(errors="replace"))
    return CallMessage(kind, number, rest)
