"""A board: answers "read" with a temperature, and reconnects when the relay was away.

On a board, connect to the network first, and read a sensor in temperature().

micropython main.py HOST PORT ID
"""

import sys
import time

from triorelay_client import Client, Refused


def temperature():
    return b"21.5"


def serve(client):
    while True:
        for kind, source, payload in client.poll():
            if kind == "message" and payload == b"read":
                client.send(source, temperature())


def main(host, port, id):
    while True:
        try:
            client = Client(host, int(port), id)
            print("connected as", id)
            serve(client)
        except Refused as refused:
            print("refused with code", refused.args[0])
        except OSError as error:
            print("no relay:", error)
        time.sleep(1)


main(*sys.argv[1:])
