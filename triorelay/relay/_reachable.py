"""Whether clients still reach a listener by the path of its Unix socket.

1. Another program may remove a path, or put another file in its place. The listener does not notice, and no client
   reaches it any more. So a thread checks each `INTERVAL`; a thread, because a file system may be slow.
2. The relay listens again at a lost path if no other server has the path now (`_socket_file`), and logs it. It only
   watches the path of a socket that another program opened and passed on.
3. If it cannot, it logs that once, with the reason and what to do. `lost` contains the path until it leads here again,
   for programs that ask whether the relay is ready.
"""

import logging
import socket
from collections.abc import Callable

import trio

from ..protocol import ConfigError
from ._log import log
from ._socket_file import SocketFile

INTERVAL = 2.0
"""Seconds: less than between two probes of an orchestrator."""


async def keep_reachable(path: SocketFile, replace: Callable[[socket.socket], None], lost: dict[str, str]) -> None:
    """Look after `path` until cancelled.

    Args:
        path: the path.
        replace: is given the socket that listens there from now on.
        lost: gets the reason by path, as long as clients do not reach the listener.
    """
    while True:
        await trio.sleep(INTERVAL)
        try:
            if await trio.to_thread.run_sync(path.leads_here, abandon_on_cancel=True):
                if lost.pop(path.path, None):
                    log(logging.WARNING, "socket path leads here again", path=path.path)
                continue
            listener = await trio.to_thread.run_sync(path.listen)
        except ConfigError as error:
            if path.path not in lost:
                lost[path.path] = str(error)
                log(logging.ERROR, "socket path lost, no client can connect to it", path=path.path, reason=str(error))
        except RuntimeError:  # no thread can be started: check again later
            pass
        else:
            lost.pop(path.path, None)
            replace(listener)
            hint = "clients that tried meanwhile were refused: find out which program removes it"
            log(logging.WARNING, "socket path lost, listening there again", path=path.path, hint=hint)
