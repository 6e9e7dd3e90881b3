"""A process that listens on argv[1] and says what a client would find at each step before the socket is ready.

The interpreter's audit events come just before a system call is made, so what is seen at `os.chmod` is what every
other process sees until the mode is set.
"""

import os
import socket
import stat
import sys
from contextlib import closing

from triorelay.relay._socket_file import SocketFile

path, mode, group = sys.argv[1], int(sys.argv[2], 8), int(sys.argv[3])


def look(step: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        answer = os.strerror(client.connect_ex(path))
    found = os.lstat(path)
    sys.stdout.write(f"{step}|{stat.S_IMODE(found.st_mode):04o}|{found.st_gid == group}|{answer}\n")


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("os.chown", "os.chmod") and os.path.lexists(path):
        look(event)


sys.addaudithook(watch)
with closing(SocketFile(path, mode=mode, group=group, backlog=5)) as file, file.listen():
    look("listening")
