"""Runs as packets, in a file that Wireshark and tshark open: pcapng, as draft-ietf-opsawg-pcapng describes it.

A packet is `source destination data…`, of the link type that is left to users; the dissector in docs/how-to/wireshark/
knows it. Frames that are missing are counted as dropped, in a block of statistics wherever some are.
"""

import struct

from ._runs import Lost, Run

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_USER0 = 147
_END, _APPLICATION, _NAME, _RESOLUTION, _DROPPED = 0, 4, 2, 9, 5
_NANOSECONDS = 9


class PacketWriter:
    """Makes the bytes of one capture.

    Attributes:
        packets: runs so far.
        lost: frames that are known to be missing so far.
    """

    def __init__(self, relay: str, program: str) -> None:
        """Prepare to capture.

        Args:
            relay: what the interface is called.
            program: name and version of what captures.
        """
        self.packets: int = 0
        self.lost: int = 0
        section = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + _option(_APPLICATION, program.encode()) + _option(_END)
        interface = struct.pack("<HHI", _USER0, 0, 0) + _option(_NAME, relay.encode())
        interface += _option(_RESOLUTION, bytes((_NANOSECONDS,))) + _option(_END)
        self.head: bytes = _block(_SECTION, section) + _block(_INTERFACE, interface)

    def packet(self, run: Run) -> bytes:
        """Return the bytes of a run."""
        self.packets += 1
        data = bytes((run.source, run.destination)) + run.data
        head = struct.pack("<IIIII", 0, run.time >> 32, run.time & 0xFFFFFFFF, len(data), len(data))
        return _block(_PACKET, head + _padded(data))

    def loss(self, lost: Lost) -> bytes:
        """Return the bytes that say how many frames are missing so far."""
        self.lost += lost.frames
        head = struct.pack("<III", 0, lost.time >> 32, lost.time & 0xFFFFFFFF)
        return _block(_STATISTICS, head + _option(_DROPPED, struct.pack("<Q", self.lost)) + _option(_END))


def _block(type: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("<II", type, size) + body + struct.pack("<I", size)


def _option(code: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
