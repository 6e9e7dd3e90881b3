"""Telling a terminal that closed from an operator's SIGHUP.

The kernel, or the shell, sends SIGHUP to what runs in a terminal that closes; `kill -HUP` sends the same to have the
configuration read again. Only in the first case the terminal is hung up, which a descriptor of it tells from then on.
"""

import os
import select
import signal
from contextlib import suppress


class Terminal:
    """The terminal that controls this process, if one does, kept open to learn of its end.

    Attributes:
        may_go: whether the process is to outlive it: it was started with SIGHUP ignored, which is what nohup(1) does.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        with suppress(OSError):  # a service has none
            self._descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.may_go = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def has_hung_up(self) -> bool:
        """Return whether the terminal closed since."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Let go of the terminal. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
