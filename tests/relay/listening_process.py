"""A process that listens on request: for each line `PATH INSTANT` of its input, until the next line."""

import sys
import time
from contextlib import closing

from triorelay.protocol import ConfigError
from triorelay.relay._socket_file import SocketFile


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


say("ready")
for order in sys.stdin:
    path, instant = order.split()
    while time.monotonic() < float(instant):
        pass
    try:
        with closing(SocketFile(path, mode=0o600, group=None, backlog=5)) as file, file.listen():
            say("listening")
            sys.stdin.readline()
        say("left")
    except ConfigError as error:
        say(f"refused: {error}")
