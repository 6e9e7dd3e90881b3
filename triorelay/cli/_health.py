"""`triorelay health`: apart from other commands, because it runs every few seconds beside each relay."""

import os

import click

from ..protocol import Address, RelayError, UnixAddress
from ._options import admin_option
from ._probe import is_alive, probe


@click.command()
@admin_option
def health(admin: Address) -> None:
    """Tell whether the relay is alive: exit 0 if it is, 1 if not. A relay that drains is.

    It needs no token.

    \b
    Examples:
      triorelay health || systemctl restart triorelay
    """
    try:
        answer = status, body = probe(admin.name if isinstance(admin, UnixAddress) else (admin.host, admin.port))
    except TimeoutError:
        raise RelayError(f"the relay at {admin} does not answer") from None
    except (BrokenPipeError, ConnectionResetError):
        raise RelayError(f"the connection to the relay at {admin} was lost") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise RelayError(f"no relay answers at {admin}: {reason}; name its admin address with --admin") from None
    if not is_alive(answer):
        if not (status or body):
            raise RelayError(f"the connection to the relay at {admin} was lost")
        shown = f"HTTP status {status}: " if status not in (0, 200) else ""
        raise RelayError(f"{shown}what answers at {admin} is no relay's admin endpoint; name that with --admin")
    click.echo("ok")
