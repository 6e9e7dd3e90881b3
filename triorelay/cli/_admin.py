"""The commands that ask a relay's admin endpoint once, or follow what it shows: status, top, monitor, close,
health."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import click

from .._files import read_token
from ..protocol import Address, ConfigError, id_name
from ._options import ADMIN_ADDRESS, ID, AdminOption, run

if TYPE_CHECKING:
    from ._admin_client import Endpoint
    from ._status import Status

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT = "unix:server_socket.admin"
"""Beside the relay's own default."""
SORTS = ("id", "sent", "received", "queue", "waiting")
"""By what `top` sorts."""
UNREAD_SECONDS = 10
"""After as many the endpoint ends a stream that its reader does not take."""


def admin_options(command: Command) -> Command:
    """Add the options that say where the endpoint is; the command gets `admin` and `token_file`."""
    command = click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        envvar="TRIORELAY_ADMIN_TOKEN_FILE",
        help="The file that holds the endpoint's token.",
    )(command)
    return click.option(
        "--admin",
        cls=AdminOption,
        type=ADMIN_ADDRESS,
        metavar="ADDRESS",
        default=DEFAULT,
        show_default=True,
        envvar="TRIORELAY_ADMIN",
        help="The relay's admin endpoint: unix:PATH, HOST:PORT, or a port of this host.",
    )(command)


def endpoint(admin: Address, token_file: Path | None) -> "Endpoint":
    """Return the endpoint that the options name.

    Raises:
        ConfigError: the token file cannot be read, or holds no token.
    """
    from ._admin_client import Endpoint

    if token_file is None:
        return Endpoint(admin)
    token = read_token(token_file, "--token-file", shortest=1).decode("latin-1")
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"--token-file {token_file}: a token is one line of printable ASCII")
    return Endpoint(admin, token)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as the endpoint gives it: one line of JSON.")
@admin_options
def status(admin: Address, token_file: Path | None, as_json: bool) -> None:
    """Show who is connected, what went through, and who waits for whom.

    \b
    Examples:
      triorelay status
      triorelay status --json --admin unix:/run/triorelay/server_socket.admin
    """
    asked = endpoint(admin, token_file)

    async def show() -> None:
        from ._status import parse_status

        data = await asked.get("/status")
        try:
            now = parse_status(data)
        except ValueError:
            raise asked.stranger() from None
        if as_json:
            click.echo(data.strip())
        else:
            _print_status(now)

    run(show)


def _print_status(now: "Status") -> None:
    from rich.console import Console

    from . import _status_view as view

    console = Console(highlight=False)
    for part in (view.headline(now), view.totals(now), view.realm(now), view.waits(now), view.drops(now)):
        if part:
            console.print(part, soft_wrap=True)
    if now.clients:
        console.print()
        console.print(view.clients(now))


@click.command()
@click.option("--sort", type=click.Choice(SORTS), default="id", show_default=True, help="By what to sort the clients.")
@admin_options
def top(admin: Address, token_file: Path | None, sort: str) -> None:
    """Watch a relay: clients, rates, queues, who waits for whom. Keys sort; q or Ctrl-C quits.

    \b
    Examples:
      triorelay top --sort queue
      triorelay top --admin 127.0.0.1:9736 --token-file admin.token
    """
    if not sys.stdout.isatty():
        raise click.UsageError("top needs a terminal; `triorelay status` prints the same once")
    asked = endpoint(admin, token_file)

    import trio

    from ._top_screen import watch

    trio.run(watch, asked, sort)


@click.command()
@click.option("--from", "source", type=ID, metavar="ID", help="Only frames of this sender.")
@click.option("--to", "destination", type=ID, metavar="ID", help="Only frames to this destination.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines as the endpoint gives them.")
@click.option(
    "--pcapng",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write packets for Wireshark to FILE, or - for standard output, and print nothing.",
)
@admin_options
def monitor(
    admin: Address,
    token_file: Path | None,
    source: int | None,
    destination: int | None,
    as_json: bool,
    pcapng: Path | None,
) -> None:
    """Show frames as they are routed, until interrupted. What cannot be shown in time is counted as skipped; the relay
    ends a monitor that nobody reads for 10 s, as behind a pager.

    \b
    Examples:
      triorelay monitor
      triorelay monitor --from A --to B --json
      triorelay monitor --pcapng - | wireshark -k -i -
    """
    from ._admin_client import AdminError

    asked = endpoint(admin, token_file)
    if pcapng is not None:
        from ._capture import capture
        from ._follow import Wanted

        following = Wanted(asked, source, destination)
        if run(lambda: capture(following, pcapng)):
            raise KeyboardInterrupt
        return
    wanted = {"from": source, "to": destination}
    query = urlencode({key: id_name(id) for key, id in wanted.items() if id is not None})

    async def follow() -> None:
        longest = 0.0
        try:
            async with asked.ask("GET", f"/monitor?{query}") as answer:
                while (line := await answer.line()) is not None:
                    began = time.monotonic()
                    try:
                        click.echo(line if as_json else _frames_text(line))
                    except ValueError:
                        raise asked.stranger() from None
                    longest = max(longest, time.monotonic() - began)
            raise AdminError(f"the relay at {asked.address} ended the connection")
        except AdminError as error:
            raise AdminError(f"{error}{_why_it_ended(longest)}") from None

    run(follow)


def _why_it_ended(longest: float) -> str:
    """Return what to add where nobody read what was shown, for `longest` seconds at a time."""
    if longest < UNREAD_SECONDS:
        return ""
    return f": nothing it showed was read for {longest:.0f} s, and the relay waits {UNREAD_SECONDS}"


def _frames_text(line: str) -> str:
    """Return one line for people: time, from whom to whom, the bytes in hex and, where printable, as text.

    Raises:
        ValueError: it is no line of a relay.
    """
    from ._status import parse_look

    look = parse_look(line)
    when = f"{time.strftime('%H:%M:%S', time.localtime(look.time))}.{int(look.time * 1000) % 1000:03d}"
    skipped = f"{when} {look.skipped} frames skipped" if look.skipped else ""
    if look.data is None:
        return skipped
    data = bytes.fromhex(look.data)
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    text = f"{when} {id_name(look.source)} to {id_name(look.destination)}  {data.hex(' ')}  {shown}"
    return f"{skipped}\n{text}" if skipped else text


@click.command()
@click.argument("id", type=ID)
@admin_options
def close(admin: Address, token_file: Path | None, id: int) -> None:
    """Close the session of client ID. It may connect again.

    \b
    Examples:
      triorelay close A
      triorelay close 0xff
    """
    asked = endpoint(admin, token_file)

    async def ask() -> None:
        async with asked.ask("POST", f"/clients/{quote(id_name(id), safe='')}/close") as answer:
            await answer.body()
        click.echo(f"closed {id_name(id)}")

    run(ask)


@click.command()
@admin_options
def health(admin: Address, token_file: Path | None) -> None:
    """Tell whether the relay is alive: exit 0 if it is, 1 if not. A relay that drains is.

    \b
    Examples:
      triorelay health || systemctl restart triorelay
    """
    asked = endpoint(admin, token_file)

    async def ask() -> None:
        if b'"ok"' not in await asked.get("/healthz"):
            raise asked.stranger()
        click.echo("ok")

    run(ask)
