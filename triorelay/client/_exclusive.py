"""Work that one task at a time may do."""

import trio


class Exclusive:
    """A context that a second task cannot enter while the first is in it.

    Args:
        message: the text of the exception for the second task; it says what to do instead.
    """

    __slots__ = ("_busy", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._busy = False

    def check(self) -> None:
        """Raise if a task is in it: for work without a checkpoint, which no task can interrupt."""
        if self._busy:
            raise trio.BusyResourceError(self._message)

    def __enter__(self) -> None:
        self.check()
        self._busy = True

    def __exit__(self, *exc: object) -> None:
        self._busy = False
