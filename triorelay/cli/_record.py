"""The commands that write a recording and print one: record, show; and opening one, with one line for what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..protocol import ConfigError
from ..recording import Run
from ._admin import admin_options
from ._admin_client import Endpoint, Wanted
from ._frame_view import FramePrinter
from ._options import ID, Seconds, run, view_options
from ._recorder import record as write_recording

if TYPE_CHECKING:
    from ..recording._reader import RecordingReader

RECORDING = click.Path(path_type=Path, dir_okay=False)
FROM = click.option("--from", "source", type=ID, help="Only frames of this sender.")
TO = click.option("--to", "destination", type=ID, help="Only frames to this destination.")


@click.command()
@click.argument("file", type=RECORDING)
@FROM
@TO
@click.option("--for", "seconds", type=Seconds(min=0), metavar="SECONDS", help="End after so long. Default: Ctrl-C.")
@click.option("--last", is_flag=True, help="Write what the relay's flight recorder holds, and end.")
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@admin_options
def record(
    asked: Endpoint,
    file: Path,
    source: int | None,
    destination: int | None,
    seconds: float | None,
    last: bool,
    overwrite: bool,
) -> None:
    """Write frames to FILE as they are routed, until Ctrl-C, SIGTERM or the end of the relay.

    FILE is an MCAP file, which Foxglove, PlotJuggler and the mcap tools open. The relay never waits: frames that cannot
    be kept in time are lost, and counted in the file.

    \b
    Examples:
      triorelay record run.mcap
      triorelay record --from A --to B --for 60 run.mcap
      triorelay record --last before.mcap
    """
    if last and seconds is not None:
        raise click.UsageError("--last writes what has been, so it takes no --for")
    check_mcap()
    wanted = Wanted(asked, source, destination, "/flight" if last else "/record")
    run(partial(write_recording, wanted, file, overwrite=overwrite, seconds=seconds))


@click.command()
@click.argument("file", type=RECORDING)
@FROM
@TO
@view_options
def show(file: Path, source: int | None, destination: int | None, messages: bool, as_json: bool) -> None:
    """Print the recording FILE as monitor would have shown it.

    \b
    Examples:
      triorelay show run.mcap
      triorelay show run.mcap --from A --to B --json
      triorelay show run.mcap --messages
    """
    with open_recording(file) as recording:
        printer = FramePrinter(messages=messages, as_json=as_json)
        for entry in recording.entries():
            # What was lost is always shown.
            if not isinstance(entry, Run) or (
                source in (None, entry.source) and destination in (None, entry.destination)
            ):
                printer.print(entry)
        say_if_cut(file, recording)


def check_mcap() -> None:
    """Check that recordings can be written and read: that the package mcap is there."""
    try:
        import mcap  # noqa: F401
    except ImportError:
        raise ConfigError(
            "recordings need the package mcap: python -m pip install 'triorelay[record]' installs it"
        ) from None


@contextmanager
def open_recording(path: Path) -> Iterator["RecordingReader"]:
    """Open a recording for the length of the block; ConfigError if it is none."""
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


def say_if_cut(path: Path, recording: "RecordingReader") -> None:
    """Report on standard error that a recording is cut off or damaged, after it was read."""
    if not recording.whole:
        click.echo(f"triorelay: {path} is cut off or damaged: this is what was whole of it", err=True)
