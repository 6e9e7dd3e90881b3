"""Opens recordings, and reports what is wrong with one in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..protocol import ConfigError
from ..recording import Entry, Run

if TYPE_CHECKING:
    from ..recording._reader import RecordingReader


def check_mcap() -> None:
    """Check that recordings can be written and read.

    Raises:
        ConfigError: the package mcap is missing.
    """
    try:
        import mcap  # noqa: F401
    except ImportError:
        raise ConfigError(
            "recordings need the package mcap: python -m pip install 'triorelay[record]' installs it"
        ) from None


@contextmanager
def open_recording(path: Path) -> Iterator["RecordingReader"]:
    """Open a recording for the length of the block.

    Raises:
        ConfigError: `path` is not a recording.
    """
    check_mcap()
    from ..recording._reader import NoRecording, RecordingReader

    try:
        with path.open("rb") as file:
            yield RecordingReader(file)
    except NoRecording as error:
        raise ConfigError(f"{path} is {error}") from None
    except OSError as error:
        if error.filename is None:
            # Only opening says which file.
            error.filename = str(path)
        raise


def selected(recording: "RecordingReader", source: int | None, destination: int | None) -> Iterator[Entry]:
    """Yield the entries of one sender or to one destination, None for all, and always what was lost."""
    for entry in recording.entries():
        if not isinstance(entry, Run) or (source in (None, entry.source) and destination in (None, entry.destination)):
            yield entry


def say_if_cut(path: Path, recording: "RecordingReader") -> None:
    """Report on standard error that a recording is cut off or damaged, after it was read."""
    if not recording.whole:
        click.echo(f"triorelay: {path} is cut off or damaged: this is what was whole of it", err=True)
