"""`triorelay health`: apart from other commands, because it runs every few seconds beside each relay."""

from functools import partial

import click

from ..protocol import Address
from ._options import admin_option, run
from ._probe import ALIVE


@click.command()
@admin_option
def health(admin: Address) -> None:
    """Tell whether the relay is alive: exit 0 if it is, 1 if not. A relay that drains is.

    It needs no token.

    \b
    Examples:
      triorelay health || systemctl restart triorelay
    """
    from ._admin_client import Endpoint

    endpoint = Endpoint(admin)
    if run(partial(endpoint.get, "/healthz")) != ALIVE:
        raise endpoint.stranger()
    click.echo("ok")
