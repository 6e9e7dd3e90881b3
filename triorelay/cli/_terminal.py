"""The terminal of a relay's process.

The kernel, or the shell, sends SIGHUP to the processes of a terminal that closes; an operator sends the same with
`kill -HUP` for a reload. Only in the first case the terminal is hung up, and a descriptor of it shows that.
"""

import os
import select
import signal
from contextlib import suppress


class Terminal:
    """The controlling terminal of this process, if there is one, kept open to detect its end.

    Attributes:
        may_go: whether the process continues after its end: it was started with SIGHUP ignored, as by nohup(1).
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        with suppress(OSError):  # a service has none
            self._descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.may_go = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def has_hung_up(self) -> bool:
        """Return whether the terminal has closed since, once: after its only signal, the next one is an operator's."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if not poll.poll(0):
            return False
        os.close(self._descriptor)
        self._descriptor = None
        return True
