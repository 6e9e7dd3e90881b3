"""Detects a TCP peer that vanished without an end of file: a cable was pulled, a host lost its power.

1. While no data is in flight to the peer, the kernel's keepalive probes it, and breaks the connection 25 s after its
   last answer.
2. While data is in flight, keepalive is silent, and the kernel would try for a quarter of an hour. Its user timeout
   does not help: it also ends connections to peers that answer every probe but keep their window closed, as slow
   readers do. So relay and client ask the kernel, each `INTERVAL` (Linux): when did the peer last acknowledge
   anything, and is there an unacknowledged probe or retransmitted segment? A live peer acknowledges those at once.
3. If frames wait for such a peer in the relay, the stall timeout ends it sooner, and its reason is counted.
"""

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""Seconds of silence, seconds between probes, probes."""
SILENCE = 20.0
"""Seconds without an acknowledgment; retransmissions have had six chances by then."""
INTERVAL = 5.0
_RETRANSMITS, _PROBES, _LAST_ACK_RECEIVED = 2, 3, 56
"""Offsets in Linux's struct tcp_info: two counts of one byte, and milliseconds as a 32-bit number."""


def set_keepalive(sock: "socket.socket | trio.socket.SocketType") -> None:
    """Make the kernel probe an idle peer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def is_silent(sock: "socket.socket | trio.socket.SocketType") -> bool:
    """Return whether a TCP peer owes an acknowledgment, and gave none for `SILENCE`; False if that is unknown."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return False
    owes = info[_RETRANSMITS] or info[_PROBES]
    last = int.from_bytes(info[_LAST_ACK_RECEIVED : _LAST_ACK_RECEIVED + 4], "little")
    return bool(owes) and last >= 1000 * SILENCE
