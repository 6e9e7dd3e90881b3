"""Exceptions that only a client raises."""

from ..protocol import EventCode, FailReason, RelayError, id_byte, id_name


class NotDelivered(RelayError):
    """Frames that this client sent did not reach their destination. Raised with `strict=True` only.

    Attributes:
        id: the destination, as a one-character string.
        code: `EventCode.NO_ROUTE` if no client held the id, `EventCode.DROPPED` if frames were lost for another reason.
    """

    def __init__(self, id: str, code: EventCode) -> None:
        self.id: str = id
        self.code: EventCode = code
        name = id_name(id_byte(id))
        if code == EventCode.NO_ROUTE:
            text = f"no client holds the id {name}, so frames to it were dropped; wait_for({id!r}) waits until one does"
        else:
            text = f"frames to {name} were lost: it left, it took them too slowly, or the connection broke"
        super().__init__(text)


class PeerLeft(RelayError):
    """The client that was called left before it answered. It may have done what it was asked for.

    Attributes:
        id: the client, as a one-character string.
    """

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id: str = id

    def __str__(self) -> str:
        return f"{id_name(id_byte(self.id))} left before it answered"


class CallFailed(RelayError):
    """The client that was called says that the call failed. A handler may raise it to choose the text.

    Attributes:
        reason: why: a `FailReason`, or the number of one that this version does not know.
        text: what the other client says beyond that; may be empty.
    """

    def __init__(self, reason: int, text: str = "") -> None:
        super().__init__(reason, text)
        self.text: str = text
        self.reason: int = reason

    def __str__(self) -> str:
        if self.reason == FailReason.ENDED and self.text:
            return f"the call failed: {self.text}"
        meaning = _MEANING.get(self.reason, f"it gave a reason that this version does not know ({self.reason})")
        return f"the call failed: {meaning}{': ' * bool(self.text)}{self.text}"


_MEANING: dict[int, str] = {
    FailReason.NOT_SERVED: "the other client serves no calls",
    FailReason.FAILED: "its handler failed",
    FailReason.TOO_MANY: "it serves as many at once as it wants to; try again",
    FailReason.ENDED: "the other client stopped serving",
}
