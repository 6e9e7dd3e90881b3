"""Turns: how a thread that is not Trio's uses what belongs to Trio's.

1. Trio's thread has the turn except while it waits for the kernel. Then another thread may take it for one step: a
   function that does not wait. So such a step needs no switch of threads.
2. A step can wake no task, as it is outside Trio's loop: `wake` puts that off to Trio's thread.
3. A thread that waits for what Trio's thread does is woken when that gives the turn away. Earlier, it would only wait
   for the turn.
4. Nothing waits for the turn while it has it. A signal handler that interrupts a step can take no other.
"""

import threading
from collections.abc import Callable
from typing import Self, TypeVar

import trio

from ._idle import Idle

_T = TypeVar("_T")


class Turn(Idle):
    """Whose turn it is, in the run of Trio in which this is made, until the end of a `with` block there."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._lock.acquire()
        self._owner = 0
        self._woken: list[threading.Lock] = []

    def before_io_wait(self, timeout: float) -> None:
        """Called by Trio."""
        super().before_io_wait(timeout)
        self._give_away()

    def after_io_wait(self, timeout: float) -> None:
        """Called by Trio."""
        self._lock.acquire()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        trio.lowlevel.remove_instrument(self)
        self._give_away()

    def _give_away(self) -> None:
        woken, self._woken = self._woken, []
        self._lock.release()
        for lock in woken:
            if lock.locked():
                lock.release()

    def release_later(self, lock: threading.Lock) -> None:
        """Release `lock`, for which a thread may wait, when Trio's thread gives the turn away."""
        self._woken.append(lock)

    def check_not_inside(self) -> None:
        """Raise RuntimeError in a signal handler that has interrupted a step."""
        if self._owner == threading.get_ident():
            raise RuntimeError("a signal handler that interrupted a call of a client cannot call that client")

    def step(self, work: Callable[[], _T]) -> _T:
        """Do `work`, which does not wait, from another thread, and return its result."""
        own = threading.get_ident()
        with self._lock:
            self._owner = own
            self._apart = True
            try:
                return work()
            finally:
                self._owner = 0
                self._apart = False
