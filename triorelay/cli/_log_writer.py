"""Log lines on their way to standard error, which may be a pipe or a terminal that nothing reads.

1. The relay's loop only puts records into a queue of `RECORDS`. A thread formats and writes them, so that the loop
   never waits for a full pipe, a stopped terminal, or the source files that a traceback quotes. It ends when it had
   nothing to write for `IDLE_SECONDS`, and the next record starts another: the kernel looks up the descriptor of each
   system call faster in a process of one thread.
2. A record that finds the queue full, or that cannot be written, is counted. The count precedes the next line.
3. `finish` gives the thread `LAST_SECONDS` for the rest. A thread that still waits then ends with the process.
4. If no thread can be started, each line is written at once if the descriptor has room for it, else it is lost.
"""

import logging
import os
import select
import signal
import threading
from queue import Empty, SimpleQueue
from typing import Final

RECORDS = 1024
"""About 300 KB of lines: a burst of joins fits, and a log that nothing reads costs no more."""
LINES_A_WRITE = 32
"""Few enough that other writers of the same pipe get their turn, and that the loop soon has the interpreter back."""
LAST_SECONDS = 1.0
IDLE_SECONDS = 0.1
"""Long enough that lines which follow each other share a thread, whose start takes some 0.1 ms."""
STANDARD_ERROR = 2


class LogWriter(logging.Handler):
    """Writes the records of a logger to a descriptor, without making the caller wait."""

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        super().__init__()
        self._descriptor: Final = descriptor
        self._records: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._found_full = 0
        self._not_written = 0
        self._lost_reported = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def lost(self) -> int:
        """How many records were lost, reported or not."""
        return self._found_full + self._not_written

    def emit(self, record: logging.LogRecord) -> None:
        with self._starting:
            if self._records.qsize() >= RECORDS:
                self._found_full += 1
            elif self._has_thread():
                self._records.put(record)
            else:
                self._write_if_ready(record)

    def finish(self, *last: logging.LogRecord) -> None:
        """Write the rest, and then `last`, for which there is always room, within `LAST_SECONDS`.

        Nothing is written afterwards.
        """
        with self._starting:
            thread = self._thread if self._has_thread() else None
            for record in last:
                if thread is None:
                    self._write_if_ready(record, patience=LAST_SECONDS)
                else:
                    self._records.put(record)
            self._records.put(None)
        if thread is not None:
            thread.join(LAST_SECONDS)

    def _has_thread(self) -> bool:
        """Start a thread if there is none; return whether there is one."""
        if self._thread is not None:
            return True
        thread = threading.Thread(target=self._write_until_idle, name="triorelay-log", daemon=True)
        # The relay's signals are the main thread's, which blocks them while it must not be disturbed.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:  # the system has no thread left
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return True

    def _write_until_idle(self) -> None:
        while True:
            try:
                batch = [self._records.get(timeout=IDLE_SECONDS)]
            except Empty:
                with self._starting:
                    if self._records.empty():
                        self._thread = None
                        return
                continue
            while batch[-1] is not None and len(batch) < LINES_A_WRITE and not self._records.empty():
                batch.append(self._records.get())
            self._write([record for record in batch if record is not None])
            if batch[-1] is None:
                return

    def _write(self, records: list[logging.LogRecord]) -> None:
        lost = self.lost
        if lost > self._lost_reported:
            records.insert(0, _lost_lines(lost - self._lost_reported))
        lines = [line for record in records if (line := self._line(record))]
        try:
            write_all(self._descriptor, b"".join(lines))
            self._lost_reported = lost
        except OSError:
            # It cannot be reported now; later standard error may have a reader, or the disk room, again.
            self._not_written += sum(not hasattr(record, "lost_lines") for record in records)

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            return f"{self.format(record)}\n".encode("ascii", "backslashreplace")
        except Exception:  # a fact that has no text must not end the log
            self._not_written += 1
            return b""

    def _write_if_ready(self, record: logging.LogRecord, patience: float = 0) -> None:
        if select.select((), (self._descriptor,), (), patience)[1]:
            self._write([record])
        else:
            self._not_written += 1


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write all of `data`, waiting for room."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # another process made the file non-blocking for all that share it
            select.select((), (descriptor,), ())


def _lost_lines(count: int) -> logging.LogRecord:
    record = logging.LogRecord("triorelay", logging.WARNING, __file__, 0, "log lines lost", None, None)
    record.fields = {"count": count, "hint": "standard error took no more: let something read it"}
    record.lost_lines = True
    return record
