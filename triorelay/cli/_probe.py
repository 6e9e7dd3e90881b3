"""Checks whether a relay is alive, over a plain socket.

`triorelay health` runs every few seconds in the container of each relay. So this file imports nothing but the socket
module, and while the relay is alive no other file of the commands is needed.
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
ALIVE = b'{"status":"ok"}'
"""What a live relay answers."""
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def reports_alive(arguments: Sequence[str]) -> bool:
    """Report a relay that is alive at the address that `--admin`, TRIORELAY_ADMIN or else the default names.

    False in all other cases, such as a list of addresses: the command then asks once more, and says what is wrong.
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
    answer = b""
    try:
        place = _place_of(address)
        sock = socket.create_connection(place, PATIENCE) if isinstance(place, tuple) else socket.socket(socket.AF_UNIX)
        with sock:
            if isinstance(place, bytes):
                sock.settimeout(PATIENCE)
                sock.connect(place)
            sock.sendall(_REQUEST)
            while len(answer) < LONGEST and (part := sock.recv(LONGEST)):
                answer += part
        is_alive = answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n" + ALIVE)
        return is_alive and os.write(1, b"ok\n") > 0
    except (OSError, OverflowError, ValueError):
        return False


def _place_of(address: str) -> bytes | tuple[str, int]:
    """Return the name of a Unix socket, or host and port; ValueError for a kind of address that is seldom written."""
    if "//" in address or set(address) & set(",@"):
        raise ValueError(address)
    if address.isdecimal():
        return "127.0.0.1", int(address)
    path = address.removeprefix("unix:")
    if path != address or "/" in address or ":" not in address:
        return os.fsencode(path)
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    if not host or ":" in host:
        raise ValueError(address)
    return host, int(port)
