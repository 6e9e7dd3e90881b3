"""The command that sends a recording again: play."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from ._client_options import RelayOptions, complete_peer, relay_options
from ._frame_view import FramePrinter
from ._logging import one_line
from ._options import ID, param_type, run
from ._player import Player, pairs_of
from ._record import RECORDING, open_recording, say_if_cut


def parse_speed(text: str) -> float:
    """Return how many times as fast."""
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise ValueError(f"a speed is a number above 0, such as 2, 0.5, or inf for as fast as possible, not {text!r}")
    return speed


@click.command()
@click.argument("file", type=RECORDING)
@click.option("--to", "destination", type=ID, shell_complete=complete_peer, help="Send all of it to this client.")
@click.option(
    "--speed",
    type=param_type("factor", parse_speed),
    help="How many times as fast as then, such as 2 or 0.5; inf for as fast as possible. Default: 1.",
)
@click.option("--step", is_flag=True, help="Show each run of frames, and wait for Enter before it is sent.")
@relay_options(
    click.option("--as", "id", type=ID, help="Send everything as this one client. Default: the recorded senders.")
)
def play(options: RelayOptions, file: Path, destination: int | None, speed: float | None, step: bool) -> None:
    """Send the frames of the recording FILE again, at the time at which they came, as the clients that sent them. Their
    ids must be free.

    \b
    Examples:
      triorelay play run.mcap
      triorelay play run.mcap --as A --to B --speed 10
    """
    if step and speed is not None:
        raise click.UsageError("--step waits for Enter, so it takes no --speed")
    with open_recording(file) as recording:
        pairs = pairs_of(recording.entries())
        say_if_cut(file, recording)
        _say_if_elsewhere(file, recording.about, str(options.relay))
    player = Player(
        replace(options, if_taken="; --as ID plays it as another client"), destination, 1.0 if speed is None else speed
    )

    async def work() -> None:
        with open_recording(file) as recording:
            if step:
                await player.step(pairs, recording.entries(), FramePrinter().print)
            else:
                await player.play(pairs, recording.entries())

    run(work)
    click.echo(player.summary(), err=True)


def _say_if_elsewhere(file: Path, about: Mapping[str, str], relay: str) -> None:
    """Report on standard error that a recording is of another relay than the one at which it is played."""
    recorded = about.get("relay", "")
    if relay not in recorded.split(", "):
        place = f"{recorded or 'a relay'} on host {about.get('host', 'unknown')}"
        click.echo(one_line(f"{file} was recorded at {place}, and is played at {relay}"), err=True)
