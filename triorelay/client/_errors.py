"""What only a client raises."""

from ..protocol import EventCode, RelayError, id_byte, id_name


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
