"""A ROUTER in Python: each message goes to the identity that its first part names."""

from __future__ import annotations

import sys

import zmq


def main(address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.SNDHWM, 0)
        router.setsockopt(zmq.RCVHWM, 0)
        router.bind(address)
        while True:
            source, destination, payload = router.recv_multipart(copy=True)
            router.send_multipart((destination, source, payload), copy=True)


if __name__ == "__main__":
    main(sys.argv[1])
