"""One watchdog for all processes that tests start."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PATIENCE = 60
"""Seconds until a test gives up on something that has to happen. On a busy machine, too, nothing takes so long."""


@contextmanager
def watched(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Kill `process` at the end of the block, or after `PATIENCE`, so that a test that waits for it fails."""
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    with process:
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()
