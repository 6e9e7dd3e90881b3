"""Settings of Python's and the C library's memory management for the process of a relay.

1. While the relay starts, almost all new objects stay: garbage collection takes a tenth of the time, and finds nothing.
   So the collector is off until the relay is ready. It never looks at the objects of that time again: a collection
   covers the objects made for clients, not the hundred thousand of modules and classes, which would take about 10 ms.
2. A large chunk takes memory and gives it back at once. glibc returns the free end of its heap to the system from
   128 KiB on, and takes it again for the next chunk, a page fault for each 4 KiB: with mixed chunks two faults a chunk,
   on some virtual machines several microseconds each. So it keeps up to `KEPT` bytes, which is all that this may cost.
"""

import ctypes
import gc

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
