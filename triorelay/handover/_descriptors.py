"""Passing descriptors to another process over a Unix socket (unix(7), SCM_RIGHTS).

A descriptor that is passed is another name for the same open file, as with dup(2): both processes have the same socket,
with the same flags, until the last of them closes it. A lock by flock(2) belongs to the open file too, so it moves with
its descriptor and is never free in between.
"""

import os
import socket
from collections.abc import Sequence

A_MESSAGE = 253
"""SCM_MAX_FD of Linux: more in one message are refused."""


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send all of `data`, and `descriptors` in order with its first bytes; they stay open here.

    `data` must have a byte for every `A_MESSAGE` descriptors.

    Raises:
        OSError: as of sendmsg(2); TimeoutError where the socket's time-out passes.
    """
    sent = 0
    for start in range(0, len(descriptors), A_MESSAGE):
        socket.send_fds(sock, [data[sent : sent + 1]], list(descriptors[start : start + A_MESSAGE]))
        sent += 1
    sock.sendall(memoryview(data)[sent:])


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes, and the descriptors that came with them; the caller closes those.

    Raises:
        OSError: as of recvmsg(2); or this process may not have so many descriptors: those that arrived are closed.
    """
    data, received, flags, _ = socket.recv_fds(sock, size, A_MESSAGE)
    for descriptor in received:
        os.set_inheritable(descriptor, False)  # recv_fds passes no flag on that would say so
    if flags & socket.MSG_CTRUNC:
        for descriptor in received:
            os.close(descriptor)
        raise OSError("too few descriptors: raise `ulimit -n` of the successor")
    return data, received
