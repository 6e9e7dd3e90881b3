"""The plainest file of a recording: everything that opens recordings opens it."""

from __future__ import annotations

import io

from mcap.reader import make_reader

from triorelay.recording import Run, dump
from triorelay.recording._reader import RecordingReader

RUNS = [
    Run(1_000, 65, 66, b"\x00\xff"),
    Run(2_000, 66, 65, b"back"),
    Run(3_000, 65, 66, b""),
    Run(4_000, 0x2F, 0, b"!"),
]


def dumped() -> bytes:
    return b"".join(dump(RUNS, {"relay": "unix:here"}, "test 1"))


def test_a_reader_of_recordings_reads_it() -> None:
    reader = RecordingReader(io.BytesIO(dumped()))
    assert list(reader.entries()) == RUNS
    assert (reader.whole, reader.about) == (True, {"relay": "unix:here"})


def test_the_package_mcap_reads_it() -> None:
    reader = make_reader(io.BytesIO(dumped()), validate_crcs=True)
    assert [(channel.topic, message.log_time, message.data) for _, channel, message in reader.iter_messages()] == [
        ("/A/B", 1_000, b"\x00\xff"),
        ("/B/A", 2_000, b"back"),
        ("/A/B", 3_000, b""),
        ("/0x2f/0x00", 4_000, b"!"),
    ]


def test_cut_anywhere_it_gives_what_is_whole() -> None:
    data = dumped()
    for cut in range(100, len(data)):
        reader = RecordingReader(io.BytesIO(data[:cut]))
        found = list(reader.entries())
        assert found == RUNS[: len(found)]
        assert not reader.whole
