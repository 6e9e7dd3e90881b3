"""A client without Trio or triorelay: sends TEXT to ID as P, and prints what it receives until the relay ends.

plain_sockets.py PORT ID TEXT
"""

import socket
import sys

port, destination, text = int(sys.argv[1]), *map(str.encode, sys.argv[2:4])
with socket.create_connection(("127.0.0.1", port)) as relay:
    relay.sendall(b"P\x81")  # the hello: I am P (0x80), and I want an answer (0x01)
    welcome = relay.recv(2, socket.MSG_WAITALL)
    if welcome != b"P\0":
        sys.exit(f"the relay refused, code {welcome[1]}" if welcome else "no answer")
    relay.sendall(b"".join(destination + bytes([byte]) for byte in text))
    while len(frame := relay.recv(2, socket.MSG_WAITALL)) == 2:
        print(f"{frame[:1].decode('latin-1')} {frame[1:].decode('latin-1')}", flush=True)
