"""The dissector on the wire: a real session with a relay, as TCP packets, in the words of the wire page."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.components import require
from tests.wire.relay_process import RelayProcess
from tests.wireshark import DISSECTOR, dissect, fields
from triorelay.protocol import (
    CallKind,
    CloseReason,
    EventCode,
    FailReason,
    Refusal,
    StreamKind,
    address_frames,
    encode_message,
)
from triorelay.protocol import HelloOption as Option

if TYPE_CHECKING:
    from pathlib import Path

    from tests.wire.client import Client

pytestmark = pytest.mark.needs("tshark")

Packets = list[tuple[str, bytes]]
"""What went which way: O to the relay, I from it."""


def as_capture(path: Path, packets: Packets) -> Path:
    """Make TCP packets of what was said, between port 50000 and the relay's."""
    text = "".join(f"{way}\n000000 {data.hex(' ')}\n" for way, data in packets if data)
    # Inbound packets come from the first port.
    command = [require("text2pcap"), "-D", "-T", "9734,50000", "-", str(path)]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    return path


def byte_by_byte(packets: Packets) -> Packets:
    return [(way, bytes((byte,))) for way, data in packets for byte in data]


@pytest.fixture
def session(tmp_path: Path) -> Packets:
    """A client with events says hello, asks, sends a message and frames, gets some, and is closed."""
    packets: Packets = []

    def send(client: Client, data: bytes) -> None:
        client.send(data)
        packets.append(("O", data))

    def receive(client: Client, data: bytes) -> None:
        client.expect(data)
        packets.append(("I", data))

    with RelayProcess(tmp_path, "--tcp=127.0.0.1:0") as relay:
        other = relay.claim(b"B")
        a = relay.tcp()
        send(a, b"A\x82")
        receive(a, b"A\0" + b"\0\1\0A\0\1\0B" + b"\0\7\0\0")
        send(a, b"\0\x06\0\x2a" + address_frames(66, b"\0" + encode_message(b'{"x": 1}')))
        receive(a, b"\0\6\0\x2a")
        send(a, b"Z!" + b"\0\x08\0\x01")
        receive(a, b"\0\3\0Z" + b"\0\x08\0\x01")
        other.send(b"AhAi")
        receive(a, b"BhBi")
        other.close()
        receive(a, b"\0\2\0B")
    return packets


EXPECTED = [
    "hello A EVENTS",
    "welcome A, JOINED A, JOINED B, SYNCED",
    "PING 42, 15 frames to B, message of 8 bytes",
    "PONG 42",
    "1 frame to Z, FLUSH 1",
    "NO_ROUTE Z, FLUSHED 1",
    "2 frames from B",
    "LEFT B",
]


def test_a_session_is_shown_in_the_words_of_the_wire_page(tmp_path: Path, session: Packets) -> None:
    capture = as_capture(tmp_path / "capture", session)
    assert dissect(capture) == EXPECTED
    assert fields(capture, "triorelay.message.text", "triorelay.destination")[2] == ['{"x": 1}', "0x42"]
    assert fields(capture, "triorelay.event.code", "triorelay.event.argument")[1] == ["1,1,7", "0x41,0x42,0x00"]
    assert fields(capture, "triorelay.request.code")[4] == ["8"]


def test_wherever_the_packets_are_cut_it_is_the_same_session(tmp_path: Path, session: Packets) -> None:
    told = [line for line in dissect(as_capture(tmp_path / "capture", byte_by_byte(session))) if "[TCP" not in line]
    words = ", ".join(line for line in told if not line.startswith("50000") and "→" not in line)
    frames = len(re.findall("1 frame to B", words)), len(re.findall("1 frame from B", words))
    assert frames == (15, 2)
    rest = re.sub(r"1 frame (to|from) B, |, 1 frame from B", "", words)
    expected = ", ".join(EXPECTED).replace("15 frames to B, ", "").replace("2 frames from B, ", "")
    assert rest == expected


@pytest.mark.parametrize(
    ("packets", "told"),
    [
        ([("O", b"A\x80B1")], "hello A, 1 frame to B"),
        ([("O", b"A\x85\x03key"), ("I", b"A\6")], "hello A ACK TOKEN|refused A: authentication required or failed"),
        ([("O", b"\0\x81"), ("I", b"\xff\0")], "hello for any id ACK|welcome 0xff"),
        ([("O", b"A\x9b"), ("I", b"A\0")], "hello A ACK EVENTS SHARE LOSSY|welcome A"),
        (
            [("O", b"A\x80" + address_frames(66, b"\0" + encode_message(b"\x08\0\0\0\0\1\2\3\4")))],
            "hello A, 16 frames to B, message of 9 bytes (stream: open)",
        ),
        ([("O", b"B1B2")], "2 frames to B"),
        ([("O", b"A\x82"), ("I", b"A\0\0\5\0\0\0\x09\0\5")], "hello A EVENTS|welcome A, DRAINING, CLOSING draining"),
        ([("O", b"A\x82"), ("I", b"A\0\0\x63\0\7")], "hello A EVENTS|welcome A, event 99 7"),
    ],
)
def test_each_way_to_begin_is_recognized(tmp_path: Path, packets: Packets, told: str) -> None:
    assert "|".join(dissect(as_capture(tmp_path / "capture", packets))) == told


def test_a_stream_is_shown_with_its_kind_and_numbers(tmp_path: Path) -> None:
    messages = [b"\x08\0\0\0\0\1\2\3\4", b"\0\5\6\7\x08hi", b"\x02\5\6\7\x08", b"\x02\5"]
    data = b"A\x80" + b"".join(address_frames(66, encode_message(message)) for message in messages)
    capture = as_capture(tmp_path / "capture", [("O", data)])
    assert fields(capture, "triorelay.stream.kind", "triorelay.stream.number", "triorelay.stream.own") == [
        ["8,0,2", "0x00000000,0x05060708,0x05060708", "0x01020304"]
    ]


def test_another_port_can_be_chosen(tmp_path: Path) -> None:
    capture = as_capture(tmp_path / "capture", [("O", b"A\x80B1")])
    assert dissect(capture, "-o", "triorelay.port:1234", "-T", "fields", "-e", "triorelay.source") == [""]


def test_the_dissector_knows_every_name_of_the_protocol() -> None:
    script = DISSECTOR.read_text()
    for code in {code.name: code for code in EventCode.__members__.values()}.values():
        assert f'[{code:d}] = "{code.name}"' in script
    for option in Option:
        assert not option or f'0x{option:02x}, "{option.name}"' in script
    for kind in CallKind:
        assert f'[{kind:d}] = "{kind.name}"' in script
    for stream in StreamKind:
        assert f'[{stream:d}] = "{stream.name.lower()}"' in script
    for failure in FailReason:
        assert f"[{failure:d}] = " in script.partition("CALL_REASONS = {")[2].partition("}")[0]
    for refusal in Refusal:
        assert f"[{refusal:d}] = " in script
    for reason in CloseReason:
        assert f"[{reason:d}] = " in script
