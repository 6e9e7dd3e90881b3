"""A relay's process: its memory management, and its terminal.

1. While the relay starts, almost all new objects stay: garbage collection takes a tenth of the time, and finds nothing.
   So the collector is off until the relay is ready. It never looks at the objects of that time again: a collection
   covers the objects made for clients, not the hundred thousand of modules and classes, which would take about 10 ms.
2. A large chunk takes memory and gives it back at once. glibc returns the free end of its heap to the system from
   128 KiB on, and takes it again for the next chunk, a page fault for each 4 KiB: with mixed chunks two faults a chunk,
   on some virtual machines several microseconds each. So it keeps up to `KEPT` bytes, which is all that this may cost.
3. The kernel, or the shell, sends SIGHUP to the processes of a terminal that closes; an operator sends the same with
   `kill -HUP` for a reload. Only in the first case the terminal is hung up, and a descriptor of it shows that.
"""

import ctypes
import gc
import os
import select
import signal
from contextlib import suppress

KEPT = 1 << 20
"""More than the pieces of one step, 16 chunks of 64 KiB."""
HEAP_STEP = 1 << 18
MAPPED_FROM = 1 << 18
"""Larger objects, such as a full queue that is copied, are given back at once, wherever they were."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def begin_start() -> None:
    """Look for no garbage until `end_start`, and let glibc keep freed memory for the next chunk."""
    gc.disable()
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # other C libraries have none
        library.mallopt(_M_TRIM_THRESHOLD, KEPT)
        library.mallopt(_M_TOP_PAD, HEAP_STEP)
        library.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)


def end_start() -> None:
    """Look for garbage among what is made from now on."""
    gc.freeze()
    gc.enable()


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
        """Return whether the terminal has closed since."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the terminal. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
