"""`monitor --pcapng`: frames as packets for Wireshark, into a file or a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from .._version import __version__
from ..recording import Entry, Lost
from ..recording._pcapng import PacketWriter
from ._admin_client import Wanted
from ._follow import follow
from ._recorder import OutputFile, open_output

STANDARD_OUTPUT = Path("-")


@contextmanager
def _open(path: Path) -> Iterator[OutputFile]:
    if path == STANDARD_OUTPUT:
        yield OutputFile(sys.stdout.fileno())
        return
    with open_output(path, overwrite=True) as output:
        yield output


async def capture(wanted: Wanted, path: Path) -> bool:
    """Write routed frames as packets to `path`, or to standard output for `-`, until SIGTERM or Ctrl-C.

    Each packet is written as it comes, so that a reader of a pipe sees it at once and a file is always whole.

    Returns:
        Whether Ctrl-C ended it.

    Raises:
        AdminError: no relay answers, or it ended.
        OSError: it cannot be written.
    """
    status = await wanted.asked.status()
    writer = PacketWriter(", ".join(status.listeners), f"triorelay {__version__}")
    with _open(path) as output:
        output.write(writer.head)

        def take(entry: Entry) -> None:
            if not isinstance(entry, Lost):
                output.write(writer.packet(entry))
            elif entry.frames:
                output.write(writer.loss(entry))

        try:
            return await follow(wanted, take, lambda: click.echo(f"capturing to {path}", err=True))
        finally:
            lost = f", {writer.lost} frames lost" if writer.lost else ""
            click.echo(f"captured {writer.packets} packets{lost}", err=True)
