"""Routed frames from the admin endpoint to a file: a recording, or packets for Wireshark.

1. Nothing here can slow the relay down. The relay itself reports how much it could not keep.
2. After the first signal the relay sends what it has kept, and no more: frames routed before the signal are not lost.
   The second signal ends the command at once.
3. Once a second, after an hour every ten seconds, the current chunk of a recording is ended: a kill or a full disk
   loses no more. However it ends, the file is finished if the disk allows it: it then has its totals and an index.
4. Each packet is written as it comes, so that a reader of a pipe sees it at once and a file is always whole.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from .._version import __version__
from ..client._bare import open_bare_nursery
from ..protocol import ConfigError, id_name
from ..recording import Entry, Lost, RunReader
from ..recording._pcapng import PacketWriter
from ._admin_client import AdminError, Answer, Wanted
from ._log_writer import write_all
from ._options import interrupted

if TYPE_CHECKING:
    from ..recording._writer import RecordingWriter

PROGRAM = f"triorelay {__version__}"
STANDARD_OUTPUT = Path("-")
REST_SECONDS = 5.0
"""Seconds for what the relay has kept, at most a MiB; after that the connection counts as broken."""
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
        write_all(self._descriptor, data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Do nothing: no bytes wait here."""


@contextmanager
def open_output(path: Path, *, overwrite: bool) -> Iterator[OutputFile]:
    """Make a file, for the length of the block. If the block fails before it writes anything, no file is left."""
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


async def record(wanted: Wanted, path: Path, *, overwrite: bool, seconds: float | None) -> None:
    """Record until SIGTERM, Ctrl-C (Abort), or `seconds` have passed."""
    from ..recording._writer import RecordingWriter

    with open_output(path, overwrite=overwrite) as output:
        status = await wanted.asked.status()
        about = {
            "relay": ", ".join(status.listeners),
            "host": socket.gethostname(),
            "version": status.version,
            "from": "" if wanted.source is None else id_name(wanted.source),
            "to": "" if wanted.destination is None else id_name(wanted.destination),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        async with _following(wanted, seconds) as entries:
            writer = RecordingWriter(output, about, PROGRAM)
            if wanted.place == "/record":
                click.echo(f"recording to {path}", err=True)
            with _finishing(writer):
                async with open_bare_nursery() as nursery:
                    nursery.start_soon(_flush_regularly, writer)
                    async for entry in entries:
                        writer.add(entry)
                    nursery.cancel_scope.cancel()


@contextmanager
def _finishing(writer: "RecordingWriter") -> Iterator[None]:
    """Finish the file at the end of the block, unless it takes no more, and report what is in it."""
    takes_more = True
    try:
        yield
    except OSError:
        takes_more = False
        raise
    finally:
        try:
            if takes_more:
                writer.finish()
        finally:
            frames, messages = writer.whole
            lost = writer.lost + writer.frames - frames
            click.echo(f"recorded {frames} frames, {messages} messages{f', {lost} lost' if lost else ''}", err=True)


async def _flush_regularly(writer: "RecordingWriter") -> None:
    long = trio.current_time() + LONG_SECONDS
    while True:
        await trio.sleep(FLUSH_SECONDS if trio.current_time() < long else LONG_FLUSH_SECONDS)
        writer.flush()


async def capture(wanted: Wanted, path: Path) -> None:
    """Write packets to `path`, or standard output for `-`, until SIGTERM or Ctrl-C (Abort)."""
    relay = ", ".join((await wanted.asked.status()).listeners)
    writer = PacketWriter(relay, PROGRAM)
    is_pipe = path == STANDARD_OUTPUT
    with nullcontext(OutputFile(sys.stdout.fileno())) if is_pipe else open_output(path, overwrite=True) as output:
        output.write(writer.head)
        try:
            async with _following(wanted) as entries:
                click.echo(f"capturing to {path}", err=True)
                async for entry in entries:
                    if not isinstance(entry, Lost):
                        output.write(writer.packet(entry))
                    elif entry.frames:
                        output.write(writer.loss(entry))
        finally:
            lost = f", {writer.lost} frames lost" if writer.lost else ""
            click.echo(f"captured {writer.packets} packets{lost}", err=True)


@asynccontextmanager
async def _following(wanted: Wanted, seconds: float | None = None) -> AsyncIterator[AsyncIterator[Entry]]:
    """Give what the endpoint sends until SIGTERM, Ctrl-C (then Abort), or `seconds` have passed.

    The block begins once every frame from now on will be seen, or counted as lost.
    """
    stop, received = trio.Event(), 0

    async def obey(signals: AsyncIterator[int]) -> None:
        nonlocal received
        received = await anext(signals)
        stop.set()
        await anext(signals)
        nursery.cancel_scope.cancel()

    async def end(answer: Answer) -> None:
        with trio.move_on_after(float("inf") if seconds is None else seconds):
            await stop.wait()
        stop.set()
        await answer.end()
        await trio.sleep(REST_SECONDS)
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(obey, signals)
            async with wanted.asked.ask("GET", wanted.path) as answer:
                nursery.start_soon(end, answer)
                yield _entries(await answer.piece(), answer)
            if not stop.is_set() and wanted.place == "/record":
                raise AdminError(f"the relay at {wanted.asked.address} ended the connection")
            nursery.cancel_scope.cancel()
    if received == signal.SIGINT:
        raise interrupted()


async def _entries(piece: bytes | None, answer: Answer) -> AsyncIterator[Entry]:
    """Yield the entries in `piece`, and in what comes after it."""
    reader = RunReader()
    while piece is not None:
        try:
            entries = reader.feed(piece)
        except ValueError as error:
            raise AdminError(f"what the relay sends are no runs of frames: {error}") from None
        for entry in entries:
            yield entry
        piece = await answer.piece()
