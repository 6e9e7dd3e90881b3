"""Checks whether a relay is alive, over a connected socket.

`triorelay health` runs every few seconds in the container of each relay. So this file imports nothing but the socket
module, and the common case (`probe_beside`) needs no other file of the commands.
"""

import os
import socket

PATIENCE = 10.0
"""Seconds until an endpoint that does not answer is given up."""
LONGEST = 65536
"""Bytes of an answer; a relay's has about 250."""
ADMIN_DEFAULT = "unix:server_socket.admin"
"""The admin endpoint beside the relay's default socket."""
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def probe(connection: socket.socket) -> tuple[int, bytes]:
    """Return status and body of the answer to `GET /healthz`; status 0 where there is none.

    Raises:
        OSError: the connection broke, or was silent for `PATIENCE`.
    """
    connection.settimeout(PATIENCE)
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


def probe_beside() -> bool:
    """Return whether a relay is alive at the Unix socket that TRIORELAY_ADMIN names, or else at the default.

    False in any doubt: then the command asks once more, and reports what is wrong.
    """
    address = os.environ.get("TRIORELAY_ADMIN") or ADMIN_DEFAULT
    path = address.removeprefix("unix:")
    if path == address or path.startswith(("//", "@")) or "," in path:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(path)
            return is_alive(probe(connection))
    except (OSError, ValueError):
        return False
