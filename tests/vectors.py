"""Makes docs/reference/vectors.json: bytes that every implementation of the wire protocol must write and read.

`make reference` writes the file, `tests/test_vectors.py` compares it, and programs in other languages read it. Bytes
are hexadecimal, numbers are decimal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from triorelay.protocol import (
    CallKind,
    CallMessage,
    Event,
    EventCode,
    FailReason,
    FrameReader,
    HelloOption,
    MessageReader,
    RemoteProtocolError,
    StreamState,
    address_frames,
    decode_call,
    encode_event,
    encode_hello,
    encode_message,
)

FILE = Path(__file__).parents[1] / "docs" / "reference" / "vectors.json"

HELLOS = [
    (ord("A"), HelloOption.NONE, b""),
    (ord("A"), HelloOption.ACK, b""),
    (ord("A"), HelloOption.EVENTS, b""),
    (255, HelloOption.ACK | HelloOption.EVENTS, b""),
    (0, HelloOption.ACK, b""),
    (0, HelloOption.EVENTS, b""),
    (ord("A"), HelloOption.NONE, b"secret"),
    (ord("A"), HelloOption.ACK, b"\x00\xff"),
    (0, HelloOption.EVENTS, bytes(255)),
    (ord("N"), HelloOption.SHARE, b""),
    (ord("N"), HelloOption.EVENTS | HelloOption.SHARE | HelloOption.LOSSY, b""),
    (ord("A"), HelloOption.ACK | HelloOption.LOSSY, b"secret"),
]
"""The useful combinations of options, an observer, any free id, no token and the longest one."""

FRAMES = [(ord("B"), b"1"), (ord("B"), b"hello"), (1, b"\x00"), (255, b"\xff\x00\x0a"), (ord("B"), b"")]

REQUESTS = [(EventCode.PING, 0), (EventCode.PING, 255), (EventCode.LIST, 0), (EventCode.FLUSH, 7)]

EVENTS = [
    (EventCode.JOINED, ord("B")),
    (EventCode.LEFT, ord("B")),
    (EventCode.NO_ROUTE, ord("B")),
    (EventCode.DROPPED, 255),
    (EventCode.DRAINING, 0),
    (EventCode.PONG, 255),
    (EventCode.SYNCED, 0),
    (EventCode.FLUSHED, 7),
    (EventCode.CLOSING, 3),
    (200, 1),
]
"""The last has a code that no version defines: a reader returns it, a client ignores it."""

PAYLOADS = [
    b"",
    b"hi",
    b"123456789",
    bytes(1),
    bytes(300),
    b"\x01" * 249,
    b"\x01" * 250,
    b"\x01" * 251,
    b"\x01" * 254 + b"\x00",
    b"\x00" + b"\xff" * 509 + b"\x00",
    bytes(range(256)) * 2,
]
"""With their CRC of four bytes, some of these fill a COBS block of 254 bytes, miss it by one, or begin the next."""


CALLS = [
    CallMessage(CallKind.CALL, 1, b"21"),
    CallMessage(CallKind.CALL, 0xFFFFFFFF),
    CallMessage(CallKind.REPLY, 1, b"42"),
    CallMessage(CallKind.REPLY, 0x01020304, bytes(3)),
    CallMessage(CallKind.FAIL, 1, reason=FailReason.FAILED, text="no such file: \u00e4"),
    CallMessage(CallKind.FAIL, 2, reason=FailReason.NOT_SERVED),
    CallMessage(CallKind.FAIL, 3, reason=200, text="a reason that no version defines"),
    CallMessage(CallKind.CANCEL, 1),
]

STREAMS: list[tuple[Any, ...]] = [
    (1, False, "open", "080000000000000002", "080000000100000002", "000000000168690000", "end", "0200000001", "close"),
    (2, True, "open", "080000000000000001", "080000000200000001", "00000000026869", "close", "0200000002"),
    (2, True, "080000000000000001", "end", "close", "0300000002"),
    (1, False, "open", "end", "close", "080000000100000009"),
    (1, False, "open", "080000000700000009", "0000000007ff", "0000000001ff", "0200000000"),
    (2, True, "open", "080000000000000001", "080000000000000003", "0000000002ff", "080000000000000004", "close"),
    (2, True, "open", "080000000000000001", "0100000002", "0000000002ff", "close", "0200000002"),
]
"""One side's number, whether it has the higher id, and what happens: openings in both orders, what is said before the
peer has opened it, messages with other numbers, a later opening with and without something in between."""

NO_CALLS = [
    b"",
    b"\x04",
    b"\x04\x00\x00\x01",
    b"\x06\x00\x00\x00\x01",
    b"\x07\x00\x00\x00\x01x",
    b"\x03abcde",
    b"\x08abcde",
]
"""Messages that are not of a call: too short, too long, or of another kind."""


def received() -> list[bytes]:
    """What a client may receive: data and events in any order, half frames and half events at the end included."""
    return [
        frames("B", b"hello"),
        b"".join(encode_event(code, argument) for code, argument in EVENTS),
        encode_event(EventCode.JOINED, ord("B")) + frames("B", b"\x00\x01") + encode_event(6, 0),
        frames("B", b"1") + frames("C", b"2") + frames("B", b"3"),
        frames("B", b"1") + b"B",
        encode_event(EventCode.LEFT, ord("B"))[:2],
        b"\x00\x01B1",
    ]


def damaged() -> list[bytes]:
    """Data bytes of one source that hold whole messages, and blocks that must be discarded."""
    hi, nine = encode_message(b"hi"), encode_message(b"123456789")
    return [
        hi + nine,
        b"\x00" + hi + b"\x00\x00" + nine,
        hi[1:] + nine,
        hi[:-2] + b"\x00" + nine,
        hi[:3] + nine + hi,
        hi[:1] + bytes([hi[1] ^ 1]) + hi[2:] + nine,
        b"\x05\x01\x00" + nine,
        b"\x04\x01\x02\x03\x00" + nine,
        b"\xff\x00" + nine,
        hi + nine[:-1],
    ]


def frames(id: str, data: bytes) -> bytes:
    return bytes(address_frames(ord(id), data))


def items_of(data: bytes) -> list[dict[str, Any]] | None:
    """Return what a client finds in `data`, or None where it must close the connection."""
    try:
        items = FrameReader().feed(data)
    except RemoteProtocolError:
        return None
    return [
        {"event": item.code, "argument": item.argument}
        if isinstance(item, Event)
        else {"source": item[0], "data": item[1].hex()}
        for item in items
    ]


def read_messages(data: bytes) -> dict[str, Any]:
    reader = MessageReader()
    payloads = [payload.hex() for payload in reader.feed(data)]
    return {"data": data.hex(), "payloads": payloads, "discarded": reader.discarded}


def call_vector(call: CallMessage) -> dict[str, Any]:
    payload = call.text.encode() if call.kind is CallKind.FAIL else call.payload
    described = {"kind": int(call.kind), "number": call.number, "reason": call.reason, "payload": payload.hex()}
    message = call.encode()
    assert decode_call(message) == call
    return {**described, "message": message.hex()}


def stream_vector(number: int, decides: bool, *steps: str) -> dict[str, Any]:
    """What one side of a stream says and reads: after what its user does, and after what it hears, in hex."""
    state = StreamState(number, decides=decides)
    described = []
    for step in steps:
        read = b""
        match step:
            case "open":
                state.announce()
            case "end":
                state.end()
            case "close":
                state.close()
            case _:
                read = state.receive(bytes.fromhex(step))
        says = [message.hex() for message in state.take_messages()]
        described.append({"step": step, "says": says, "reads": read.hex()})
    return {"number": number, "decides": decides, "steps": described}


def no_call(message: bytes) -> str:
    try:
        decode_call(message)
    except RemoteProtocolError:
        return message.hex()
    raise AssertionError(message)


def vectors() -> dict[str, Any]:
    return {
        "hello": [
            {"id": id, "options": int(options), "token": token.hex(), "bytes": encode_hello(id, options, token).hex()}
            for id, options, token in HELLOS
        ],
        "frames": [{"id": id, "data": data.hex(), "bytes": address_frames(id, data).hex()} for id, data in FRAMES],
        "requests": [
            {"code": code, "argument": argument, "bytes": encode_event(code, argument).hex()}
            for code, argument in REQUESTS
        ],
        "received": [{"bytes": data.hex(), "items": items_of(data)} for data in received()],
        "messages": [{"payload": data.hex(), "data": encode_message(data).hex()} for data in PAYLOADS],
        "message_reading": [read_messages(data) for data in damaged()],
        "streams": [stream_vector(*stream) for stream in STREAMS],
        "calls": [call_vector(call) for call in CALLS],
        "no_calls": [no_call(message) for message in NO_CALLS],
    }


def text() -> str:
    """The file: one vector a line."""
    lists = [
        f'"{name}": [\n' + ",\n".join(f"  {json.dumps(vector)}" for vector in entries) + "\n]"
        for name, entries in vectors().items()
    ]
    return "{\n" + ",\n".join(lists) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text())
