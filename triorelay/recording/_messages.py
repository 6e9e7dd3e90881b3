"""Whole messages in the runs of each pair.

1. Each pair has its own reader. Frames that are no message fail the checksum, and leave nothing behind.
2. Unfinished messages of all pairs together take at most `UNFINISHED_BYTES`. Over that, the one that has waited longest
   is forgotten: the recording has its frames, but not the message.
"""

from collections import OrderedDict

import msgspec

from ..protocol import MessageReader

UNFINISHED_BYTES = 64 << 20
"""The largest messages of 64 pairs."""

DESCRIBED_DEPTH = 16
"""Objects in objects that a schema describes. JSON may be nested deeper than Python calls functions."""

Pair = tuple[int, int]


class PairMessages:
    """The messages of all pairs."""

    def __init__(self, *, unfinished_bytes: int = UNFINISHED_BYTES) -> None:
        self._limit = unfinished_bytes
        self._readers: OrderedDict[Pair, tuple[MessageReader, int]] = OrderedDict()
        self._unfinished = 0

    def feed(self, pair: Pair, data: bytes) -> list[bytes]:
        """Take data of a pair; return the payloads of the messages that it completes."""
        reader, before = self._readers.pop(pair, (None, 0))
        if reader is None:
            reader = MessageReader()
        payloads = reader.feed(data)
        self._unfinished -= before
        if reader.begun:
            size = len(reader.begun)
            self._readers[pair] = reader, size
            self._unfinished += size
            while self._unfinished > self._limit:
                _, (_, forgotten) = self._readers.popitem(last=False)
                self._unfinished -= forgotten
        return payloads


def json_object(payload: bytes) -> bytes | None:
    """Return `payload` as the text of a JSON object, or None if it is no JSON.

    Tools that draw want an object: any other value becomes the field `value` of one.
    """
    try:
        value = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(value, dict) else b'{"value":' + payload + b"}"


def schema_of(payload: bytes) -> bytes:
    """Return a JSON schema that describes an object like this one, so that tools know its fields before they read."""
    return msgspec.json.encode(_describe(msgspec.json.decode(payload)))


def _describe(value: object, depth: int = DESCRIBED_DEPTH) -> dict[str, object]:
    match value:
        case _ if not depth:
            return {}
        case dict():
            fields = {key: _describe(field, depth - 1) for key, field in value.items()}
            return {"type": "object", "properties": fields}
        case list():
            return {"type": "array", "items": _describe(value[0], depth - 1) if value else {}}
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
    return {}
