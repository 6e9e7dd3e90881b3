"""The end of a burst: called once no task can run any more, just before Trio waits for the kernel.

1. Before each wait for the kernel, Trio calls its instruments with the seconds that it would wait: 0 if a task can run.
   One instrument serves all clients of a run.
2. An outbox that asks is called after each `PASSES` passes, and when no task can run any more, which is the end.
3. It is called from Trio's own loop: it must not raise, and a task that it woke would sleep as long as Trio does.
   `wake` wakes one from here too: it makes the wait end at once.
"""

import logging
from collections.abc import Callable

import trio

LOGGER = logging.getLogger("triorelay.client")

PASSES = 64
"""Passes of the scheduler after which a burst is ended: as many small messages, well below 1 ms."""


class Idle(trio.abc.Instrument):
    """Calls back at the end of a burst, in the run of Trio in which it is made: one for each, made by `idle`."""

    def __init__(self) -> None:
        trio.lowlevel.add_instrument(self)
        _idle.set(self)
        self._token = trio.lowlevel.current_trio_token()
        self._callbacks: list[Callable[[bool], None]] = []
        self._passes = 0
        self._apart = False

    def call_until_end(self, callback: Callable[[bool], None]) -> bool:
        """Call `callback` at the end of this burst, and each `PASSES` before; its argument is whether it is the end.

        Returns whether it will be called: not for another thread than Trio's, whose bursts have no end to be seen.
        """
        if not self._apart:
            self._callbacks.append(callback)
        return not self._apart

    def wake(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Wake the tasks that wait in `lot`, also where Trio's loop does not run tasks now."""
        if self._apart:
            self._token.run_sync_soon(lot.unpark_all)
        else:
            lot.unpark_all()

    def before_io_wait(self, timeout: float) -> None:
        """Called by Trio."""
        if self._callbacks:
            self._passes += 1
            if timeout > 0 or self._passes >= PASSES:
                self._passes = 0
                callbacks, self._callbacks = self._callbacks, []
                self._apart = True
                for callback in callbacks:
                    try:
                        callback(timeout > 0)
                    except Exception:
                        # Trio would remove an instrument that raises, and with it the writes of every other client.
                        LOGGER.exception("writing failed; it is tried again")
                        self._callbacks.append(callback)
                    else:
                        if not timeout > 0:
                            self._callbacks.append(callback)
                self._apart = False


_idle: trio.lowlevel.RunVar[Idle] = trio.lowlevel.RunVar("triorelay.idle")


def idle() -> Idle:
    """Return the instrument of this run."""
    try:
        return _idle.get()
    except LookupError:
        return Idle()
