"""A client in a process of its own, which a test can stop and kill: started by `tests.faults.test_processes`.

Usage: client_process.py ADDRESS ID read [SIZE]     print what came: bytes and their CRC-32, at SIZE bytes or the end
       client_process.py ADDRESS ID sink           print "flowing" when 64 KiB came, and continue reading
       client_process.py ADDRESS ID flood DEST      send frames to DEST without end

ADDRESS is a path or HOST:PORT. ID may be followed by further options of the hello, a number: N8 shares N.
It prints "ready" once its id is its own.
"""

import socket
import sys
import zlib


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def connect(address: str, id: bytes, options: int = 0) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address:
        connection = socket.create_connection((host, int(port)))
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    connection.sendall(id + bytes((0x81 | options,)))
    assert connection.recv(2, socket.MSG_WAITALL) == id + b"\0"
    say("ready")
    return connection


def read(connection: socket.socket, size: int) -> None:
    received, checksum = 0, 0
    while received < size and (chunk := connection.recv(min(65536, size - received))):
        received += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
    say(received, checksum)


def sink(connection: socket.socket) -> None:
    connection.recv(1 << 16, socket.MSG_WAITALL)
    say("flowing")
    while connection.recv(1 << 16):
        pass


def flood(connection: socket.socket, destination: bytes) -> None:
    frames = (destination + b"f") * 16384
    while True:
        connection.sendall(frames)


if __name__ == "__main__":
    address, id, what, *rest = sys.argv[1:]
    with connect(address, id[:1].encode(), int(id[1:] or 0)) as connection:
        if what == "read":
            read(connection, int(rest[0]) if rest else 1 << 62)
        elif what == "sink":
            sink(connection)
        else:
            flood(connection, rest[0].encode())
