"""A process that opens connections to a port of this host without end, and sends half a request on each.

It writes a byte when it has opened as many as an admin endpoint has room for several times over.
"""

import socket
import sys
import time
from collections import deque

ROUND = 300
OPEN_AT_ONCE = 400
"""More would need more descriptors than every process may have."""

PAUSE = 0.001
"""About 900 connections a second: without it the flood would measure how fast the kernel drops them."""

port = int(sys.argv[1])
opened: deque[socket.socket] = deque()
count = 0
while True:
    client = socket.socket()
    client.connect(("127.0.0.1", port))
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Hal")
    opened.append(client)
    if len(opened) > OPEN_AT_ONCE:
        opened.popleft().close()
    count += 1
    time.sleep(PAUSE)
    if count == ROUND:
        sys.stdout.write(".")
        sys.stdout.flush()
