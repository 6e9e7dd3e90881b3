"""The flight recorder: the last frames that a relay routed, kept in memory, and written to a file on request.

1. SIGUSR1 asks for a file, and so does each bug that is logged, at most one in `BUG_SECONDS`. Its name is in the log's
   line about the bug, and in another line when it is written.
2. The file has the frames that are in memory at the request. A thread writes them, so that the relay continues:
   some at a time, with a pause as long as that takes, because Python runs one thread at a time.
3. Files are beside the log: in the directory of the file that standard error goes to, else in systemd's directory for
   logs, state or run time, else in the current one. Only the relay's user may read them.
4. Without a flight recorder SIGUSR1 only logs that there is none.
"""

import logging
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .._version import __version__
from ..relay import Relay, log

if TYPE_CHECKING:
    from ..recording import Ring, Run, Snapshot

BUG_SECONDS = 60.0
"""A bug that a client can cause again and again must not fill the disk."""
LAST_SECONDS = 1.0
"""Seconds that the relay's end waits for a file, as for the last line of its log."""
WANTED = 1
"""Files that may wait while one is written: each keeps frames in memory that the ring has forgotten since."""
PARTS_AT_ONCE = 256
"""Runs that the thread writes between two pauses: a quarter of a millisecond, for which a message may have to wait."""
PAUSE = 0.25e-3
LOGGER = logging.getLogger("triorelay")


class FlightRecorder:
    """A service beside a relay.

    Attributes:
        ring: what it keeps; None if it is off.
    """

    def __init__(self, ring: "Ring | None") -> None:
        self.ring = ring
        self._relay: Relay | None = None
        self._numbers = count(1)
        self._last_bug = -float("inf")
        # The directory is looked up now, because the relay's loop must not wait for a file system.
        self._directory = _directory()
        self._wanted, self._queue = trio.open_memory_channel[tuple[Path, "Snapshot"]](WANTED)

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the routed frames, and write files, until cancelled."""
        self._relay = relay
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            task_status.started()
            if self.ring is None:
                async for _ in signals:
                    log(logging.WARNING, "SIGUSR1 without a flight recorder: serve --flight-recorder BYTES has one")
            else:
                relay.exchange.round.on_begin = self.ring.begin_step
                relay.router.add_tap(self.ring.see, self.ring.alone)
                LOGGER.addFilter(self._notice_bug)
                try:
                    await self._obey(signals)
                finally:
                    LOGGER.removeFilter(self._notice_bug)
                    relay.router.remove_tap(self.ring.see)
                    relay.exchange.round.on_begin = None

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            writing = trio.CancelScope(shield=True)
            nursery.start_soon(self._write_files, writing)
            try:
                async for _ in signals:
                    if self._request_file() is None:
                        log(logging.WARNING, "flight recorder not written: an earlier file is being written")
            finally:
                self._wanted.close()
                writing.deadline = trio.current_time() + LAST_SECONDS

    def _notice_bug(self, record: logging.LogRecord) -> bool:
        """Add the name of a file to the line of a bug, and request the file. It never suppresses a line."""
        if record.exc_info and trio.lowlevel.in_trio_run() and trio.current_time() - self._last_bug >= BUG_SECONDS:
            self._last_bug = trio.current_time()
            if path := self._request_file():
                record.fields = {**getattr(record, "fields", {}), "flight_recorder": str(path)}
        return True

    def _request_file(self) -> Path | None:
        """Have what is in memory now written; return where, or None if too many files wait."""
        assert self.ring is not None
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = self._directory / f"triorelay-flight-{when}-{os.getpid()}-{next(self._numbers)}.mcap"
        try:
            self._wanted.send_nowait((path, self.ring.snapshot()))
        except trio.WouldBlock:
            return None
        return path

    async def _write_files(self, scope: trio.CancelScope) -> None:
        with scope:
            async for path, snapshot in self._queue:
                try:
                    frames = await trio.to_thread.run_sync(self._write, path, snapshot, abandon_on_cancel=True)
                except (OSError, RuntimeError) as error:  # the disk is full, or no thread can be started
                    reason = (isinstance(error, OSError) and error.strerror) or str(error)
                    log(logging.ERROR, "flight recorder not written", file=str(path), reason=reason)
                else:
                    log(logging.INFO, "flight recorder written", file=str(path), frames=frames)

    def _write(self, path: Path, snapshot: "Snapshot") -> int:
        from ..recording import dump, runs_in

        assert self._relay is not None
        about = {
            "relay": ", ".join(self._relay.addresses),
            "host": socket.gethostname(),
            "version": __version__,
            "from": "",
            "to": "",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        frames = 0

        def counted() -> "Iterator[Run]":
            nonlocal frames
            for run in runs_in(snapshot):
                frames += len(run.data)
                yield run

        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as file:
            parts = dump(counted(), about, f"triorelay {__version__}")
            while some := b"".join(islice(parts, PARTS_AT_ONCE)):
                file.write(some)
                time.sleep(PAUSE)
        return frames


def _directory() -> Path:
    """Return the directory of the log, if it is known."""
    try:
        if stat.S_ISREG(os.fstat(2).st_mode):
            return Path(os.readlink("/proc/self/fd/2")).parent
    except OSError:
        pass
    for name in ("LOGS_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        # Several are separated by colons.
        if directory := os.environ.get(name, "").partition(":")[0]:
            return Path(directory)
    with suppress(OSError):  # it was removed
        return Path.cwd()
    return Path()
