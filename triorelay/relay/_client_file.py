"""The file of a client that bound a path: removed when its session has ended, so that the client runs again unchanged.

1. The relay removes only files in a directory in which it listens itself. The client's path names that directory or
   none. Other directories are ignored, because such a path may lead anywhere.
2. It removes only a socket that belongs to the user of the client's process. So it removes nothing that this user could
   not remove, in a directory of that user or in one with the sticky bit.
3. It does so in a thread, because a file system may be slow, and never fails: a file that stays does no harm.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

import trio

from ..protocol import UnixAddress
from ._connection import Peer

WAIT = 1.0
"""Seconds that the end of a session waits for a slow file system."""
THREADS = 2
"""More would only wait for the same file system."""


async def remove_client_file(peer: Peer, listening: Sequence[str], threads: trio.CapacityLimiter) -> None:
    """Remove the socket file that `peer` bound, if it is beside one of the `listening` paths and its user's own.

    `threads` limits how many do that at a time. It belongs to one run of Trio, because a thread that outlasts its run
    never gives its place back.
    """
    if peer.transport != "unix" or not peer.bound_id:
        return
    with trio.move_on_after(WAIT), suppress(OSError, RuntimeError):  # RuntimeError: no thread can be started
        await trio.to_thread.run_sync(_remove, peer, listening, abandon_on_cancel=True, limiter=threads)


def _remove(peer: Peer, listening: Sequence[str]) -> None:
    place, _, name = os.fsencode(peer.address).rpartition(b"/")
    for path in listening:
        if UnixAddress(path).is_abstract:
            continue
        directory, _, own = os.fsencode(path).rpartition(b"/")
        if (place and place != os.path.abspath(directory)) or name == own:
            continue
        with suppress(OSError):
            descriptor = os.open(directory or b".", os.O_PATH | os.O_DIRECTORY)
            try:
                found = os.lstat(name, dir_fd=descriptor)
                if stat.S_ISSOCK(found.st_mode) and found.st_uid == peer.uid:
                    os.unlink(name, dir_fd=descriptor)
                    return
            finally:
                os.close(descriptor)
