"""From settings as they are written to what the admin endpoint takes."""

import os
import socket
from collections.abc import Sequence

from ..admin import AdminConfig
from ..protocol import Address, ConfigError, UnixAddress
from ..relay import Config
from ._options import parse_admin_address
from ._sources import Given

LONGEST_PATH = 107
"""What a Unix socket's name may have in bytes."""


def admin_config(given: Given, relay: Config, sockets: Sequence[socket.socket] = ()) -> AdminConfig | None:
    """Return the settings of the relay's admin endpoint, None where it has none.

    Args:
        given: the settings.
        relay: what they mean for the relay.
        sockets: what was handed over to the relay; the endpoint's default is beside the first Unix path of all.

    Raises:
        UsageError: a setting has no meaning, or lets others reach the endpoint without a token.
    """
    settings = given.settings
    if settings.admin == "none":
        return None
    address = (
        _beside(relay, sockets) if settings.admin is None else given.parse("admin", settings.admin, parse_admin_address)
    )
    if address is None:
        return None
    token_file, host = settings.admin_token_file, settings.admin_host
    try:
        return AdminConfig(
            address=address,
            token_file=None if token_file is None else given.path("admin_token_file", token_file),
            hosts=() if host is None else (host,),
        )
    except ConfigError as error:
        raise given.locate(error) from None


def _beside(relay: Config, sockets: Sequence[socket.socket]) -> Address | None:
    """Return the endpoint's own default; None where the relay has no Unix socket, or one whose name is too long."""
    names = [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]
    paths = [*relay.unix, *(name for name in names if isinstance(name, str))]
    path = f"{paths[0]}.admin" if paths else ""
    return UnixAddress(path) if 0 < len(os.fsencode(path)) <= LONGEST_PATH else None
