"""`triorelay top`: its options. `_top_screen` does the rest."""

import sys
from pathlib import Path

import click

from ..protocol import Address
from ._admin import admin_options, endpoint

SORTS = ("id", "sent", "received", "queue", "waiting")


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
