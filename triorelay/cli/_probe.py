"""Checks whether a relay is alive, over a plain socket.

`triorelay health` runs every few seconds in the container of each relay. So this file imports nothing but the socket
module, and the common case (`probe_at_once`) needs no other file of the commands.
"""

import os
import socket
from collections.abc import Sequence

PATIENCE = 10.0
"""Seconds until an endpoint that does not answer is given up."""
LONGEST = 65536
"""Bytes of an answer; a relay's has about 250."""
ADMIN_DEFAULT = "unix:server_socket.admin"
"""The admin endpoint beside the relay's default socket."""
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def probe(place: bytes | tuple[str, int]) -> tuple[int, bytes]:
    """Return status and body of the answer to `GET /healthz` at a Unix socket's name, or at a host's port.

    The status is 0 where there is none. OSError: no connection, it broke, or it was silent for `PATIENCE`.
    """
    with _connected(place) as connection:
        connection.sendall(_REQUEST)
        answer = b""
        while len(answer) < LONGEST and (part := connection.recv(LONGEST)):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else 0, body


def is_alive(answer: tuple[int, bytes]) -> bool:
    """Return whether this is the answer of a live relay."""
    return answer == (200, b'{"status":"ok"}')


def probe_at_once(arguments: Sequence[str]) -> bool:
    """Return whether a relay is alive at the address that `--admin`, TRIORELAY_ADMIN or else the default names.

    False in all other cases, such as an address that is neither `unix:PATH` nor `HOST:PORT`: the command then asks
    once more, and says what is wrong.
    """
    match arguments:
        case []:
            address = os.environ.get("TRIORELAY_ADMIN") or ADMIN_DEFAULT
        case ["--admin", address]:
            pass
        case [word] if word.startswith("--admin="):
            address = word.removeprefix("--admin=")
        case _:
            return False
    try:
        return is_alive(probe(_place_of(address)))
    except (OSError, ValueError):
        return False


def _place_of(address: str) -> bytes | tuple[str, int]:
    """Return what `probe` takes; ValueError if it is another kind of address."""
    path = address.removeprefix("unix:")
    if path != address and not path.startswith(("//", "@")) and "," not in path:
        return os.fsencode(path)
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    if path != address or not (host and port.isdecimal()) or set(host) & set("/,:@"):
        raise ValueError(address)
    return host, int(port)


def _connected(place: bytes | tuple[str, int]) -> socket.socket:
    if isinstance(place, tuple):
        return socket.create_connection(place, timeout=PATIENCE)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection
