"""The commands that write a recording and print one: record, show."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..recording import Entry, Lost
from ._admin import admin_options
from ._frame_view import FramePrinter
from ._options import FILE, ID, Seconds, run, view_options
from ._recording import check_mcap, open_recording, say_if_cut, selected

if TYPE_CHECKING:
    from ._admin_client import Endpoint

FROM = click.option("--from", "source", type=ID, metavar="ID", help="Only frames of this sender.")
TO = click.option("--to", "destination", type=ID, metavar="ID", help="Only frames to this destination.")


@click.command()
@click.argument("file", type=FILE)
@FROM
@TO
@click.option("--for", "seconds", type=Seconds(min=0), metavar="SECONDS", help="End after so long. Default: Ctrl-C.")
@click.option("--last", is_flag=True, help="Write what the relay's flight recorder holds, and end.")
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@admin_options
def record(
    asked: "Endpoint",
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
    from ._admin_client import Wanted
    from ._recorder import open_output, record_to

    wanted = Wanted(asked, source, destination, "/flight" if last else "/record")

    async def work() -> bool:
        with open_output(file, overwrite=overwrite) as output:
            return await record_to(file, output, wanted, seconds)

    if run(work):
        raise KeyboardInterrupt


@click.command()
@click.argument("file", type=FILE)
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
        for entry in selected(recording, source, destination):
            printer.print(look_line(entry))
        say_if_cut(file, recording)


def look_line(entry: Entry) -> str:
    """Return an entry as the endpoint shows it: a line of JSON."""
    seconds = round(entry.time / 1e9, 6)
    if isinstance(entry, Lost):
        return json.dumps({"time": seconds, "skipped": entry.frames})
    return json.dumps(
        {"time": seconds, "source": entry.source, "destination": entry.destination, "data": entry.data.hex()}
    )
