"""Without Trio, for a script or a notebook: call C (answer.py), and exchange messages with yourself.

blocking.py [ADDRESS]
"""

import sys

from triorelay import blocking


def main(address: str = "unix:server_socket") -> None:
    with blocking.connect(address, id="S") as client:
        client.wait_for("C", timeout=5)
        with client.calls() as calls:
            print(calls.call("C", b"hello", timeout=5).decode())
        with client.messages() as messages:
            messages.send("S", b"a note to myself")
            source, note = messages.receive(timeout=5)
            print(source, note.decode())


main(*sys.argv[1:])
