"""Where a relay can be reached: `unix:PATH`, `unix:@NAME`, `tcp:HOST:PORT`, `tls:HOST:PORT`, with or without `//`."""

import os
import re
from dataclasses import dataclass

MAX_PATH_BYTES = 107
"""`sun_path` of unix(7) has 108 bytes: the last is for the closing zero, the first of an abstract name is a zero."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket: a file, or with @ in front a name of Linux's abstract namespace (`./@name` is a file).

    Attributes:
        path: as given, relative paths included; at most 107 bytes when it is used.
    """

    path: str

    @property
    def is_abstract(self) -> bool:
        """Whether it is a name and no file."""
        return self.path.startswith("@")

    @property
    def name(self) -> bytes:
        """What bind(2) and connect(2) take."""
        raw = os.fsencode(self.path)
        return b"\0" + raw[1:] if self.is_abstract else raw

    def __str__(self) -> str:
        # Two slashes at the start of a path would be taken for those that a scheme may have.
        return f"unix://{self.path}" if self.path.startswith("//") else f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port, with TLS over it or not.

    Attributes:
        host: a name or an address without brackets; empty means every interface, for a listener.
        port: 1 to 65535; 0 lets the kernel choose, for a listener.
        tls: whether TLS is spoken.
    """

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'tcp'}:{host}:{self.port}"


Address = UnixAddress | TcpAddress

_BRACKETED = re.compile(r"\[([^\[\]]*:[^\[\]]*)\]")


def parse_host_port(text: str, *, tls: bool = False, lowest_port: int = 0) -> TcpAddress:
    """Return the address in `HOST:PORT` or `[IPV6]:PORT`, or in `PORT` alone with an empty host.

    Raises:
        ValueError: a part is missing or wrong; the message says which.
    """
    host, _, port = text.rpartition(":")
    bracketed = _BRACKETED.fullmatch(host)
    if bracketed:
        host = bracketed[1]
    elif any(mark in host for mark in ":[]"):
        raise ValueError(f"an IPv6 address goes in brackets, as in [::1]:9734, not {text!r}")
    if not host.isprintable() or " " in host or "/" in host:
        raise ValueError(f"a host is a name or an IP address, not {host!r}")
    try:
        host.encode("idna")
    except UnicodeError:  # a part of it is empty or has more than 63 bytes
        raise ValueError(f"no host can be called {host!r}") from None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and lowest_port <= int(port) <= 65535):
        raise ValueError(f"a port is a number from {lowest_port} to 65535, not {port!r}")
    return TcpAddress(host, int(port), tls)


def parse_address(text: str) -> Address:
    """Return the address that `text` names.

    Without a scheme, text with a colon and no slash is HOST:PORT over TCP, and any other text is a Unix path.

    Raises:
        ValueError: an empty path, or a host or port that is missing or wrong.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in ("unix", "tcp", "tls"):
        scheme, rest = ("tcp", text) if ":" in text and "/" not in text else ("unix", text)
    else:
        rest = rest.removeprefix("//")
    if scheme == "unix":
        if rest in ("", "@") or "\0" in rest:
            raise ValueError(f"an address needs a path after unix:, not {text!r}")
        return UnixAddress(rest)
    address = parse_host_port(rest, tls=scheme == "tls", lowest_port=1)
    if not address.host:
        raise ValueError(f"an address needs a host and a port, as in {scheme}:localhost:9734, not {text!r}")
    return address
