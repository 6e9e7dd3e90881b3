"""Runs as packets, looked at with tshark and the project's dissector."""

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.components import require
from tests.wireshark import dissect, fields
from triorelay.protocol import CallKind, CallMessage, encode_message
from triorelay.protocol._streams import NUMBER_BYTES, StreamKind
from triorelay.recording import Entry, Lost, Run
from triorelay.recording._pcapng import PacketWriter

if TYPE_CHECKING:
    from pathlib import Path

STREAM_MESSAGES = [
    (StreamKind.DATA, b"abc"),
    (StreamKind.END, b""),
    (StreamKind.CLOSE, b""),
    (StreamKind.BROKEN, b""),
    (StreamKind.OPEN, bytes(NUMBER_BYTES - 1) + b"\x09"),
]

pytestmark = pytest.mark.needs("tshark")


def captured(path: Path, *entries: Entry) -> Path:
    writer = PacketWriter("unix:server_socket", "triorelay test")
    blocks = [writer.loss(entry) if isinstance(entry, Lost) else writer.packet(entry) for entry in entries]
    path.write_bytes(writer.head + b"".join(blocks))
    return path


def test_frames_have_time_source_destination_and_data(tmp_path: Path) -> None:
    capture = captured(tmp_path / "x", Run(1_700_000_000_123_456_789, 65, 66, b"hello"), Run(0, 0xFF, 0, b"\x00"))
    assert dissect(capture) == ["5 frames from A to B", "1 frame from 0xff to 0x00"]
    names = ("frame.time_epoch", "triorelay.source", "triorelay.destination", "triorelay.frames", "triorelay.data")
    assert fields(capture, *names) == [
        ["1700000000.123456789", "0x41", "0x42", "5", b"hello".hex()],
        ["0.000000000", "0xff", "0x00", "1", "00"],
    ]


def test_every_data_byte_and_every_length_is_as_it_was(tmp_path: Path) -> None:
    chance = random.Random(7)
    runs = [Run(number, 65, 66, chance.randbytes(length)) for number, length in enumerate([*range(1, 20), 32_768])]
    found = fields(captured(tmp_path / "x", *runs), "triorelay.data")
    assert [bytes.fromhex(data) for (data,) in found] == [run.data for run in runs]


def test_a_message_is_shown_with_the_frames_that_complete_it(tmp_path: Path) -> None:
    message = encode_message(b'{"temperature": 21.5}')
    capture = captured(
        tmp_path / "x",
        Run(1, 65, 66, b"\0" + message[:7]),
        Run(2, 67, 66, message[:9]),
        Run(3, 65, 66, message[7:]),
        Run(4, 67, 66, b"no end of that\0"),
    )
    assert dissect(capture) == [
        "8 frames from A to B",
        "9 frames from C to B",
        f"{len(message) - 7} frames from A to B, message of 21 bytes",
        "15 frames from C to B",
    ]
    assert fields(capture, "triorelay.message.text", "json.value.number")[2] == ['{"temperature": 21.5}', "21.5"]


def test_messages_of_any_length_check(tmp_path: Path) -> None:
    sizes = [0, 1, 253, 254, 255, 508, 509, 5000]
    payloads = [random.Random(size).randbytes(size) if size % 2 else b"x" * size for size in sizes]
    capture = captured(tmp_path / "x", *(Run(1, 65, 66, encode_message(payload)) for payload in payloads))
    told = [line.split(", ")[1] for line in dissect(capture)]
    assert [line.partition(" bytes")[0] for line in told] == [f"message of {size}" for size in sizes]
    assert fields(capture, "triorelay.message") == [[payload.hex()] for payload in payloads]


def test_kinds_of_streams_and_calls_are_named(tmp_path: Path) -> None:
    calls = [
        CallMessage(CallKind.CALL, 256, b"ask"),
        CallMessage(CallKind.REPLY, 256, b"say"),
        CallMessage(CallKind.FAIL, 256, reason=2, text="why"),
        CallMessage(CallKind.CANCEL, 256),
    ]
    number = (7).to_bytes(NUMBER_BYTES, "big")
    streams = [bytes([kind]) + number + rest for kind, rest in STREAM_MESSAGES]
    payloads = [*streams, *(call.encode() for call in calls)]
    capture = captured(tmp_path / "x", *(Run(1, 65, 66, encode_message(payload)) for payload in payloads))
    assert [line.rpartition("(")[2] for line in dissect(capture)] == [
        *(f"stream: {kind.name.lower()})" for kind, _ in STREAM_MESSAGES),
        *("CALL 256)", "REPLY 256)", "FAIL 256: the handler failed)", "CANCEL 256)"),
    ]
    found = fields(
        capture, "triorelay.call.kind", "triorelay.call.number", "triorelay.call.payload", "triorelay.call.text"
    )
    assert found[len(STREAM_MESSAGES) :] == [
        ["4", "256", b"ask".hex(), ""],
        ["5", "256", b"say".hex(), ""],
        ["6", "256", "", "why"],
        ["7", "256", "", ""],
    ]


def test_lost_frames_are_counted_as_dropped_packets(tmp_path: Path) -> None:
    capture = captured(tmp_path / "x", Run(1, 65, 66, b"a"), Lost(2, 7), Lost(3, 5), Run(4, 65, 66, b"b"))
    info = subprocess.run([require("capinfos"), capture], capture_output=True, text=True, check=True).stdout
    assert "Number of stat entries = 2" in info
    assert "Capture application: triorelay test" in info
    assert "Name = unix:server_socket" in info
    assert len(dissect(capture)) == 2
