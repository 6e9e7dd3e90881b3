"""The end of a burst: called once no task can run any more, just before Trio waits for the kernel.

1. Before each wait for the kernel, Trio calls its instruments with the seconds that it would wait: 0 if a task can run.
   One instrument serves all clients of a run.
2. An outbox that asks is called once: when no task can run any more, or after `PASSES` passes where one always can.
3. It is called from Trio's own loop: it must neither raise nor wake a task, as a task that is woken here would sleep as
   long as Trio does. `soon` wakes one: it makes the wait end at once.
"""

import logging
from collections.abc import Callable

import trio

LOGGER = logging.getLogger("triorelay.client")

PASSES = 64
"""Passes of the scheduler after which a burst is ended: as many small messages, well below 1 ms."""


class Idle(trio.abc.Instrument):
    """Calls back at the end of a burst. One for each run of Trio, made by `idle`."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._callbacks: list[Callable[[bool], None]] = []
        self._passes = 0

    def call_once(self, callback: Callable[[bool], None]) -> None:
        """Call `callback` at the end of this burst, or after `PASSES`; its argument is whether it is the end."""
        self._callbacks.append(callback)

    def soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` where it may wake tasks, at once."""
        self._token.run_sync_soon(callback)

    def before_io_wait(self, timeout: float) -> None:
        """Called by Trio."""
        if self._callbacks:
            self._passes += 1
            if timeout > 0 or self._passes >= PASSES:
                self._passes = 0
                callbacks, self._callbacks = self._callbacks, []
                for callback in callbacks:
                    try:
                        callback(timeout > 0)
                    except Exception:
                        # Trio would remove an instrument that raises, and with it the writes of every other client.
                        LOGGER.exception("writing failed; it is tried again")
                        self._callbacks.append(callback)


_idle: trio.lowlevel.RunVar[Idle] = trio.lowlevel.RunVar("triorelay.idle")


def idle() -> Idle:
    """Return the instrument of this run."""
    try:
        return _idle.get()
    except LookupError:
        found = Idle()
        trio.lowlevel.add_instrument(found)
        _idle.set(found)
        return found
