"""From the admin endpoint to a file.

1. Once a second, after an hour every ten seconds, the current chunk is ended: a kill or a full disk loses no more.
2. However the recording ends, the file is finished if the disk allows it: it then has its totals and an index.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import trio

from .._version import __version__
from ..client._bare import open_bare_nursery
from ..protocol import ConfigError, id_name
from ..recording import Entry
from ..recording._writer import RecordingWriter
from ._admin_client import Wanted
from ._follow import follow
from ._status import Status

FLUSH_SECONDS = 1.0
LONG_SECONDS = 3600.0
LONG_FLUSH_SECONDS = 10.0
"""Each chunk takes some hundred bytes of the index, which is in memory until the end: a long recording has fewer."""


class OutputFile:
    """A file for writing only: bytes that it took are in the file, and a failure raises at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Do nothing: no bytes wait here."""


@contextmanager
def open_output(path: Path, *, overwrite: bool) -> Iterator[OutputFile]:
    """Make a file, for the length of the block. If the block fails before it writes anything, no file is left.

    Raises:
        ConfigError: it exists, and is not to be overwritten.
        OSError: it cannot be made or, with its name, written.
    """
    if path.is_file() and path.stat().st_size and not overwrite:
        raise ConfigError(f"{path} exists; --overwrite replaces it")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    output = OutputFile(descriptor)
    try:
        yield output
    except BaseException as error:
        if output.tell() == 0 and path.is_file():
            path.unlink()
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


async def record_to(path: Path, output: OutputFile, wanted: Wanted, seconds: float | None) -> bool:
    """Record until SIGTERM, Ctrl-C, or `seconds` have passed; return whether Ctrl-C ended it.

    Raises:
        AdminError: no relay answers, or it ended.
        OSError: the file cannot be written.
    """
    about = _about(wanted, await wanted.asked.status())
    writer: RecordingWriter | None = None

    def begin() -> None:
        nonlocal writer
        writer = RecordingWriter(output, about, f"triorelay {__version__}")
        if wanted.place == "/record":
            click.echo(f"recording to {path}", err=True)

    def take(entry: Entry) -> None:
        assert writer is not None
        writer.add(entry)

    async def flush_regularly() -> None:
        long = trio.current_time() + LONG_SECONDS
        while True:
            await trio.sleep(FLUSH_SECONDS if trio.current_time() < long else LONG_FLUSH_SECONDS)
            if writer is not None:
                writer.flush()

    full = False
    try:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(flush_regularly)
            interrupted = await follow(wanted, take, begin, seconds)
            nursery.cancel_scope.cancel()
    except OSError:
        full = True
        raise
    finally:
        if writer is not None:
            if not full:
                writer.finish()
            lost = f", {writer.lost} lost" if writer.lost else ""
            click.echo(f"recorded {writer.frames} frames, {writer.messages} messages{lost}", err=True)
    return interrupted


def _about(wanted: Wanted, status: Status) -> dict[str, str]:
    return {
        "relay": ", ".join(status.listeners),
        "host": socket.gethostname(),
        "version": status.version,
        "from": "" if wanted.source is None else id_name(wanted.source),
        "to": "" if wanted.destination is None else id_name(wanted.destination),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
