"""The commands that use a relay's admin endpoint: status, top, monitor, close, health."""

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click
import msgspec
import trio

from .._files import read_token
from ..protocol import Address, ConfigError, id_name
from ._admin_client import Answer, Endpoint, Unreachable, Wanted
from ._frame_view import FramePrinter
from ._options import FILE, ID, SORT_KEYS, admin_option, completing, gathered, run, view_options
from ._probe import ALIVE
from ._recorder import capture
from ._status import Look, Status

ANY_WIDTH = 10_000
"""Columns of an output that is not a terminal: nothing is cut or wrapped to fit them."""
RETRY_SECONDS = 1.0
"""Between two attempts of `monitor --reconnect`."""
UNREAD_SECONDS = 10
"""After so many the endpoint ends a stream that its reader does not take."""


def endpoint(admin: Address, token_file: str | None) -> Endpoint:
    """Return the endpoint that the options name."""
    if token_file is None:
        return Endpoint(admin)
    token = read_token(Path(token_file), "--token-file", shortest=1).decode("latin-1")
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"--token-file {token_file}: a token is one line of printable ASCII")
    return Endpoint(admin, token)


admin_options = gathered(
    "asked",
    endpoint,
    ("admin", "token_file"),
    admin_option,
    click.option(
        "--token-file",
        type=FILE,
        envvar="TRIORELAY_ADMIN_TOKEN_FILE",
        help="The file that holds the endpoint's token.",
    ),
)
"""The options that say where the endpoint is; the command gets it as an `Endpoint`."""


async def _connected_ids(parameters: dict[str, Any]) -> list[int]:
    now = await endpoint(parameters["admin"], parameters["token_file"]).status()
    return [client.id for client in now.clients]


complete_client = completing("admin", _connected_ids)
"""Completes the ids of the clients that the endpoint's status names."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as the endpoint gives it: one line of JSON.")
@admin_options
def status(asked: Endpoint, as_json: bool) -> None:
    """Show the connected clients, what they sent and received, and which client waits for which.

    \b
    Examples:
      triorelay status
      triorelay status --json --admin unix:/run/triorelay/server_socket.admin
    """

    async def show() -> None:
        data = await asked.get("/status")
        now = asked.read_status(data)
        if as_json:
            click.echo(data.strip())
        else:
            _print_status(now)

    run(show)


def _print_status(now: Status) -> None:
    from rich.console import Console

    from . import _status_view as view

    console = Console(highlight=False)
    if not console.is_terminal or not console.width:  # COLUMNS=0
        console.width = ANY_WIDTH
    for part in (view.headline(now), view.totals(now), view.realm(now), view.waits(now), view.drops(now)):
        if part:
            console.print(part, soft_wrap=True)
    if now.clients:
        console.print()
        console.print(view.clients(now))


@click.command()
@click.option(
    "--sort",
    type=click.Choice(list(SORT_KEYS.values())),
    default="id",
    show_default=True,
    help="By what to sort the clients.",
)
@admin_options
def top(asked: Endpoint, sort: str) -> None:
    """Watch a relay: clients, rates, queues, paused clients. Keys sort; q or Ctrl-C quits.

    \b
    Examples:
      triorelay top --sort queue
      triorelay top --admin 127.0.0.1:9736 --token-file admin.token
    """
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        raise click.UsageError("top needs a terminal that can move its cursor; `triorelay status` prints the same once")
    from ._top_screen import watch

    trio.run(watch, asked, sort)


@click.command()
@click.option("--from", "source", type=ID, shell_complete=complete_client, help="Only of this sender.")
@click.option("--to", "destination", type=ID, shell_complete=complete_client, help="Only to this id.")
@view_options
@click.option(
    "--pcapng",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write packets for Wireshark to FILE, or - for standard output, and print nothing.",
)
@click.option("--reconnect", is_flag=True, help="Continue after the relay was restarted.")
@admin_options
def monitor(
    asked: Endpoint,
    source: int | None,
    destination: int | None,
    messages: bool,
    as_json: bool,
    pcapng: Path | None,
    reconnect: bool,
) -> None:
    """Show frames as they are routed, until Ctrl-C. What cannot be shown in time is counted as skipped; the relay
    ends a monitor that is not read for 10 s, as behind a pager.

    \b
    Examples:
      triorelay monitor
      triorelay monitor --from A --to B --json
      triorelay monitor --pcapng - | wireshark -k -i -
      triorelay monitor --messages --reconnect
    """
    if pcapng is not None:
        if messages or as_json or reconnect:
            raise click.UsageError("--pcapng goes with --from and --to alone")
        run(partial(capture, Wanted(asked, source, destination), pcapng))
        return
    wanted = Wanted(asked, source, destination, "/monitor")

    async def follow() -> None:
        connected = lost = False
        while True:
            try:
                async with asked.ask("GET", wanted.path) as answer:
                    if lost:
                        click.echo("triorelay: connected again", err=True)
                    connected, lost = True, False
                    await _show_frames(asked, answer, messages=messages, as_json=as_json)
            except Unreachable as error:
                if not (reconnect and connected):
                    raise
                if not lost:
                    click.echo(f"triorelay: {error}; trying again", err=True)
                lost = True
            await trio.sleep(RETRY_SECONDS)

    run(follow)


async def _show_frames(asked: Endpoint, answer: Answer, *, messages: bool, as_json: bool) -> NoReturn:
    """Print what the endpoint sends until it ends the connection, which is an AdminError."""
    printer = FramePrinter(messages=messages, as_json=as_json)
    longest = 0.0
    try:
        while True:
            line = await answer.line()
            began = time.monotonic()
            try:
                if as_json and not messages:
                    click.echo(line)
                else:
                    for entry in msgspec.json.decode(line, type=Look).entries:
                        printer.print(entry)
            except (ValueError, msgspec.MsgspecError):
                raise asked.stranger() from None
            longest = max(longest, time.monotonic() - began)
    except Unreachable as error:
        if longest < UNREAD_SECONDS:
            raise
        why = f"nothing it showed was read for {longest:.0f} s, and the relay waits {UNREAD_SECONDS}"
        raise Unreachable(f"{error}: {why}") from None


@click.command()
@click.argument("id", type=ID, shell_complete=complete_client)
@admin_options
def close(asked: Endpoint, id: int) -> None:
    """Close the session of client ID. It may connect again.

    \b
    Examples:
      triorelay close A
      triorelay close 0xff
    """

    async def ask() -> None:
        async with asked.ask("POST", f"/clients/{quote(id_name(id), safe='')}/close") as answer:
            await answer.body()
        click.echo(f"closed {id_name(id)}")

    run(ask)


@click.command()
@admin_option
def health(admin: Address) -> None:
    """Tell whether the relay is alive: exit 0 if it is, 1 if not. A relay that drains is.

    It needs no token.

    \b
    Examples:
      triorelay health || systemctl restart triorelay
    """
    endpoint = Endpoint(admin)
    if run(partial(endpoint.get, "/healthz")) != ALIVE:
        raise endpoint.stranger()
    click.echo("ok")
