"""docs/reference/vectors.json is what the library writes and reads, and the wire page shows the same bytes."""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING

from tests import vectors
from tests.wire.relay_process import RelayProcess
from triorelay.protocol import MessageReader, StreamKind, StreamState, address_frames, encode_message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIRE = vectors.FILE.parent / "wire.md"


def test_the_file_is_what_the_library_writes_and_reads() -> None:
    assert vectors.FILE.read_text() == vectors.text(), "the wire changed: `make reference` writes the file anew"


def test_every_reading_of_the_file_in_any_split_is_the_same() -> None:
    for vector in json.loads(vectors.FILE.read_text())["message_reading"]:
        data = bytes.fromhex(vector["data"])
        for end in range(len(data) + 1):
            reader = MessageReader()
            payloads = reader.feed(data[:end]) + reader.feed(data[end:])
            assert [payload.hex() for payload in payloads] == vector["payloads"]
            assert reader.discarded == vector["discarded"]


def test_the_wire_page_encodes_a_message_as_the_library_does() -> None:
    payload, with_crc, message, frames = (
        data for data, meaning in shown_bytes() if not re.match(r"\w+ to \w+: ", meaning)
    )
    assert with_crc == payload + zlib.crc32(payload).to_bytes(4)
    assert message == encode_message(payload)
    assert frames == address_frames(ord("B"), message)


def test_a_relay_and_two_clients_exchange_the_bytes_that_the_wire_page_shows(tmp_path: Path) -> None:
    with RelayProcess(tmp_path) as relay:
        clients = {"A": relay.tcp()}
        for data, meaning in shown_bytes():
            if meaning.endswith("JOINED B"):
                clients["B"] = relay.claim(b"B")
            if said := re.match(r"([AB]) to relay: ", meaning):
                clients[said[1]].send(data)
            elif heard := re.match(r"relay to ([AB]): ", meaning):
                clients[heard[1]].expect(data)
        assert set(clients) == {"A", "B"}


def test_a_stream_is_opened_and_closed_by_the_bytes_that_the_wire_page_shows() -> None:
    a, b = StreamState(0xA1A1A1A1, decides=False), StreamState(0xB2B2B2B2, decides=True)
    for state in (a, b):
        state.announce()
    said = [*a.take_messages(), *b.take_messages()]
    b.receive(said[0])
    a.receive(said[1])
    said += [*b.take_messages(), *a.take_messages()]
    a.receive(said[2])
    b.receive(said[3])
    said.append(a.encode(StreamKind.DATA, b"hi"))
    a.close()
    b.close()
    said += [*a.take_messages(), *b.take_messages()]
    assert said == [data for data, meaning in shown_bytes() if re.match(r"A to B: |B to A: ", meaning)]


def shown_bytes() -> Iterator[tuple[bytes, str]]:
    """Each line of bytes that the page shows, with what it says beside them."""
    lines = re.findall(r"^ {4}([0-9a-f]{2}(?: [0-9a-f]{2})*) {2,}(\S.*)$", WIRE.read_text(), re.MULTILINE)
    assert len(lines) == 20
    for data, meaning in lines:
        yield bytes.fromhex(data), meaning
