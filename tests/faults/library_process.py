"""A client of the library in a process of its own: started by `tests.faults.test_cable`.

Usage: library_process.py ADDRESS ID idle     send nothing
       library_process.py ADDRESS ID talk     send to itself, and again as soon as it is confirmed

It prints "ready" once its id is its own, and at last why it has lost the relay.
"""

import sys

import trio

import triorelay


async def main(*arguments: str) -> None:
    address, id, what = arguments
    try:
        async with triorelay.open_client(address, id) as client:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            while what == "talk":
                await client.send(id, b"x")
                await client.flush()
                await client.receive()
            await client.receive()
    except triorelay.ConnectionLost as lost:
        sys.stdout.write(f"{lost}\n")


trio.run(main, *sys.argv[1:])
