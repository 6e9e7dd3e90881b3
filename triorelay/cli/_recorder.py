"""From the admin endpoint to a file.

1. The relay gives runs of frames as they are routed, and says what it could not keep. Nothing here can slow it down.
2. Once a second the chunk that has begun is ended, so that a kill or a full disk costs no more than that.
3. However the recording ends, the file is finished where its disk allows it: it then has its books and an index.
"""

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import click
import trio

from .._version import __version__
from ..client._bare import open_bare_nursery
from ..protocol import ConfigError, id_name
from ..recording import Entry, RunReader
from ..recording._writer import RecordingWriter
from ._admin_client import AdminError, Answer, Endpoint
from ._status import Status, parse_status

FLUSH_SECONDS = 1.0
REST_SECONDS = 5.0
"""What the relay has kept, at most a MiB, has come by then, or the way to it is broken."""


class OutputFile:
    """A file that is only written to: what it has taken is in the file, and what it has not raises at once."""

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
        """Nothing waits here."""


@contextmanager
def open_output(path: Path, *, overwrite: bool) -> Iterator[OutputFile]:
    """Make a file, for the length of the block.

    Raises:
        ConfigError: it exists, and is not to be overwritten.
        OSError: it cannot be made or, with its name, written.
    """
    if path.is_file() and path.stat().st_size and not overwrite:
        raise ConfigError(f"{path} exists; --overwrite replaces it")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        yield OutputFile(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


async def runs_of(answer: Answer) -> AsyncIterator[list[Entry]]:
    """Yield what the endpoint gives, as it comes.

    Raises:
        AdminError: the connection was lost, or this is no relay's endpoint.
    """
    reader = RunReader()
    while (piece := await answer.piece()) is not None:
        try:
            entries = reader.feed(piece)
        except ValueError as error:
            raise AdminError(f"what the relay sends is no recording: {error}") from None
        yield entries


async def read_status(asked: Endpoint) -> Status:
    """Return the relay's status.

    Raises:
        AdminError: no relay answers.
    """
    try:
        return parse_status(await asked.get("/status"))
    except ValueError:
        raise asked.stranger() from None


def query_of(source: int | None, destination: int | None) -> str:
    """Return what to ask the endpoint for: one sender, one destination; None for all."""
    wanted = {"from": source, "to": destination}
    return urlencode({key: id_name(id) for key, id in wanted.items() if id is not None})


class Recorder:
    """One recording."""

    def __init__(self, asked: Endpoint, path: Path, source: int | None, destination: int | None) -> None:
        self._asked = asked
        self._path = path
        self._source = source
        self._destination = destination

    async def record_until_told(self, output: OutputFile, signals: AsyncIterator[int], seconds: float | None) -> bool:
        """Record until a signal comes or `seconds` have passed; a second signal ends it at once.

        Returns:
            Whether Ctrl-C ended it.

        Raises:
            AdminError: no relay answers, or it ended.
            OSError: the file cannot be written.
        """
        stop, told = trio.Event(), 0

        async def obey() -> None:
            nonlocal told
            told = await anext(signals)
            stop.set()
            await anext(signals)
            nursery.cancel_scope.cancel()

        async def wait(limit: float) -> None:
            await trio.sleep(limit)
            stop.set()

        async with open_bare_nursery() as nursery:
            nursery.start_soon(obey)
            if seconds is not None:
                nursery.start_soon(wait, seconds)
            await self.record(output, stop)
            nursery.cancel_scope.cancel()
        return told == signal.SIGINT

    async def record(self, output: OutputFile, stop: trio.Event) -> None:
        """Record until `stop` and, after that, what the relay had routed by then; or until cancelled.

        Raises:
            AdminError: no relay answers, or it ended.
            OSError: the file cannot be written.
        """
        about = self._about(await read_status(self._asked))
        writer = RecordingWriter(output, about, f"triorelay {__version__}")
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(self._flush_regularly, writer)
                await self._follow(writer, stop, nursery)
                nursery.cancel_scope.cancel()
        except OSError:
            self._say_how_much(writer)
            raise
        except BaseException:
            self._finish(writer)
            raise
        self._finish(writer)

    async def _follow(self, writer: RecordingWriter, stop: trio.Event, nursery: trio.Nursery) -> None:
        async with self._asked.ask("GET", f"/record?{query_of(self._source, self._destination)}") as answer:
            nursery.start_soon(self._end, answer, stop, nursery.cancel_scope)
            began = False
            async for entries in runs_of(answer):
                for entry in entries:
                    writer.add(entry)
                if not began:
                    began = True
                    click.echo(f"recording to {self._path}", err=True)
        if not stop.is_set():
            raise AdminError(f"the relay at {self._asked.address} ended the connection")

    async def _end(self, answer: Answer, stop: trio.Event, everything: trio.CancelScope) -> None:
        await stop.wait()
        await answer.end()
        await trio.sleep(REST_SECONDS)
        everything.cancel()

    async def _flush_regularly(self, writer: RecordingWriter) -> None:
        while True:
            await trio.sleep(FLUSH_SECONDS)
            writer.flush()

    def _about(self, status: Status) -> dict[str, str]:
        return {
            "relay": ", ".join(status.listeners),
            "host": socket.gethostname(),
            "version": status.version,
            "from": "" if self._source is None else id_name(self._source),
            "to": "" if self._destination is None else id_name(self._destination),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _finish(self, writer: RecordingWriter) -> None:
        writer.finish()
        self._say_how_much(writer)

    def _say_how_much(self, writer: RecordingWriter) -> None:
        lost = f", {writer.lost} lost" if writer.lost else ""
        click.echo(f"recorded {writer.frames} frames, {writer.messages} messages{lost}", err=True)
