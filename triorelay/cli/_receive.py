"""`triorelay receive`: frames or whole messages, as lines or raw."""

import json
import math
from contextlib import nullcontext
from datetime import datetime

import click
import trio

from ..protocol import id_byte, id_name
from ._client import report_id
from ._client_options import RelayOptions, client_options, complete_peer
from ._frame_view import message_facts, message_text
from ._options import ID, Seconds, run


@click.command()
@click.option(
    "-n", "--count", type=click.IntRange(min=1), metavar="COUNT", help="End after so many frames, or messages."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "raw"]),
    default="text",
    show_default=True,
    help="A line for each, for people or for programs, or the data bytes alone.",
)
@click.option("--messages", is_flag=True, help="Put whole messages together: their text if printable, otherwise hex.")
@click.option(
    "--from",
    "sources",
    type=ID,
    multiple=True,
    shell_complete=complete_peer,
    help="Print only what this client sends. May be given several times.",
)
@click.option(
    "--timeout",
    type=Seconds(min=0, min_open=True),
    metavar="SECONDS",
    help="End with exit code 1 when nothing more came for so long.",
)
@click.option("--time", "timed", is_flag=True, help="Begin each line with the time, as ISO 8601 has it.")
@click.option("--shared", is_flag=True, help="Hold the id together with others that say the same: each gets a copy.")
@click.option(
    "--lossy", is_flag=True, help="While the queue for this client is full, lose new frames instead of pausing senders."
)
@click.option("--reconnect", is_flag=True, help="Continue after the relay was restarted.")
@client_options
def receive(
    options: RelayOptions,
    count: int | None,
    form: str,
    messages: bool,
    sources: tuple[int, ...],
    timeout: float | None,
    timed: bool,
    shared: bool,
    lossy: bool,
    reconnect: bool,
) -> None:
    """Print what arrives, until COUNT frames or Ctrl-C.

    \b
    Examples:
      triorelay receive --id B
      triorelay receive --id B --format raw > file
      triorelay receive --id B --messages --from A --time
      triorelay receive --id N --shared --lossy
    """
    if timed and form == "raw":
        raise click.UsageError("--time goes with lines, and --format raw prints none")
    if shared and options.id is None:
        raise click.UsageError("--shared goes with --id: the id that the others hold")
    patience = math.inf if timeout is None else timeout

    async def work() -> None:
        left = math.inf if count is None else count
        async with options.open(reconnect=reconnect, shared=shared, lossy=lossy) as client:
            report_id(options, client, "receiving")
            async with client.messages() if messages else nullcontext(client) as arrivals:
                deadline = trio.current_time() + patience
                while left:
                    with trio.move_on_at(deadline) as waiting:
                        source, data = await anext(arrivals)
                    if waiting.cancelled_caught:
                        raise click.ClickException(f"nothing came for {patience:g} s")
                    if sources and id_byte(source) not in sources:
                        continue
                    if not messages:
                        data = data[: int(min(left, len(data)))]
                    click.echo(data if form == "raw" else _lines(form, source, data, messages, timed), nl=False)
                    left -= 1 if messages else len(data)
                    deadline = trio.current_time() + patience

    run(work)


def _lines(form: str, source: str, data: bytes, messages: bool, timed: bool) -> str:
    """Return a line for each data byte, or one for a message."""
    id = id_byte(source)
    now = datetime.now().astimezone().isoformat(timespec="milliseconds") if timed else ""
    if form == "text":
        head = f"{now} {id_name(id)}" if now else id_name(id)
        texts = [message_text(data)] if messages else map(id_name, data)
        return "".join(f"{head} {text}\n" for text in texts)
    stamp = {"time": now} if now else {}
    parts = [message_facts(data)] if messages else [{"data": f"{byte:02x}"} for byte in data]
    return "".join(json.dumps({**stamp, "id": id, "name": id_name(id), **facts}) + "\n" for facts in parts)
