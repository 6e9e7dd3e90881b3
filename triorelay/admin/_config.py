"""Where the admin endpoint listens, and what a request needs."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from .._fields import check_fields
from .._files import read_token
from ..relay import ConfigError, TcpAddress, UnixAddress

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""A host as `Host` carries it: browsers send international names in ASCII."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """The settings of one admin endpoint.

    Attributes:
        address: a Unix socket, which gets mode 0600, or a TCP address; port 0 lets the kernel choose.
        token_file: a file with the token, 16 to 255 bytes; white space around it is stripped.
        hosts: names that a request over TCP may carry in `Host`, besides IP addresses and localhost.

    Raises:
        ConfigError: an address that others can reach, without a token, or a host that no request can name.
    """

    address: UnixAddress | TcpAddress
    token_file: Path | None = None
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, ConfigError, "admin.")
        if isinstance(self.address, UnixAddress):
            return
        if self.address.tls:
            raise ConfigError(f"admin speaks no TLS, so it cannot be {self.address}; put a proxy in front of it")
        for name in self.hosts:
            if _NAME.fullmatch(name) is None:
                raise ConfigError(
                    f"admin_host needs a name such as relay.example, without scheme or port, not {name!r}"
                )
        if self.token_file is None and not _is_loopback(self.address.host):
            raise ConfigError(
                f"admin at {self.address} can be reached by others: give it a token with --admin-token-file, "
                "or an address of this host alone, such as 127.0.0.1"
            )

    def read_token(self) -> bytes | None:
        """Return the token, None if none is needed. ConfigError: the file cannot be read, or holds none."""
        return None if self.token_file is None else read_token(self.token_file, "admin_token_file")


def _is_loopback(host: str) -> bool:
    # A name is not looked up: what it means may change after it was.
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
