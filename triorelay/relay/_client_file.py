"""The file of a client that bound a path: removed when its session has ended, so that the client runs again unchanged.

1. Only a file in a directory in which the relay itself listens, named by a path with that directory or with none: what
   a client says of other directories is not followed, as it could lead anywhere by then.
2. Only a socket that belongs to the user of the client's process. So the relay removes nothing that this user could not
   have removed in a directory of his own, or in one where the sticky bit lets users remove their own files.
3. In a thread, because a file system may be slow, and never with an error: a file that stays is no more than before.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

import trio

from ..protocol import UnixAddress
from ._connection import Peer

WAIT = 1.0
"""Seconds after which the end of a session waits no longer for a slow file system."""
_threads = trio.CapacityLimiter(2)
"""More would only wait for the same file system."""


async def remove_client_file(peer: Peer, listening: Sequence[str]) -> None:
    """Remove the socket file that `peer` bound, if it is beside one of the `listening` paths and its user's own."""
    if peer.transport != "unix" or not peer.bound_id:
        return
    with trio.move_on_after(WAIT), suppress(OSError, RuntimeError):  # RuntimeError: no thread can be started
        await trio.to_thread.run_sync(_remove, peer, listening, abandon_on_cancel=True, limiter=_threads)


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
