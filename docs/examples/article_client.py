"""The article's client without Trio or triorelay: bind a name, connect, write a frame, read a frame.

    article_client.py [ID [DESTINATION [CHAR [DELAY]]]]         (A B 1, without a delay)

DELAY is a number of seconds to wait before writing, or `-` to wait for a line on standard input. The relay listens on
`server_socket` in the working directory.
"""

import socket
import sys
import time

own_id, destination, data, delay = (*sys.argv[1:], *("A", "B", "1", "0")[len(sys.argv) - 1 :])

with socket.socket(socket.AF_UNIX) as client:
    client.bind(own_id)
    client.connect("server_socket")
    print("connected", file=sys.stderr, flush=True)
    if delay == "-":
        sys.stdin.readline()
    else:
        time.sleep(float(delay))
    client.sendall(f"{destination}{data}".encode("latin-1"))
    frame = b""
    while len(frame) < 2 and (more := client.recv(2 - len(frame))):
        frame += more

print(frame.decode("latin-1"))
sys.exit(len(frame) != 2)
