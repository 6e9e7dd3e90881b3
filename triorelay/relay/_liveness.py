"""Noticing a TCP peer that vanished without a word: a cable pulled, a host that lost its power.

1. While nothing is under way to it, the kernel's keepalive asks, and breaks the connection 25 s after the last word.
2. While something is, keepalive is silent, and the kernel would go on for a quarter of an hour. Its user timeout is of
   no use: it also ends connections to peers that answer every probe but whose window is closed, which is what a slow
   reader looks like. So `watch` asks the kernel: when did the peer last acknowledge anything, and is there a probe or
   a segment sent again that it has not acknowledged? A live peer acknowledges those at once.
3. Where frames wait for such a peer the stall rule is quicker, and its reason is the one counted.
"""

import socket
from typing import TYPE_CHECKING

import trio

from ..protocol import CloseReason

if TYPE_CHECKING:
    from ._relay import Relay

KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
SILENCE = 20.0
"""Seconds without an acknowledgment; retransmissions have had six chances by then."""
INTERVAL = 5.0
_RETRANSMITS, _PROBES, _LAST_ACK_RECEIVED = 2, 3, 56
"""Offsets in Linux's struct tcp_info: two counts of one byte, and milliseconds as a 32-bit number."""


def set_keepalive(sock: socket.socket) -> None:
    """Make the kernel ask whether a peer is there, while nothing else does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, seconds)


def is_silent(sock: socket.socket) -> bool:
    """Return whether a peer owes an acknowledgment, and has given none for `SILENCE`."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return False
    owes = info[_RETRANSMITS] or info[_PROBES]
    last = int.from_bytes(info[_LAST_ACK_RECEIVED : _LAST_ACK_RECEIVED + 4], "little")
    return bool(owes) and last >= 1000 * SILENCE


async def watch(relay: "Relay") -> None:
    """Close sessions whose peer is silent, until cancelled."""
    while True:
        await trio.sleep(INTERVAL)
        for session in list(relay.sessions):
            if session.connection.silent():
                session.close(CloseReason.RESET)
