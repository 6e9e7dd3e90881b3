"""`triorelay health`: one request over a plain socket (`_probe`)."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..protocol import Address, RelayError, UnixAddress
from ._options import admin_option
from ._probe import PATIENCE, is_alive, probe


@click.command()
@admin_option
def health(admin: Address) -> None:
    """Tell whether the relay is alive: exit 0 if it is, 1 if not. A relay that drains is.

    It needs no token.

    \b
    Examples:
      triorelay health || systemctl restart triorelay
    """
    with _one_line_errors(admin), _connected(admin) as connection:
        answer = probe(connection)
    status, body = answer
    if not is_alive(answer):
        if not (status or body):
            raise RelayError(f"the connection to the relay at {admin} was lost")
        shown = f"HTTP status {status}: " if status not in (0, 200) else ""
        raise RelayError(f"{shown}what answers at {admin} is no relay's admin endpoint; name that with --admin")
    click.echo("ok")


@contextmanager
def _connected(address: Address) -> Iterator[socket.socket]:
    if isinstance(address, UnixAddress):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(address.name)
            yield connection
    else:
        with socket.create_connection((address.host, address.port), timeout=PATIENCE) as connection:
            yield connection


@contextmanager
def _one_line_errors(address: Address) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise RelayError(f"the relay at {address} does not answer") from None
    except (BrokenPipeError, ConnectionResetError):
        raise RelayError(f"the connection to the relay at {address} was lost") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise RelayError(f"no relay answers at {address}: {reason}; name its admin address with --admin") from None
