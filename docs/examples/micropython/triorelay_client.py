"""A client of triorelay for MicroPython, over TCP. Copy this file onto the board. It runs on CPython too.

from triorelay_client import Client

client = Client("relay.example", 9734, "A")
client.send("B", b"hello")
for kind, about, what in client.poll(1000):
    print(kind, about, what)
"""

import binascii
import select
import socket

EVENTS = 0x02
TOKEN = 0x04
SHARE = 0x08
LOSSY = 0x10

JOINED = 1
LEFT = 2
NO_ROUTE = 3
DROPPED = 4
CLOSING = 9

CALL = 4  # the first byte of a call's message
REPLY = 5
FAIL = 6
CANCEL = 7

MESSAGE_LIMIT = 4096  # bytes of payload; a board has little memory


class Refused(Exception):
    """The relay refused the id. The argument is the code of docs/reference/wire.md."""


# -- writing


def hello(id, options=0, token=b""):
    if not token:
        return bytes((id, 0x80 | options & ~TOKEN))
    return bytes((id, 0x80 | options | TOKEN, len(token))) + token


def frames(id, data):
    out = bytearray(2 * len(data))
    for i in range(len(data)):
        out[2 * i] = id
        out[2 * i + 1] = data[i]
    return out


def request(code, argument):
    return bytes((0, code, 0, argument))


def message(payload):
    crc = binascii.crc32(payload) & 0xFFFFFFFF
    return cobs_encode(payload + crc.to_bytes(4, "big")) + b"\0"


def call_message(kind, number, payload=b"", reason=0):
    """Return the payload of a call's message; the payload of a FAIL is UTF-8 text."""
    head = bytes((kind,)) + number.to_bytes(4, "big")
    return head + (bytes((reason,)) if kind == FAIL else b"") + payload


def cobs_encode(plain):
    out = bytearray(1)
    code = 0
    for byte in plain:
        if len(out) - code == 255:  # the block is full, and more follows
            out[code] = 255
            code = len(out)
            out.append(0)
        if byte:
            out.append(byte)
        else:
            out[code] = len(out) - code
            code = len(out)
            out.append(0)
    out[code] = len(out) - code
    return out


# -- reading


def cobs_decode(block):
    """Return what the block holds, or None where it is cut."""
    out = bytearray()
    at = 0
    while at < len(block):
        end = at + block[at]
        if end == at or end > len(block):
            return None
        out += block[at + 1 : end]
        if end - at < 255 and end < len(block):
            out.append(0)
        at = end
    return out


def read_call(message):
    """Return (kind, number, payload, reason), or None if the message is not one of a call."""
    if len(message) < 5 or not CALL <= message[0] <= CANCEL:
        return None
    kind = message[0]
    rest = message[5:]
    if (kind == FAIL and not rest) or (kind == CANCEL and rest):
        return None
    number = int.from_bytes(message[1:5], "big")
    return (kind, number, rest[1:], rest[0]) if kind == FAIL else (kind, number, rest, 0)


class FrameReader:
    """Splits what arrives into ("data", source, bytes) and ("event", code, argument)."""

    def __init__(self):
        self._half = b""
        self._code = -1

    def feed(self, chunk):
        chunk = self._half + chunk
        whole = len(chunk) & ~1
        self._half = chunk[whole:]
        items = []
        at = 0
        while at < whole:
            source = chunk[at]
            data = bytearray()
            while at < whole and chunk[at] == source:
                data.append(chunk[at + 1])
                at += 2
            if source == 0:
                self._take_events(data, items)
            elif self._code >= 0:
                raise ValueError("a frame came between the two frames of an event")
            else:
                items.append(("data", source, bytes(data)))
        return items

    def _take_events(self, data, items):
        for byte in data:
            if self._code < 0:
                self._code = byte
            else:
                items.append(("event", self._code, byte))
                self._code = -1


class MessageReader:
    """Puts the messages of one source together. A block that is cut, corrupt or too long is discarded."""

    def __init__(self, limit=MESSAGE_LIMIT):
        plain = limit + 4
        self._limit = plain + plain // 254 + 1
        self._block = bytearray()
        self._too_long = False
        self.discarded = 0

    def feed(self, data):
        payloads = []
        pieces = bytes(data).split(b"\0")
        for piece in pieces[:-1]:
            self._extend(piece)
            if self._block or self._too_long:
                self._finish(payloads)
        self._extend(pieces[-1])
        return payloads

    def _extend(self, piece):
        if self._too_long or len(self._block) + len(piece) > self._limit:
            self._too_long = True
            self._block = bytearray()
        else:
            self._block += piece

    def _finish(self, payloads):
        plain = None if self._too_long else cobs_decode(self._block)
        self._block = bytearray()
        self._too_long = False
        if plain is not None and len(plain) >= 4:
            payload = bytes(plain[:-4])
            if (binascii.crc32(payload) & 0xFFFFFFFF).to_bytes(4, "big") == bytes(plain[-4:]):
                payloads.append(payload)
                return
        self.discarded += 1


# -- a client


class Client:
    """One connection. `OSError` means that it is lost: open another one."""

    def __init__(self, host, port, id, token=b""):
        self._frames = FrameReader()
        self._messages = {}  # source: MessageReader
        self._begun = set()  # peers to which a message was sent
        self._socket = socket.socket()
        try:
            self._socket.connect(socket.getaddrinfo(host, port)[0][-1])
            self._write(hello(ord(id), EVENTS, token))
            answer = self._read(1) + self._read(1)
        except OSError:
            self._socket.close()
            raise
        if answer[1] != 0:
            self._socket.close()
            raise Refused(answer[1])
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def send(self, peer, payload):
        """Send a message. It waits while the relay does not take it, because the peer is slow."""
        data = message(payload)
        if peer not in self._begun:
            self._begun.add(peer)
            data = b"\0" + data  # ends what an earlier client of this id left unfinished
        self._write(frames(ord(peer), data))

    def poll(self, milliseconds=-1):
        """Wait for at most so long; return ("message", source, payload) and ("event", code, argument)."""
        if not self._poller.poll(milliseconds):
            return []
        found = []
        for kind, about, what in self._frames.feed(self._read(512)):
            if kind == "event":
                if about == LEFT:
                    self._messages.pop(what, None)
                found.append((kind, about, what))
                continue
            if about not in self._messages:
                self._messages[about] = MessageReader()
            for payload in self._messages[about].feed(what):
                found.append(("message", chr(about), payload))
        return found

    def close(self):
        self._socket.close()

    def _read(self, size):
        data = self._socket.recv(size)
        if not data:
            raise OSError("the relay has closed the connection")
        return data

    def _write(self, data):
        view = memoryview(data)
        while len(view):
            view = view[self._socket.send(view) :]
